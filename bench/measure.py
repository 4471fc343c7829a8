"""How the benchmarks measure: interleaved timing, counted passes, peak memory, and the machine it was on."""

from __future__ import annotations

import gc
import importlib.metadata
import itertools
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

Call = Callable[[], object]


class Counter(nn.Module):
    """Passes examples on to a model and counts them: forward, and backward where a gradient reaches the input."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        self.calls += 1
        if torch.is_grad_enabled() and x.requires_grad:
            x = x.view_as(x)  # a node of the graph, whose gradient tells that a backward pass came through
            x.register_hook(self._came_back)
        return self.model(x)

    def _came_back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def time_interleaved(
    calls: dict[str, Call],
    rounds: int,
    warmup: int,
    seed: int,
    before: Callable[[str], None],
    say: Callable[[str], None],
) -> dict[str, dict[str, list[float]]]:
    """Wall and CPU seconds of every call in every round after the warm-up, each round in a new order.

    Whatever else the machine does then falls on all of them alike, and the ratio of two calls of one round
    is hurt less than the ratio of two averages.
    """
    shuffle = random.Random(seed)
    seconds = {name: {"wall": [], "cpu": []} for name in calls}
    for k in range(-warmup, rounds):
        order = list(calls)
        shuffle.shuffle(order)
        for name in order:
            before(name)
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            calls[name]()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if k >= 0:
                seconds[name]["wall"].append(wall)
                seconds[name]["cpu"].append(cpu)
        say(f"round {k + 1} of {rounds}" if k >= 0 else "warm-up round")
    return seconds


def paired_ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, object]:
    """min, median, max of over / under, round by round, with all of them."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios), "all": ratios}


def resident_bytes() -> int:
    """Memory this process holds now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_bytes()


def peak_bytes() -> int:
    """The most memory this process has held.

    `ru_maxrss` is that number too, but on Linux a process inherits the one of the process that started it.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else most * 1024


def peak_above_start(call: Call) -> int:
    """Bytes by which the peak during `call` is above what was held before it."""
    gc.collect()
    start = resident_bytes()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak restarts from here
    except OSError:
        start = peak_bytes()
    call()
    return peak_bytes() - start


def peak_of_tensors(call: Call) -> int:
    """The most bytes of tensors alive at once that `call` made, as `torch.cuda.max_memory_allocated` has it on a GPU.

    No allocator, no code page and no scratch space of a library is in it, so it is the same in every run.
    """
    call()
    gc.collect()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as seen:
        call()
    with tempfile.NamedTemporaryFile(suffix=".json") as trace:
        seen.export_chrome_trace(trace.name)
        events = json.loads(Path(trace.name).read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    return max(itertools.accumulate(change for _, change in changes), default=0)


def machine() -> dict[str, object]:
    """What a reader needs to know of where the numbers come from."""
    cpu, flags = platform.processor(), []
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
        cpu, flags = info.get("model name", cpu), info.get("flags", "").split()
    except OSError:
        pass
    return {
        "cpu": cpu,
        "extensions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_at_start": os.getloadavg()[0],
    }


def version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit(folder: Path) -> str:
    """The commit of the tree, with a plus where files under src differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if git("status", "--porcelain", "src") else "")
