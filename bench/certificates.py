"""Certificates on networks that others trained, against their published bounds, per point.

    python bench/certificates.py MODELS --data DATA

MODELS (default: $DANSKIN_MODELS) holds `loader.py` with `load(name) -> (network, facts)`, `certified/NAME.npz` with
`index`, `label`, `eps`, `margin_fastlin_unclipped` and `margin_best_clipped` (lower bounds of the worst margin), and
`pgd/NAME.npz`, `autoattack/NAME.npz` with the points that attacks broke. Writes bench/results/certificates.json
and .md; networks that are not named keep their last results.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import commit, machine
from torch import Tensor, nn

from danskin.attacks import PGD
from danskin.data import load, to_float
from danskin.evaluation.certify import certify
from danskin.lipschitz import lipschitz_lower, product_bound
from danskin.minmax import L2, Linf

HERE = Path(__file__).resolve().parent
SETS = {"mnist": "mnist", "fashion": "fashion_mnist", "cifar": "cifar10"}
LINF = ("mnist_kw_0.1", "mnist_wk17a_0.1", "fashion_kw_0.1", "cifar_oval_base", "cifar_kw_small_8px")
L2_NETWORK, L2_RADIUS = "cifar_kw_small_l2_36px", "36/255"
RESIDUAL, RESIDUAL_RADIUS, PUBLISHED = "cifar_resnet4b", "1/255", 23.28
METHODS = {"linf": ("ibp", "crown-ibp", "crown", "auto"), "l2": ("lipschitz", "crown", "auto")}


def broken(models: Path, name: str, index: Tensor) -> Tensor:
    """(n,) bool: points of `index` that PGD or AutoAttack broke."""
    found = torch.zeros(len(index), dtype=torch.bool)
    for kind in ("pgd", "autoattack"):
        file = models / kind / f"{name}.npz"
        if file.exists():
            with np.load(file) as z:
                fell = ~z["robust"] if kind == "autoattack" else z["pgd_margin"] <= 0
                found |= torch.from_numpy(np.isin(index.numpy(), z["index"][fell]))
    return found


def run(models: Path, network: nn.Module, name: str, x: Tensor, y: Tensor, index: Tensor, ball: Any) -> dict[str, Any]:
    """All methods on the same points, and what attacks and references say of them."""
    fell, rows, margins = broken(models, name, index), {}, {}
    for method in METHODS["linf" if isinstance(ball, Linf) else "l2"]:
        wall, cpu = time.perf_counter(), time.process_time()
        found = certify(network, (x, y), ball, method=method)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        margins[method] = found
        rows[method] = {
            "method": found.method,
            "certified": int(found.certified.sum()),
            "error_percent": 100 * (1 - found.share.value),
            "broken_and_certified": int((fell & found.certified).sum()),
            "seconds_per_example": wall / len(x),
            "cpu_seconds_per_example": cpu / len(x),
            "mean_margin_of_correct": float(found.margin[found.correct].mean()),
        }
        print(name, method, rows[method], flush=True)
    correct = margins["auto"].correct
    return {
        "radius": str(ball.radius),
        "points": len(x),
        "clean_errors": int((~correct).sum()),
        "broken_by_attacks": int(fell.sum()),
        "rows": rows,
        "margins": {k: v.margin for k, v in margins.items()},
        "correct": correct,
    }


def against(result: dict[str, Any], models: Path, name: str, points: int) -> None:
    """Add the comparison with the reference margins, on points classified correctly."""
    with np.load(models / "certified" / f"{name}.npz") as z:
        reference = {k: torch.from_numpy(z[f"margin_{k}"][:points]) for k in ("fastlin_unclipped", "best_clipped")}
    correct = result["correct"]
    result["reference"] = {k: {"certified": int((correct & (v > 0)).sum())} for k, v in reference.items()}
    for key, theirs in reference.items():
        result["reference"][key]["error_percent"] = 100 * (1 - result["reference"][key]["certified"] / len(theirs))
        for method, ours in result["margins"].items():
            gap = (ours - theirs)[correct]
            result["rows"][method][f"minus_{key}"] = {
                "least": float(gap.min()),
                "median": float(gap.median()),
                "share_above": float((gap > 0).double().mean()),
                "lost": int((correct & (theirs > 0) & (ours <= 0)).sum()),
            }


def climb(models: Path, data: Path | None, points: int) -> dict[str, Any]:
    """What "auto" proves on a residual network, in a spread sample of the test set, of what PGD leaves."""
    from loader import load as load_network  # type: ignore[import-not-found]

    network, _ = load_network(RESIDUAL)
    test = load("cifar10", data)
    index = torch.arange(points) * (len(test.y_test) // points)
    x, y = to_float(test.x_test[index]), test.y_test[index].long()
    ball = Linf(RESIDUAL_RADIUS)
    fell = PGD(ball, steps=20, step="radius/4", restarts=2, stop=True)(network, x, y).success
    wall, cpu = time.perf_counter(), time.process_time()
    found = certify(network, (x, y), ball, worth=~fell, progress=lambda event: print(event, flush=True))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    low, high = found.share.interval
    return {
        "network": RESIDUAL, "radius": RESIDUAL_RADIUS, "points": points, "published_percent": PUBLISHED,
        "clean": int(found.correct.sum()), "stand_under_pgd": int((found.correct & ~fell).sum()),
        "certified": int(found.certified.sum()), "certified_percent": 100 * found.share.value,
        "interval_percent": [100 * low, 100 * high], "broken_and_certified": int((fell & found.certified).sum()),
        "seconds": wall, "cpu_seconds": cpu, "certified_per_cpu_second": int(found.certified.sum()) / cpu,
        "budget": found.budget, "steps": [asdict(step) for step in found.steps],
    }  # fmt: skip


def climb_table(r: dict[str, Any]) -> str:
    """Markdown."""
    low, high = r["interval_percent"]
    head = (
        f"## What `auto` proves on a residual network\n\n{r['network']}, linf {r['radius']}, {r['points']} points "
        f"spread over the test set: {r['clean']} right, {r['stand_under_pgd']} stand under PGD (20 steps, 2 starts), "
        f"**{r['certified']} certified: {r['certified_percent']:.1f} %** (95 % interval {low:.1f}-{high:.1f}); "
        f"published: {r['published_percent']} % of 10,000 (CROWN). "
        f"{r['broken_and_certified']} broken and certified at once.\n"
        f"{r['cpu_seconds']:.0f} s of CPU ({r['seconds']:.0f} s of wall): "
        f"{r['certified_per_cpu_second']:.3f} certified a second. "
        f"Budget: {r['budget']:.2g} multiplications an example.\n\n"
        "| method | tried | proved | over the budget | broken, not tried | s |\n|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(
        f"| {s['method']} | {s['tried']} | {s['proved']} | {s['over']} | {s['broken']} | {s['seconds']:.1f} |"
        for s in r["steps"]
    )


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| network, ball | points | clean error % | method | certified error % | Fast-Lin / best reference % | "
        "lost of Fast-Lin's | margins above Fast-Lin / best | s per example (CPU s) | broken yet certified |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        reference = r.get("reference")
        theirs = (
            " / ".join(f"{reference[k]['error_percent']:.2f}" for k in ("fastlin_unclipped", "best_clipped"))
            if reference
            else "–"
        )
        for method, row in r["rows"].items():
            lost = row["minus_fastlin_unclipped"]["lost"] if reference else "–"
            keys = ("minus_fastlin_unclipped", "minus_best_clipped")
            above = " / ".join(f"{100 * row[k]['share_above']:.1f} %" for k in keys) if reference else "–"
            label = method if row["method"] == method else f"{method} ({row['method']})"
            lines.append(
                f"| {name}, {r['ball']} {r['radius']} | {r['points']} | {100 * r['clean_errors'] / r['points']:.2f} | "
                f"{label} | {row['error_percent']:.2f} | {theirs} | {lost} | {above} | "
                f"{row['seconds_per_example']:.3f} ({row['cpu_seconds_per_example']:.3f}) | "
                f"{row['broken_and_certified']} of {r['broken_by_attacks']} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?", default=os.environ.get("DANSKIN_MODELS"))
    parser.add_argument("--data", type=Path, default=os.environ.get("DANSKIN_DATA"))
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument(
        "--residual", type=int, default=200, help="points of the residual network; 0 keeps its last result"
    )
    parser.add_argument("--names", nargs="*", default=[*LINF, L2_NETWORK])
    options = parser.parse_args()
    if options.models is None:
        parser.error("MODELS: expected a folder of networks; give it, or set DANSKIN_MODELS")
    sys.path.insert(0, str(options.models))
    from loader import load as load_network  # type: ignore[import-not-found]

    folder = HERE / "results"
    file = folder / "certificates.json"
    last = json.loads(file.read_text()) if file.exists() else {}  # of the networks not named now
    results, residual = last.get("networks", {}), last.get("residual")
    facts = machine() | {"commit": commit(HERE.parent)}
    for name in options.names:
        network, meta = load_network(name)
        test = load(SETS[name.split("_")[0]], options.data)
        is_l2 = name == L2_NETWORK
        index = torch.arange(300 if is_l2 else options.points)
        if not is_l2:
            with np.load(options.models / "certified" / f"{name}.npz") as z:
                index = torch.from_numpy(z["index"][: options.points].astype(np.int64))
        x, y = to_float(test.x_test[index]), test.y_test[index].long()
        ball = L2(L2_RADIUS) if is_l2 else Linf(float(meta["eps"]))
        result = run(options.models, network, name, x, y, index, ball)
        if not is_l2:
            against(result, options.models, name, options.points)
        else:
            upper, lower = product_bound(network, x.shape[1:]), lipschitz_lower(network, x)
            result["lipschitz_constant"] = {"upper": upper.value, "lower": lower.value}
        del result["margins"], result["correct"]
        results[name] = {"ball": "l2" if is_l2 else "linf", **result}
    results = {name: results[name] for name in (*LINF, L2_NETWORK) if name in results}
    if options.residual:
        residual = climb(options.models, options.data, options.residual) | {"machine": facts}
    if options.names or "machine" not in last:
        last["machine"] = facts
    made = {"machine": last["machine"], "networks": results, "residual": residual}
    file.write_text(json.dumps(made, indent=1) + "\n")
    text = (
        "# Certificates on networks that others trained\n\nMade by `bench/certificates.py`; numbers and machine in "
        "`certificates.json`. Lower bounds of robust accuracy, written as certified error (upper bound of robust\n"
        "error). Reference margins come with the networks; differences are over correctly classified points.\n"
        "`auto` stops at the first method that proves a point: its margins are as good as needed, no better.\n\n"
    )
    (folder / "certificates.md").write_text(
        text + table(results) + (f"\n\n{climb_table(residual)}" if residual else "") + "\n"
    )
    print(table(results))


if __name__ == "__main__":
    main()
