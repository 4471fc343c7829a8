"""What sharpness-aware steps cost, over the gradients that they cannot avoid; and whose paths are the same.

    python bench/optim.py                                 # results/optim.json and results/optim.md
    python bench/optim.py --models small_cnn --rounds 15  # one model

A row is a few steps of one optimiser around SGD with momentum, on one batch. Its time is divided by its number of
gradients times the time of a bare gradient: forward pass, loss, backward pass, zeroed gradients, no optimiser at all;
ESAM's forward pass without gradient counts as a bare one of those. What is above 1 is thus everything that is no pass,
the step of SGD included; "without SGD" takes what torch's own SGD.step costs off again ("SGD of torch alone" less
bare). Rows of one round are run interleaved, in a new order each round; ratios pair two runs of one round. "Outside" is
another clock for the same thing, which other work on the machine disturbs less: CPU time of a call outside of its
closures, over that inside.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measure import commit, machine, paired_ratios, peak_of_tensors, time_interleaved, version
from torch import Tensor, nn
from torch.nn import functional as F

from danskin import AESAM, ASAM, ESAM, GSAM, SAM, FriendlySAM, LookSAM
from danskin.models import build
from danskin.optim import Plain

# glibc gives freed memory back to the system and faults it in again at the next pass: keep it, for all rows alike.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
BARE, FORWARD, TORCH = "bare", "bare forward", "SGD of torch alone"
PEER = "pytorch_optimizer"
try:
    import pytorch_optimizer as peer
except ImportError:
    peer = None


class Workload(NamedTuple):
    """A model, its batch, and how many gradients the bare row takes."""

    name: str
    shape: tuple[int, int, int]
    batch: int
    bare: int


WORKLOADS = {
    "small_cnn": Workload("small_cnn", (1, 28, 28), 256, 10),
    "preact_resnet18": Workload("preact_resnet18", (3, 32, 32), 32, 2),
}


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)


KEPT = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}


class Row(NamedTuple):
    """An optimiser: model -> one step with a closure, and steps in a call (more where they differ).

    `examples`: the step takes ``forward`` and labels instead.
    """

    make: Callable[[nn.Module], Callable[..., object]]
    steps: int = 1
    peer: bool = False
    examples: bool = False


def ours(make: Callable[..., torch.optim.Optimizer], **options: Any) -> Callable[[nn.Module], Any]:
    return lambda model: make(sgd(model), **options).step


def torch_alone(opt: torch.optim.Optimizer) -> Any:
    """No wrapper: zeroed gradients, the closure, step()."""

    def step(closure: Callable[[], Tensor]) -> None:
        opt.zero_grad()
        closure()
        opt.step()

    return step


def theirs(name: str, **options: Any) -> Callable[[nn.Module], Any]:
    """Gradients first, then step(closure): as their documentation has it."""

    def make(model: nn.Module) -> Any:
        opt = getattr(peer, name)(model.parameters(), torch.optim.SGD, **(KEPT | options))

        def step(closure: Callable[[], Tensor]) -> None:
            opt.zero_grad()
            closure()
            opt.step(closure)

        return step

    return make


ROWS: dict[str, Row] = {
    TORCH: Row(lambda model: torch_alone(sgd(model)), 2),
    "SGD alone": Row(ours(Plain), 2),
    "SAM": Row(ours(SAM)),
    "ASAM": Row(ours(ASAM)),
    "GSAM": Row(ours(GSAM)),
    "FriendlySAM": Row(ours(FriendlySAM)),
    "LookSAM, k = 5": Row(ours(LookSAM, k=5), 5),
    "AE-SAM": Row(ours(AESAM, steps=200), 5),
    "ESAM, gamma = 0.5": Row(ours(ESAM), examples=True),
    f"{PEER} SAM": Row(theirs("SAM"), peer=True),
    f"{PEER} SAM, foreach": Row(theirs("SAM", foreach=True), peer=True),
    f"{PEER} FriendlySAM, foreach": Row(theirs("FriendlySAM", foreach=True), peer=True),
    f"{PEER} LookSAM, k = 5, foreach": Row(theirs("LookSAM", k=5, foreach=True), 5, peer=True),
}


class Ready:
    """A model of its own for a row, its closure, and the gradients that were taken."""

    def __init__(self, workload: Workload) -> None:
        torch.manual_seed(0)
        self.model = build(workload.name, input_shape=workload.shape, classes=10).train()
        self.x = torch.rand(workload.batch, *workload.shape)
        self.y = torch.randint(0, 10, (workload.batch,))
        self.taken, self.forwards, self.inside = 0.0, 0, 0.0

    def closure(self) -> Tensor:
        begun = time.process_time()
        self.taken += 1
        loss = F.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        self.inside += time.process_time() - begun
        return loss

    def forward(self, rows: Tensor | None) -> Tensor:
        """What ESAM asks; its backward passes are made by itself and count as outside."""
        begun = time.process_time()
        x = self.x if rows is None else self.x[rows]
        if torch.is_grad_enabled():
            self.taken += len(x) / len(self.x)
        else:
            self.forwards += 1
        logits = self.model(x)
        self.inside += time.process_time() - begun
        return logits

    def bare(self) -> None:
        self.model.zero_grad(set_to_none=True)
        self.closure()

    @torch.no_grad()
    def bare_forward(self) -> None:
        self.forward(None)


def measure(workload: Workload, rounds: int, seed: int, only: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds, gradients and ratios of every row."""
    taken: dict[str, list[tuple[float, int]]] = {}
    outside: dict[str, list[float]] = {}
    calls: dict[str, Callable[[], object]] = {}
    steps: dict[str, int] = {}

    def add(label: str, ready: Ready, once: Callable[[], object], repeats: int) -> None:
        def call() -> None:
            before, inside, begun = (ready.taken, ready.forwards), ready.inside, time.process_time()
            for _ in range(repeats):
                once()
            inside = ready.inside - inside
            outside.setdefault(label, []).append((time.process_time() - begun - inside) / inside)
            taken.setdefault(label, []).append((ready.taken - before[0], ready.forwards - before[1]))

        calls[label], steps[label] = call, repeats

    for label in (BARE, "bare, again"):
        ready = Ready(workload)
        add(label, ready, ready.bare, workload.bare)
    ready = Ready(workload)
    add(FORWARD, ready, ready.bare_forward, workload.bare)
    for label, row in ROWS.items():
        if (row.peer and peer is None) or (only not in label and label != TORCH):
            continue
        ready = Ready(workload)
        step = row.make(ready.model)
        full = row.steps if row.steps == 5 else max(1, workload.bare * row.steps // 2)
        what = (ready.forward, ready.y) if row.examples else (ready.closure,)
        add(label, ready, lambda step=step, what=what: step(*what), full)
    seconds = time_interleaved(calls, rounds, 1, seed, lambda _: None, say)

    def ratios(label: str, clock: str, sgd: bool) -> dict[str, Any]:
        """Time over that of as many bare passes, round by round."""
        over, under = [], []
        for i, (gradients, forwards) in enumerate(taken[label][-rounds:]):
            bare = seconds[BARE][clock][i] / workload.bare
            step = 0.0 if sgd else seconds[TORCH][clock][i] / steps[TORCH] - bare
            over.append(seconds[label][clock][i] - step * steps[label])
            under.append(gradients * bare + forwards * seconds[FORWARD][clock][i] / workload.bare)
        return paired_ratios(over, under)

    return {
        label: {
            "gradients": [gradients for gradients, _ in taken[label][-rounds:]],
            "forwards": taken[label][-1][1],
            "seconds": clocks,
            "outside": None if label in ROWS and ROWS[label].examples else outside[label][-rounds:],
            "ratio": {clock: ratios(label, clock, sgd=True) for clock in clocks},
            "without SGD": ratios(label, "cpu", sgd=False) if label in ROWS else None,
        }
        for label, clocks in seconds.items()
        if label != FORWARD
    }


def memory(workload: Workload) -> dict[str, Any]:
    """Peak of all tensors of a few first steps, state included, above that of SGD: in copies of the weights."""
    small = workload._replace(batch=min(workload.batch, 32))
    peaks, size = {}, 0
    for label, row in ROWS.items():
        if row.peer and peer is None:
            continue
        ready = Ready(small)
        size = sum(p.numel() * p.element_size() for p in ready.model.parameters())

        def call(row: Row = row, ready: Ready = ready) -> None:
            step = row.make(ready.model)
            for _ in range(2 * row.steps):
                step(*((ready.forward, ready.y) if row.examples else (ready.closure,)))
            ready.model.zero_grad()

        peaks[label] = peak_of_tensors(call)
    base = peaks["SGD alone"]
    return {label: {"bytes": peak, "copies": (peak - base) / size} for label, peak in peaks.items()}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)).double()


