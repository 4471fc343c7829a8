"""Peak memory of attacks and objectives that try every wrong class, with 10, 100 and 1,000 classes.

    python bench/many_classes.py

Two images of 3 x 64 x 64 and a small network; tensors alive at once, so the numbers are the same in every run. The
smooth variant of BETA and `per_class` hand out a point for every class: that part grows with the classes by nature.
Writes results/many_classes.json and .md.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from measure import machine, peak_of_tensors
from torch import nn

from danskin.attacks import APGD, BETA, FAB, FABT, DeepFool, MultiTargeted
from danskin.metrics.saliency import linearized_robustness
from danskin.minmax import L2, Linf
from danskin.training import AdversarialTraining, BETATraining

OUT = Path(__file__).resolve().parent / "results"
CLASSES = (10, 100, 1000)
BALL = Linf("4/255")


def network(classes: int) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GELU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, classes)).eval()


def calls(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, object]:
    attacks = {
        "APGD on cross-entropy": APGD(BALL, steps=3),
        "BETA": BETA(BALL, steps=2),
        "BETA, first step shared": BETA(BALL, steps=2, keep="value", shared_first=True),
        "BETA, width 32": BETA(BALL, steps=2, width=32),
        "MultiTargeted, all classes": MultiTargeted(BALL, steps=3, classes=None),
        "FAB-T, all classes": FABT(BALL, steps=3, classes=None),
        "FAB": FAB(BALL, steps=2),
        "DeepFool, all classes": DeepFool(L2(0.5), steps=2, candidates=None),
    }
    found = {name: (lambda a=a: a(model, x, y)) for name, a in attacks.items()}

    def trained(objective):
        def call():
            objective(model, x, y).backward()
            model.zero_grad()

        return call

    found["AdversarialTraining(BETA)"] = trained(AdversarialTraining(BETA(BALL, steps=2, keep="value")))
    found["BETATraining"] = trained(BETATraining(BETA(BALL, steps=2, keep="value")))
    found["BETATraining, smooth"] = trained(BETATraining(BETA(BALL, steps=2), mu=1.0))
    found["BETATraining, smooth, 10 classes"] = trained(BETATraining(BETA(BALL, steps=2, classes=9), mu=1.0))
    if len(model(x)[0]) <= 100:  # torch's profiler needs many gigabytes for a thousand backward passes
        found["linearized_robustness"] = lambda: linearized_robustness(model, x)
    return found


def main() -> None:
    torch.set_num_threads(1)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    peaks: dict[str, dict[str, float]] = {}
    for classes in CLASSES:
        model = network(classes)
        y = model(x).argmax(1)
        for name, call in calls(model, x, y).items():
            peaks.setdefault(name, {})[str(classes)] = peak_of_tensors(call) / 2**20
            print(classes, name, round(peaks[name][str(classes)], 1), flush=True)
    result = {"machine": machine(), "input": list(x.shape), "mib": peaks}
    (OUT / "many_classes.json").write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        "# Peak memory and the number of classes",
        "",
        "MiB of tensors alive at once; two images of 3 x 64 x 64.",
        "",
    ]
    lines += ["| | " + " | ".join(f"{k:,} classes" for k in CLASSES) + " |", "|---|" + "---:|" * len(CLASSES)]
    lines += [
        f"| {name} | " + " | ".join(f"{row[str(k)]:.1f}" if str(k) in row else "–" for k in CLASSES) + " |"
        for name, row in peaks.items()
    ]
    (OUT / "many_classes.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
