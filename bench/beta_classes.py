"""BETA training with fewer wrong classes, and with a shared first step: what it saves and what it costs in accuracy.

    python bench/beta_classes.py --data DATA         # results/beta_classes.json and .md

The network, data and optimiser of `danskin reproduce C8 --scale small`, 8 epochs (its best one is about the fifth).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from measure import machine

from danskin.attacks import BETA
from danskin.attacks.outcomes import outcomes
from danskin.data import load
from danskin.minmax import Linf
from danskin.models import build
from danskin.training import AdamW, BETATraining, Constant, OverfittingWatch, Trainer

BALL = Linf("8/255")
VARIANTS = {
    "all 9 classes": {},
    "all 9, first step shared": {"shared_first": True},
    "3 leading classes": {"classes": 3},
    "1 leading class": {"classes": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load("cifar10", args.data).limit(1400, 1000)
    rows = {}
    for name, settings in VARIANTS.items():
        runs = []
        for seed in range(args.seeds):
            rest, x_val, y_val = data.split(400, seed)
            torch.manual_seed(seed)
            model = build(
                "small_cnn", input_shape=(3, 32, 32), classes=10, width=16, normalize="cifar10", activation="gelu"
            )
            watch = OverfittingWatch(every=0, examples=1, steps=1)
            trainer = Trainer(args.epochs, 50, AdamW(0.003), Constant(), watch=watch, log_every=1000)
            objective = BETATraining(BETA(BALL, steps=10, step="radius/4", keep="value", **settings))
            start = time.process_time()
            trainer.fit(
                trainer.start(model), objective, (rest.x_train, rest.y_train), (x_val[:50], y_val[:50]), seed=seed
            )
            seconds = (time.process_time() - start) / args.epochs
            attack = BETA(BALL, steps=10, step="radius/4", stop=True)
            judged = {
                key: float(outcomes(model, data.x_test, data.y_test, a, prepare=_float).correct.float().mean())
                for key, a in (("clean", None), ("beta10", attack))
            }
            runs.append({"seed": seed, "seconds": seconds, **judged})
            print(name, runs[-1], flush=True)
        rows[name] = runs
    report = {"machine": machine(), "epochs": args.epochs, "rows": rows}
    (args.out / "beta_classes.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "beta_classes.md").write_text(markdown(report))


def _float(x: torch.Tensor) -> torch.Tensor:
    return x.float() / 255


def markdown(report: dict) -> str:
    rows = report["rows"]
    whole = statistics.fmean(r["seconds"] for r in next(iter(rows.values())))
    lines = [
        "# BETA training: fewer classes, a shared first step", "",
        f"BETA-AT 10, small CNN, 1,000 CIFAR-10 images, 8/255, {report['epochs']} epochs, 1,000 test images, "
        f"{len(next(iter(rows.values())))} seeds (each shown), CPU seconds.", "",
        "| inner attack | seconds per epoch | of all classes | clean | under BETA-10 |", "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, runs in rows.items():
        seconds = statistics.fmean(r["seconds"] for r in runs)
        shares = [" / ".join(f"{100 * r[key]:.1f}" for r in runs) for key in ("clean", "beta10")]
        lines.append(f"| {name} | {seconds:.2f} | {seconds / whole:.2f} | {shares[0]} | {shares[1]} |")
    return "\n".join([*lines, "", ", ".join(f"{k}: {v}" for k, v in report["machine"].items()), ""])


if __name__ == "__main__":
    main()
