"""Does `fast` leave what `standard` leaves? On networks trained with other seeds, and under other attack seeds.

    python bench/fast.py --data digits --kinds clean --training 0:12 --points 360
    python bench/fast.py --data digits --kinds clean --training 0:1 --attack 1:8 --points 360

Every pair of (training, attack) seeds is one comparison on the same points. Adds to results/fast.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from fleet import DATA, FOLDER, KINDS, network, train
from measure import machine
from torch import nn

from danskin.attacks import SquareClimb
from danskin.data import load, to_float
from danskin.evaluation import evaluate
from danskin.evaluation.fast import fast
from danskin.evaluation.suites import Suite
from danskin.minmax import Linf

OUT = Path(__file__).resolve().parent / "results" / "fast"


def model_of(data: str, kind: str, seed: int) -> nn.Module:
    """A network of the fleet's kind, trained with this seed and kept."""
    FOLDER.mkdir(exist_ok=True)
    path, model = FOLDER / f"{data}_{kind}_{seed}.pt", network(data)
    if not path.is_file():
        torch.save(train(data, kind, seed).state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def compare(data: str, kind: str, training: int, attack: int, points: int) -> dict[str, Any]:
    """Both suites on one network, and `fast` with eight searches in place of hops."""
    test, model = load(data), model_of(data, kind, training)
    x, y = to_float(test.x_test[:points]), test.y_test[:points]
    out: dict[str, Any] = {"data": data, "kind": kind, "training": training, "attack": attack, "points": len(y)}
    left, ball = {}, Linf(DATA[data][0])
    searches: Suite = fast(ball) | {"square-climb": SquareClimb(ball, stop=True)}  # as fast was before it hopped
    suites: dict[str, Suite] = {"standard": "standard", "fast": "fast", "searches": searches}
    for suite, members in suites.items():
        begun = time.process_time()
        found = evaluate(model, (x, y), ball, members, seed=attack, diagnostics=0)
        left[suite] = found.outcomes
        units = (found.cost.forwards + 2 * found.cost.backwards) / len(y)
        out[suite] = {"robust": found.robust.hits, "units": units, "seconds": time.process_time() - begun}
    out["only_standard"] = int((left["fast"] & ~left["standard"]).sum())
    out["only_fast"] = int((left["standard"] & ~left["fast"]).sum())
    return out


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each kind of network, and whether training or the attacks had new seeds."""
    lines = [
        "| networks | comparisons | points each | standard leaves | fast leaves | "
        "broken by standard alone, by fast alone | fast above standard, points of 100 | work of standard | "
        "with eight searches in place of hops: leaves, work |",
        "|---|---:|---:|---|---|---:|---:|---:|---:|",
    ]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        seeds = "other attack seeds" if row["attack"] else "attack seed 0"
        seeds += "" if "searches" in row else ", fast with searches"
        groups.setdefault((f"{row['data']} {row['kind']}, {seeds}", row["points"]), []).append(row)
    for (name, points), found in groups.items():
        more = [100 * (r["fast"]["robust"] - r["standard"]["robust"]) / points for r in found]
        mean = sum(more) / len(more)
        spread = math.sqrt(sum((m - mean) ** 2 for m in more) / max(len(more) - 1, 1) / len(more))
        work = sum(r["fast"]["units"] for r in found) / sum(r["standard"]["units"] for r in found)
        told = [" ".join(str(r[suite]["robust"]) for r in found) for suite in ("standard", "fast")]
        was = "the same"  # older rows are about the suite as it was
        if all("searches" in r for r in found):
            was = " ".join(str(r["searches"]["robust"]) for r in found)
            was += f", {sum(r['searches']['units'] for r in found) / sum(r['standard']['units'] for r in found):.2f}"
        lines.append(
            f"| {name} | {len(found)} | {points} | {told[0]} | {told[1]} | {sum(r['only_standard'] for r in found)}, "
            f"{sum(r['only_fast'] for r in found)} | {mean:+.2f} ± {spread:.2f} | {work:.2f} | {was} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Compare, add and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits"], choices=list(DATA))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--training", default="0:3", help="seeds of training, from:to")
    parser.add_argument("--attack", default="0:1", help="seeds of the attacks, from:to")
    parser.add_argument("--points", type=int, default=360)
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = OUT.with_suffix(".json")
    for data in args.data:
        for kind in args.kinds:
            for training in range(*map(int, args.training.split(":"))):
                for attack in range(*map(int, args.attack.split(":"))):
                    row = compare(data, kind, training, attack, args.points)
                    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
                    key = ("data", "kind", "training", "attack", "points")
                    rows = [r for r in rows if any(r[k] != row[k] for k in key)] + [row]
                    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
                    text = "# What fast and standard leave\n\nA difference is given with its standard error.\n\n"
                    OUT.with_suffix(".md").write_text(f"{text}{table(rows)}\n")
                    print(row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
