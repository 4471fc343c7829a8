"""Verdicts on networks that others trained, against per-point results of the official AutoAttack.

    python bench/reference_verdicts.py MODELS --data DATA --points 500 [--suites fast standard]

MODELS holds `loader.py` and `autoattack/NAME.npz` (index, robust, robust_after_apgd_ce, ..., eps), and perhaps
`certified/NAME.npz` (index, certified). Writes bench/results/reference_verdicts.json as it goes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danskin import L2, Linf, evaluate
from danskin.data import load

SETS = {"mnist": "mnist", "fashion": "fashion_mnist", "cifar": "cifar10"}
OUT = Path(__file__).resolve().parent / "results" / "reference_verdicts.json"


def compare(models: Path, data: Path, name: str, points: int, suite: str) -> dict[str, Any]:
    """One suite on one network."""
    from loader import load as load_network  # type: ignore[import-not-found]

    network, _ = load_network(name)
    test = load(SETS[name.split("_")[0]], data)
    with np.load(models / "autoattack" / f"{name}.npz") as file:
        index = torch.from_numpy(file["index"][:points].astype(np.int64))
        theirs = torch.from_numpy(file["robust"][: len(index)])
        stages = {k: int(file[k][: len(index)].sum()) for k in file.files if k.startswith("robust_after")}
        radius = float(file["eps"])
    ball = L2(radius) if "l2" in name else Linf(radius)
    begun = time.perf_counter()
    verdict = evaluate(network, (test.x_test[index], test.y_test[index]), ball, suite, diagnostics=0)
    broken_certified = None
    path = models / "certified" / f"{name}.npz"
    if path.is_file():
        with np.load(path) as file:
            safe = {int(i) for i, c in zip(file["index"], file["certified"], strict=True) if c}
        broken_certified = sum(int(i) in safe and not ok for i, ok in zip(index, verdict.outcomes, strict=True))
    return {
        "network": name,
        "ball": repr(ball),
        "suite": suite,
        "points": len(index),
        "clean": verdict.clean.hits,
        "robust": verdict.robust.hits,
        "reference_robust": int(theirs.sum()),
        "reference_stages": stages,
        "by_attack": {k: v.hits for k, v in verdict.by_attack.items()},
        "robust_only_here": int((verdict.outcomes & ~theirs).sum()),
        "robust_only_there": int((~verdict.outcomes & theirs).sum()),
        "certified_by_others_and_broken": broken_certified,
        "units_per_point": (verdict.cost.forwards + 2 * verdict.cost.backwards) / len(index),
        "seconds": time.perf_counter() - begun,
        "flags": [flag.name for flag in verdict.flags],
    }


def main() -> None:
    """Compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--suites", nargs="+", default=["fast", "standard"])
    options = parser.parse_args()
    sys.path.insert(0, str(options.models))
    torch.set_num_threads(1)
    names = options.names or sorted(p.stem for p in (options.models / "autoattack").glob("*.npz"))
    rows = json.loads(OUT.read_text()) if OUT.is_file() else []
    for suite in options.suites:
        for name in names:
            row = compare(options.models, options.data, name, options.points, suite)
            rows = [r for r in rows if (r["network"], r["suite"]) != (name, suite)] + [row]
            OUT.write_text(json.dumps(sorted(rows, key=lambda r: (r["network"], r["suite"])), indent=1) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
