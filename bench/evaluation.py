"""The verdict against AutoAttack from PyPI (pyautoattack, the published budgets): work, time and robust accuracy.

    bench/peers/.venv/bin/python bench/evaluation.py --points 64 --rounds 1 [--models mnist_pgd ...] [--networks DIR]

All contestants judge the same points of the same models in one process, in a new order each round. Work is counted
per point by a module around the model, in units of one forward pass; a backward pass counts as two. Models: the fleet
of fleet.py, and networks of others with --networks (a folder with loader.py). Writes results/evaluation.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from fleet import DATA, KINDS, fleet
from measure import Counter, commit, machine, version
from torch import Tensor, nn

from danskin.data import load, to_float
from danskin.evaluation import evaluate, quicker
from danskin.minmax import L2, Linf

HERE = Path(__file__).resolve().parent
NETWORKS = {"mnist": "mnist", "fashion": "fashion_mnist", "cifar": "cifar10"}
BATCH = 250
Ask = Callable[[nn.Module, Tensor, Tensor, Any, int], tuple[Tensor, float, int]]  # -> robust (n,), units, calls


def ours(suite: str, **settings: Any) -> Ask:
    """danskin.evaluate with a suite, without diagnostics, as its counterpart has none when it is timed."""

    def ask(model: nn.Module, x: Tensor, y: Tensor, ball: Any, seed: int) -> tuple[Tensor, float, int]:
        options = dict(settings)
        if options.pop("quick", False):
            options["quick"] = quicker(model, channels_last=True)
        verdict = evaluate(model, (x, y), ball, suite, seed=seed, batch_size=BATCH, diagnostics=0, **options)
        cost = verdict.cost  # a test compares it with a counting model; a copy of the model would not be counted
        return verdict.outcomes, cost.forwards + 2 * cost.backwards, cost.calls

    return ask


def reference(model: nn.Module, x: Tensor, y: Tensor, ball: Any, seed: int) -> tuple[Tensor, float, int]:
    """pyautoattack, version standard; its answers re-read by one pass of the model."""
    from pyautoattack import AutoAttack  # type: ignore[import-not-found]

    counter = Counter(model).eval()
    attack = AutoAttack(counter, eps=float(ball.value), norm="Linf" if isinstance(ball, Linf) else "L2", seed=seed)
    found = attack.run_standard_evaluation(x, y, batch_size=BATCH)
    points = found if isinstance(found, Tensor) else found[0]
    with torch.no_grad():
        robust = model(points).argmax(1) == y
    return robust, counter.forwards + 2 * counter.backwards, counter.calls


CONTESTANTS: dict[str, Ask] = {
    "pyautoattack": reference,
    "standard": ours("standard"),
    "standard, bf16": ours("standard", precision="bfloat16"),
    "standard, bf16, channels_last": ours("standard", precision="bfloat16", quick=True),
    "fast": ours("fast"),
}


def problems(args: argparse.Namespace) -> dict[str, tuple[nn.Module, Tensor, Tensor, Any]]:
    """Name -> (model, x, y, ball)."""
    out = {}
    own = [n for n in args.models if n.split("_")[0] in DATA and n.split("_")[-1] in KINDS]
    for name, (model, data, radius) in fleet(own).items():
        test = load(data)
        out[name] = (model, to_float(test.x_test[: args.points]), test.y_test[: args.points], Linf(radius))
    others = [n for n in args.models if n not in own]
    if others:
        sys.path.insert(0, str(args.networks))
        from loader import load as load_network  # type: ignore[import-not-found]

        for name in others:
            network, facts = load_network(name)
            test = load(NETWORKS[name.split("_")[0]])
            radius = float(facts.get("eps", 8 / 255))
            ball = L2(radius) if "l2" in name else Linf(radius)
            out[name] = (network, to_float(test.x_test[: args.points]), test.y_test[: args.points], ball)
    return out


def measure(args: argparse.Namespace, name: str, problem: tuple[nn.Module, Tensor, Tensor, Any]) -> dict[str, Any]:
    """Every contestant on one model."""
    model, x, y, ball = problem
    rows: dict[str, dict[str, Any]] = {c: {"seconds": []} for c in args.contestants}
    for k in range(args.rounds):
        order = list(args.contestants)[:: 1 - 2 * (k % 2)]
        for contestant in order:
            begun = time.perf_counter()
            robust, units, calls = CONTESTANTS[contestant](model, x, y, ball, k)
            seconds, row = time.perf_counter() - begun, rows[contestant]
            row["seconds"].append(seconds)
            row.setdefault("robust", []).append(int(robust.sum()))
            row.setdefault("units", []).append(units / len(x))
            row.setdefault("calls", []).append(calls)
            print(f"{name}: {contestant}: {seconds:.1f} s, robust {int(robust.sum())}", file=sys.stderr, flush=True)
    with torch.no_grad():
        clean = int((model(x).argmax(1) == y).sum())
    return {"ball": repr(ball), "points": len(x), "clean": clean, "rows": rows}


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| model | contestant | robust | units / point | of the reference | seconds | speed-up | calls |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in results.items():
        base = found["rows"].get("pyautoattack")
        for contestant, row in found["rows"].items():
            units, seconds = statistics.mean(row["units"]), statistics.median(row["seconds"])
            share = speed = "–"
            if base:
                share = f"{units / statistics.mean(base['units']):.3f}"
                pairs = [b / s for b, s in zip(base["seconds"], row["seconds"], strict=True)]
                speed = f"{statistics.median(pairs):.2f}"
            robust = "/".join(str(r) for r in row["robust"])
            lines.append(
                f"| {name} {found['ball']} (clean {found['clean']}/{found['points']}) | {contestant} | {robust} | "
                f"{units:.0f} | {share} | {seconds:.1f} | {speed} | {statistics.mean(row['calls']):.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=[f"{d}_{k}" for d in DATA for k in KINDS])
    parser.add_argument("--networks", type=Path, help="folder with loader.py, for models that are not of the fleet")
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "evaluation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results: dict[str, Any] = {}
    facts: dict[str, Any] = {"date": str(date.today()), "commit": commit(HERE), "machine": machine()}
    facts["pyautoattack"] = version("pyautoattack")
    for name, problem in problems(args).items():
        results[name] = measure(args, name, problem)
        args.out.with_suffix(".json").write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")
        text = f"# The verdict: work and time against AutoAttack\n\n{(__doc__ or '').splitlines()[0]}\n\n"
        told = ", ".join(f"{k}: {v}" for k, v in facts["machine"].items())
        told = f"{told}; {facts['date']}, {facts['commit']}."
        args.out.with_suffix(".md").write_text(f"{text}{table(results)}\n\n{told}\n")


if __name__ == "__main__":
    main()
