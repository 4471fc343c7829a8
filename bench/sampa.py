"""SAMPa on two processes beside SAM on one, data-parallel SAM on the same two, and SAM with two threads, in one run.

    python bench/sampa.py [--rounds 15] [--steps 8] [--batch 64 16]

Two gloo processes of one thread each stay alive; in every round each row makes `steps` steps in a new order, processes
that have nothing to do wait. A ratio pairs two rows of one round; the median over rounds is written to
bench/results/sampa.{json,md}. Leave the machine alone: two cores must be free.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from danskin.optim import SAM, Plain, SAMPa

HERE = Path(__file__).parent / "results"
ROWS = {
    "SGD, 1 process": "one gradient a step",
    "SAM, 1 process": "the reference",
    "SAMPa, 2 processes": "both gradients at once",
    "data-parallel SAM, 2 processes": "half a batch each, one shift for all",
    "data-parallel SAM, shifts of their own": "half a batch each, m-sharpness",
    "SAM, 1 process of 2 threads": "the whole batch",
    "SAMPa, 1 process": "both gradients one after the other",
}


def network() -> nn.Module:
    """A CNN with BatchNorm, 28x28 inputs."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


class Row:
    """One way to make steps; `both` says whether the second process has a part in it."""

    def __init__(self, name: str, rank: int) -> None:
        self.name, self.both = name, "2 processes" in name or "of their own" in name
        self.threads = 2 if "2 threads" in name else 1
        self.model: nn.Module = network()
        base = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.half = slice(None)
        if name.startswith("SAMPa"):
            self.opt = SAMPa(base, model=self.model, group=dist.group.WORLD if self.both else None)
        elif name.startswith("data-parallel"):
            outer = DistributedDataParallel(self.model, broadcast_buffers=False)
            self.opt = SAM(base, model=outer, perturbation="local" if "own" in name else "global")
            self.model, self.half = outer, slice(rank, None, 2)
        else:
            self.opt = (Plain if name.startswith("SGD") else SAM)(base)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """One step on a batch."""

        def closure(batch: tuple[torch.Tensor, torch.Tensor] = (x[self.half], y[self.half])) -> torch.Tensor:
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            loss.backward()
            return loss

        if isinstance(self.opt, SAMPa):
            self.opt.step(closure, (x, y))
        else:
            self.opt.step(closure)


def process(rank: int, rounds: int, steps: int, sizes: list[int], port: int, out: str) -> None:
    """What each of the two processes does; the first writes the seconds of every round."""
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found: dict[str, dict[str, list[float]]] = {}
    for size in sizes:
        rows = [Row(name, rank) for name in ROWS]
        taken: dict[str, list[float]] = {row.name: [] for row in rows}
        batches = [
            (torch.randn(size, 1, 28, 28, generator=torch.Generator().manual_seed(k)), torch.arange(size) % 10)
            for k in range(4)
        ]
        for lap in range(rounds + 1):
            for row in random.Random(lap).sample(rows, len(rows)):
                dist.barrier()
                if rank == 0 or row.both:
                    torch.set_num_threads(row.threads)
                    start = time.perf_counter()
                    for k in range(steps):
                        row.step(*batches[k % 4])
                    if lap:  # the first round is to warm up
                        taken[row.name].append((time.perf_counter() - start) / steps)
                    torch.set_num_threads(1)
        found[str(size)] = taken
    if rank == 0:
        Path(out).write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 16])
    words = parser.parse_args()
    seconds, load = HERE / "sampa.tmp", os.getloadavg()
    port = 20_000 + random.SystemRandom().randrange(12_000)
    mp.spawn(process, (words.rounds, words.steps, words.batch, port, str(seconds)), nprocs=2)
    found = json.loads(seconds.read_text())
    seconds.unlink()
    reference = "SAM, 1 process"
    rows = []
    for size, taken in found.items():
        for name, times in taken.items():
            ratios = [a / b for a, b in zip(times, taken[reference], strict=True)]
            rows.append({
                "batch": int(size), "row": name, "ms": 1000 * statistics.median(times), "ms_min": 1000 * min(times),
                "of_sam": statistics.median(ratios), "of_sam_min": min(ratios), "of_sam_max": max(ratios),
            })  # fmt: skip
    parameters = sum(p.numel() for p in network().parameters())
    head = {
        "torch": torch.__version__, "machine": platform.machine(), "cores": os.cpu_count(),
        "load": [load, os.getloadavg()],
        "parameters": parameters, "rounds": words.rounds, "steps": words.steps,
    }  # fmt: skip
    (HERE / "sampa.json").write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")
    lines = [
        "# SAM's two gradients on two processes",
        "",
        f"Written by `bench/sampa.py`: a CNN of {parameters:,} parameters with BatchNorm, 28x28 inputs, torch "
        f"{torch.__version__}, gloo, one thread a process; {words.rounds} rounds of {words.steps} steps, rows in a new "
        f"order in each; load at start and end {load[0]:.1f}, {os.getloadavg()[0]:.1f}. Ratios are paired in rounds: "
        "median (least, most).",
        "",
        "| batch | row | ms a step, median (least) | time / SAM on one process | |",
        "|---:|---|---:|---:|---|",
    ]
    for r in rows:
        ratio = f"{r['of_sam']:.2f} ({r['of_sam_min']:.2f}, {r['of_sam_max']:.2f})"
        lines.append(f"| {r['batch']} | {r['row']} | {r['ms']:.1f} ({r['ms_min']:.1f}) | {ratio} | {ROWS[r['row']]} |")
    (HERE / "sampa.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
