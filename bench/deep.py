"""What `deep` breaks that `standard` does not, stage by stage, on networks that others trained and on ours.

    python bench/deep.py --models MODELS --data DATA hard --seeds 0:3
    python bench/deep.py --models MODELS --data DATA reference --names fashion_kw_0.1 --points 500
    python bench/deep.py fleet --kinds pgd trades --training 3:5 --points 200

`hard` looks at MODELS/hard/NAME.npz (test_index, label, eps, status; points on which strong gradient attacks fail),
`reference` at the points of MODELS/autoattack/NAME.npz, `fleet` at MNIST networks of bench/fleet.py at 0.3. MODELS
holds `loader.py`. Adds to results/deep.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine
from torch import Tensor, nn

from danskin.data import load, to_float
from danskin.evaluation import evaluate
from danskin.minmax import L2, Linf

OUT = Path(__file__).resolve().parent / "results" / "deep"
SETS = {"mnist": "mnist", "fashion": "fashion_mnist", "cifar": "cifar10"}
Problem = tuple[str, nn.Module, Tensor, Tensor, Linf | L2]


def compare(problem: Problem, seed: int, batch_size: int) -> dict[str, Any]:
    """`standard` and `deep` on the same points under the same seed."""
    name, model, x, y, ball = problem
    out: dict[str, Any] = {"points": name, "ball": repr(ball), "seed": seed, "n": len(y)}
    left = {}
    for suite in ("standard", "deep"):
        begun = time.process_time()
        found = evaluate(model, (x, y), ball, suite, seed=seed, diagnostics=0, batch_size=batch_size)
        left[suite] = found.outcomes
        out[suite] = {
            "robust": found.robust.hits,
            "broken": {stage.name: stage.broken for stage in found.stages},
            "passes": (found.cost.forwards + found.cost.backwards) / len(y),
            "units": (found.cost.forwards + 2 * found.cost.backwards) / len(y),
            "seconds": time.process_time() - begun,
        }
    out["only_standard"] = int((left["deep"] & ~left["standard"]).sum())
    return out


def points(name: str, models: Path, data: Path, index: Tensor) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of others and some test examples."""
    sys.path.insert(0, str(models))
    from loader import load as load_network  # type: ignore[import-not-found]

    test = load(SETS[name.split("_")[0]], data)
    return load_network(name)[0], to_float(test.x_test[index]), test.y_test[index]


def problems(args: argparse.Namespace) -> Iterator[Problem]:
    """What was asked for."""
    if args.what == "fleet":
        from fast import model_of

        test = load("mnist", args.data) if args.data else load("mnist")
        x, y = to_float(test.x_test[: args.points]), test.y_test[: args.points]
        for kind in args.kinds:
            for training in range(*map(int, args.training.split(":"))):
                yield f"mnist {kind} {training}", model_of("mnist", kind, training), x, y, Linf(0.3)
        return
    for name in args.names:
        folder = "hard" if args.what == "hard" else "autoattack"
        with np.load(args.models / folder / f"{name}.npz") as file:
            index = torch.from_numpy(file["test_index" if folder == "hard" else "index"].astype(np.int64))
            radius = float(np.atleast_1d(file["eps"])[0])
            groups = {f"{name}": torch.ones(len(index), dtype=torch.bool)}
            if folder == "hard":
                status = np.asarray(file["status"]).astype(str)
                groups = {f"{name}, {s}": torch.from_numpy(status == s) for s in dict.fromkeys(status)}
        ball = L2(radius) if "l2" in name else Linf(radius)
        for group, chosen in groups.items():
            model, x, y = points(name, args.models, args.data, index[chosen][: args.points])
            yield group, model, x, y, ball


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each comparison."""
    lines = [
        "| points | seed | n | standard leaves | deep leaves | broken by (stages of deep) | "
        "work of standard: passes, with backward as two | seconds |",
        "|---|---:|---:|---:|---:|---|---:|---:|",
    ]
    for row in rows:
        a, b = row["standard"], row["deep"]
        stages = ", ".join(f"{name} {k}" for name, k in b["broken"].items())
        lines.append(
            f"| {row['points']} {row['ball']} | {row['seed']} | {row['n']} | {a['robust']} | {b['robust']} | "
            f"{stages} | "
            f"{b['passes'] / a['passes']:.1f}, {b['units'] / a['units']:.1f} | {a['seconds']:.0f}, {b['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Compare, add and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["hard", "reference", "fleet"])
    parser.add_argument("--models", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--names", nargs="+", default=["mnist_madry_tiny"])
    parser.add_argument("--kinds", nargs="+", default=["pgd", "trades"])
    parser.add_argument("--training", default="3:5", help="seeds of training, from:to")
    parser.add_argument("--seeds", default="0:1", help="seeds of the attacks, from:to")
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=512)
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = OUT.with_suffix(".json")
    for problem in problems(args):
        for seed in range(*map(int, args.seeds.split(":"))):
            row = compare(problem, seed, args.batch_size)
            rows = json.loads(path.read_text())["rows"] if path.is_file() else []
            key = ("points", "ball", "seed", "n")
            rows = [r for r in rows if any(r[k] != row[k] for k in key)] + [row]
            path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
            OUT.with_suffix(".md").write_text(f"# What deep breaks\n\n{table(rows)}\n")
            print(json.dumps(row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