class Radius:
    """Their GSAM asks somebody for its radius."""

    def step(self) -> float:
        return 0.1


def paths(steps: int = 50) -> dict[str, float]:
    """The largest difference of weights after some steps in float64, ours against theirs."""
    pairs = {
        "SAM": (lambda b: SAM(b, 0.1), lambda m: theirs("SAM", rho=0.1, lr=0.1)(m)),
        "ASAM with eta = 0": (
            lambda b: ASAM(b, 0.5, eta=0.0),
            lambda m: theirs("SAM", rho=0.5, adaptive=True, lr=0.1)(m),
        ),
        "FriendlySAM": (lambda b: FriendlySAM(b, 0.1), lambda m: theirs("FriendlySAM", rho=0.1, lr=0.1)(m)),
        "GSAM": (lambda b: GSAM(b, 0.1), their_gsam),
        "LookSAM by tensor": (
            lambda b: LookSAM(b, 0.1, k=5, per_tensor=True),
            lambda m: theirs("LookSAM", rho=0.1, k=5, lr=0.1)(m),
        ),
    }
    found = {}
    for label, (mine, other) in pairs.items():
        ends = []
        for make in (
            lambda m, mine=mine: mine(torch.optim.SGD(m.parameters(), **(KEPT | {"lr": 0.1}))).step,
            other,
        ):
            model = network()
            step = make(model)
            for k in range(steps):
                generator = torch.Generator().manual_seed(k)
                x = torch.randn(32, 8, dtype=torch.float64, generator=generator)
                y = x[:, :4].argmax(1)

                def closure(model: nn.Module = model, x: Tensor = x, y: Tensor = y) -> Tensor:
                    model.zero_grad()
                    loss = F.cross_entropy(model(x), y)
                    loss.backward()
                    return loss

                step(closure)
            ends.append(copy.deepcopy([p.detach() for p in model.parameters()]))
        found[label] = max(float((a - b).abs().max()) for a, b in zip(*ends, strict=True))
    return found


