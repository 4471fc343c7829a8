"""Adversarial examples are inevitable in high dimension (LECTURE row B8).

Two classes, each uniform on one half of the unit sphere in R^d, and three classifiers: the half-space x1 > 0 that is
exactly right (and that isoperimetry says is the best there is), the quadrants x1 x2 > 0, exactly right for other
classes, and a small network trained on samples of the half-space. For each the share of test points that are
misclassified or have a point of the other label within an angle of eps on the sphere, against the dimension, beside
what isoperimetry promises for every classifier. The attack is PGD in the straight l2 ball of radius sin(eps) on the
model "scale to length 1, then classify": seen from the center, that ball is the cap of angle eps.

Writes inevitable.svg and inevitable.json.
"""

import json
import math
import sys
from pathlib import Path

import torch
from torch import nn

from danskin import L2, PGD
from danskin.metrics import Share
from danskin.metrics.inevitability import sphere_bound
from danskin.report.verdict_figures import against_dimension

EPS, TEST, DIMENSIONS = 0.3, 500, (3, 10, 30, 100, 300, 1000)


class OnSphere(nn.Module):
    """Scale to length 1, then classify."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x / x.norm(dim=1, keepdim=True))


def halves(n, d, generator):
    """Uniform points of the sphere, labelled by the sign of the first coordinate."""
    x = torch.randn(n, d, generator=generator)
    return x / x.norm(dim=1, keepdim=True), (x[:, 0] > 0).long()


def half_space(d):
    """The classifier that is right everywhere."""
    net = nn.Linear(d, 2, bias=False)
    with torch.no_grad():
        net.weight.zero_()[1, 0] = math.sqrt(d)
    return OnSphere(net).eval()


class Quadrants(nn.Module):
    """The classifier that says 1 where x1 x2 > 0."""

    def forward(self, x):
        lead = 10 * x.shape[1] * x[:, 0] * x[:, 1]
        return torch.stack([-lead, lead], 1)


def network(d, generator):
    """Two layers, trained on 300 batches of fresh samples."""
    torch.manual_seed(0)
    model = OnSphere(nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, 2)))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(300):
        x, y = halves(256, d, generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def adversarial(model, x, y):
    """The share of points that are wrong, or can be made wrong within the angle."""
    attack = PGD(L2(math.sin(EPS)), steps=20, loss="margin", box=None, stop=True)
    return Share.of(attack(model, x, y).success | (model(x).argmax(1) != y))


def row(share):
    return {"hits": share.hits, "n": share.n, "value": share.value, "interval": list(share.interval)}


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    generator = torch.Generator().manual_seed(0)
    found = {"half-space": [], "trained network": [], "quadrants": []}
    clean = []
    for d in DIMENSIONS:
        model = network(d, generator)
        x, y = halves(TEST, d, generator)
        clean.append((d, row(Share.of(model(x).argmax(1) == y))))
        for name, judged in (("half-space", half_space(d)), ("trained network", model)):
            found[name].append((d, row(adversarial(judged, x, y))))
        found["quadrants"].append((d, row(adversarial(OnSphere(Quadrants()), x, (x[:, 0] * x[:, 1] > 0).long()))))
        bound = sphere_bound(d, EPS, density=2)
        shares = ", ".join(f"{name} {rows[-1][1]['value']:.3f}" for name, rows in found.items())
        print(f"d = {d:4}: bound {bound:.3f}; measured {shares}; network clean {clean[-1][1]['value']:.3f}")
    grid = [round(10 ** (0.3 + 0.05 * k)) for k in range(55)]
    lines = {
        "isoperimetry, every classifier": [(d, sphere_bound(d, EPS, density=2)) for d in grid],
        "its closed form": [(d, sphere_bound(d, EPS, density=2, form="closed")) for d in grid],
    }
    text = against_dimension(lines, found, f"wrong or adversarial within {EPS} rad")
    (folder / "inevitable.svg").write_text(text, encoding="utf-8")
    result = {"eps": EPS, "density": 2, "test": TEST, "measured": found, "network_clean": clean}
    result["bound"] = [(d, sphere_bound(d, EPS, density=2)) for d in DIMENSIONS]
    (folder / "inevitable.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
