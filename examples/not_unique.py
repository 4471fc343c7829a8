"""Optimised perturbations are typically not unique (LECTURE row C5).

PGD with 100 steps from 15 random starts on each of 64 test digits, against a network trained as usual and one trained
adversarially: l2 distances between the perturbations of one image, and the losses they reach. Writes not_unique.svg
and not_unique.json.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from danskin import PGD, AdversarialTraining, Linf, StandardTraining
from danskin.data import load, to_float
from danskin.losses import cross_entropy
from danskin.metrics.uniqueness import Uniqueness, diameter
from danskin.report.drawing import colors
from danskin.report.verdict_figures import not_unique

BALL, IMAGES, RUNS = Linf(0.2), 64, 15


def train(objective, x, y, steps):
    """A multi-layer perceptron."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for k in range(steps):
        rows = torch.randint(len(x), (128,))
        optimizer.zero_grad()
        objective(model, x[rows], y[rows], seed=k).backward()
        optimizer.step()
    return model.eval()


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    data = load("digits")
    x, y = to_float(data.x_train), data.y_train
    images, labels = to_float(data.x_test)[:IMAGES], data.y_test[:IMAGES]
    inner = PGD(BALL, steps=7, step="radius/4", keep="last")
    attack = PGD(BALL, steps=100, step="radius/10", keep="value")
    drawn, told = {}, {}
    for name, objective in (("adversarial", AdversarialTraining(inner)), ("standard", StandardTraining())):
        model = train(objective, x, y, 300)
        runs = [attack(model, images, labels, seed=r) for r in range(RUNS)]
        with torch.no_grad():
            clean = cross_entropy(model(images), labels)
        found = Uniqueness.of(torch.stack([r.delta for r in runs]), torch.stack([r.loss for r in runs]), clean)
        drawn[name] = {k: getattr(found, k).numpy() for k in ("distances", "losses", "clean")}
        told[name] = {
            "median_distance": float(found.distances.median()),
            "pairs_within_0.001": found.coinciding(1e-3),
            "mean_loss": float(found.losses.mean()),
            "mean_clean_loss": float(clean.mean()),
            "mean_spread_within_an_image": float(found.spread.mean()),
            "relative_std_within_an_image": float((found.losses.std(0) / found.losses.mean(0)).mean()),
        }
        print(name, {k: round(v, 4) for k, v in told[name].items()})
    across = diameter(BALL, 64)
    print(f"diameter of the ball {across:.3g}")
    (folder / "not_unique.svg").write_text(not_unique(drawn, across, colors(drawn)), encoding="utf-8")
    result = {"ball": str(BALL), "images": IMAGES, "runs": RUNS, "diameter": across, "models": told}
    (folder / "not_unique.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