def their_gsam(model: nn.Module) -> Any:
    base = torch.optim.SGD(model.parameters(), **(KEPT | {"lr": 0.1}))
    opt = peer.GSAM(model.parameters(), base, model, Radius(), alpha=0.4)

    def step(closure: Callable[[], Tensor]) -> None:
        def both() -> tuple[None, Tensor]:
            with torch.enable_grad():
                return None, closure().detach()

        opt.step(both)

    return step


def spread(ratio: dict[str, Any]) -> str:
    return f"{ratio['median']:.3f} ({ratio['min']:.2f}-{ratio['max']:.2f})"


def page(report: dict[str, Any]) -> str:
    """results/optim.md."""
    info = report["machine"]
    lines = [
        "# What sharpness-aware steps cost",
        "",
        f"{info['cpu']}, {info['cores']} cores, {info['threads']} thread(s), torch {info['torch']}, danskin "
        f"{report['commit']}, {PEER} {report['peer'] or 'not installed'}. Load {report['load'][0]:.1f} at the start "
        f"and {report['load'][1]:.1f} at the end; 1 is the benchmark itself. {report['note']}",
        "",
        "Time of a row over its number of gradients times a bare gradient, median (min-max) over interleaved rounds. "
        "CPU time does not count waiting for others, and is the one to read where the load is above 1; outside is CPU "
        "time of a call outside of its closures over that inside, on which other work tells less.",
    ]
    for name, found in report["times"].items():
        w = WORKLOADS[name]
        rounds = len(found["bare"]["gradients"])
        lines += [
            "",
            f"## {name}, {w.batch} x {'x'.join(map(str, w.shape))}, {rounds} rounds",
            "",
            "| row | gradients a call | CPU time | wall time | CPU without SGD | outside "
            "| peak memory above SGD, in copies of weights |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for label, row in found.items():
            counts = sorted(set(row["gradients"]))
            span = f"{counts[0]:g}" if len(counts) == 1 else f"{counts[0]:g} to {counts[-1]:g}"
            if row["forwards"]:
                span += f" and {row['forwards']} forward"
            held = report["memory"][name].get(label)
            copies = "-" if held is None else f"{held['copies']:.2f}"
            cpu, wall = (spread(row["ratio"][clock]) for clock in ("cpu", "wall"))
            outside = "-" if row["outside"] is None else f"{statistics.median(row['outside']):.3f}"
            own = "-" if row["without SGD"] is None else spread(row["without SGD"])
            lines.append(f"| {label} | {span} | {cpu} | {wall} | {own} | {outside} | {copies} |")
    if report["paths"]:
        lines += [
            "",
            f"## Paths: {PEER} against danskin, 50 steps in float64",
            "",
            "| method | largest difference of a weight |",
            "|---|---:|",
            *(f"| {label} | {gap:.1e} |" for label, gap in report["paths"].items()),
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="small_cnn,preact_resnet18")
    parser.add_argument("--rounds", default="15,7", help="for each model")
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="", help="what a reader should know of the machine")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "optim"))
    words = parser.parse_args()
    if any(name not in os.environ for name in KEEP_MEMORY):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**KEEP_MEMORY, **os.environ})  # read at start only
    torch.set_num_threads(words.threads)
    report: dict[str, Any] = {
        "machine": machine(),
        "commit": commit(Path(__file__).parent.parent),
        "peer": None if peer is None else version(PEER),
        "note": words.note,
        "paths": {} if peer is None else paths(),
        "times": {},
        "memory": {},
    }
    loads = [os.getloadavg()[0]]
    names = words.models.split(",")
    for name, rounds in zip(names, words.rounds.split(","), strict=False):

        def say(text: str, name: str = name) -> None:
            print(f"{name}: {text}, load {os.getloadavg()[0]:.1f}", flush=True)

        report["memory"][name] = memory(WORKLOADS[name])
        report["times"][name] = measure(WORKLOADS[name], int(rounds), words.seed, words.only, say)
    report["load"] = [loads[0], os.getloadavg()[0]]
    out = Path(words.out)
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(page(report), encoding="utf-8")
    print(page(report))


if __name__ == "__main__":
    main()
