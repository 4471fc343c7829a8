"""A small fleet of models to judge: clean, FGSM-, PGD- and TRADES-trained, on MNIST, CIFAR-10 and digits.

python bench/fleet.py            trains what is missing into bench/.fleet (some minutes on one core)

Plain training loops, so that the models do not depend on what is being measured. Weights are not committed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danskin.data import load, to_float
from danskin.models import build

FOLDER = Path(__file__).parent / ".fleet"
DATA = {"mnist": (0.3, 20000, 5), "cifar10": (8 / 255, 20000, 8), "digits": (0.15, None, 40)}
KINDS = ("clean", "fgsm", "pgd", "trades")


def perturb(model: nn.Module, x: Tensor, loss, radius: float, steps: int, step: float) -> Tensor:
    """l_inf ascent from a random start."""
    delta = torch.empty_like(x).uniform_(-radius, radius)
    for _ in range(steps):
        delta.requires_grad_()
        (g,) = torch.autograd.grad(loss(model((x + delta).clamp(0, 1))), delta)
        delta = (delta.detach() + step * g.sign()).clamp(-radius, radius)
    return (x + delta).clamp(0, 1)


def objective(kind: str, model: nn.Module, x: Tensor, y: Tensor, radius: float) -> Tensor:
    """The loss of one batch."""
    if kind == "clean":
        return F.cross_entropy(model(x), y)
    if kind == "trades":
        p = model(x).detach().softmax(1)
        bad = perturb(model, x, lambda z: F.kl_div(z.log_softmax(1), p, reduction="sum"), radius, 5, radius / 3)
        z = model(x)
        return F.cross_entropy(z, y) + 6 * F.kl_div(model(bad).log_softmax(1), z.softmax(1), reduction="batchmean")
    steps, step = (1, 1.25 * radius) if kind == "fgsm" else (7, radius / 3)
    bad = perturb(model, x, lambda z: F.cross_entropy(z, y, reduction="sum"), radius, steps, step)
    return F.cross_entropy(model(bad), y)


def network(data: str) -> nn.Module:
    """The network all of one data set share."""
    shape = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "digits": (1, 8, 8)}[data]
    return build("small_cnn", input_shape=shape, classes=10)


def train(data: str, kind: str, seed: int = 0) -> nn.Module:
    """One model; the radius grows over the first third."""
    radius, n, epochs = DATA[data]
    torch.manual_seed(seed)
    model, found = network(data), load(data)
    x, y = to_float(found.x_train[:n]), found.y_train[:n]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    steps = epochs * (len(x) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for k in range(steps):
        rows = torch.randint(len(x), (128,))
        loss = objective(kind, model, x[rows], y[rows], radius * min(1.0, 3 * k / steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def fleet(names: list[str] | None = None) -> dict[str, tuple[nn.Module, str, float]]:
    """Name -> (model, data set, radius), trained if need be."""
    FOLDER.mkdir(exist_ok=True)
    out = {}
    for data, (radius, _, _) in DATA.items():
        for kind in KINDS:
            name = f"{data}_{kind}"
            if names is not None and name not in names:
                continue
            path, model = FOLDER / f"{name}.pt", network(data).eval()
            if not path.is_file():
                begun = time.time()
                model = train(data, kind)
                torch.save(model.state_dict(), path)
                print(f"{name}: {time.time() - begun:.0f} s", file=sys.stderr, flush=True)
            model.load_state_dict(torch.load(path, weights_only=True))
            out[name] = (model, data, radius)
    return out


if __name__ == "__main__":
    fleet(sys.argv[1:] or None)
