"""Small smooth models, quadratic losses, and the tools to hold a regulariser against a loop over examples."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from danskin import losses as danskin_losses
from danskin.losses import Loss


class Quadratic(nn.Module):
    """One output per example: a' H a / 2 + g' a."""

    def __init__(self, H, g):
        super().__init__()
        self.H, self.g = nn.Parameter(H), nn.Parameter(g)

    def forward(self, x):
        x = x.flatten(1)
        return ((x @ self.H) * x).sum(1) / 2 + x @ self.g


@pytest.fixture
def quadratic(monkeypatch):
    """Makes models whose *loss* is a quadratic of the input, under loss="raw": the loss is the output itself."""
    raw = Loss("raw", lambda logits, labels: logits.reshape(-1), binary=True)
    monkeypatch.setitem(danskin_losses.LOSSES, "raw", raw)

    def make(H=None, g=None, d=4):
        if H is None:
            A = torch.randn(d, d, dtype=torch.float64)
            H, g = A + A.T, torch.randn(d, dtype=torch.float64)
        return Quadratic(H, g)

    return make


@pytest.fixture
def smooth():
    """A small smooth net in float64, with inputs and labels."""

    def make(n=6, shape=(1, 2, 3), dtype=torch.float64, classes=3):
        d = torch.Size(shape).numel()
        net = nn.Sequential(nn.Flatten(), nn.Linear(d, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, classes))
        for p in net.parameters():
            p.data.mul_(3)
        return SimpleNamespace(net=net.to(dtype), x=torch.rand(n, *shape, dtype=dtype), y=torch.arange(n) % classes)

    return make


@pytest.fixture
def numeric():
    """The gradient of a scalar function of a model's weights, by central differences."""

    def differences(net, scalar, step=1e-5):
        out = []
        with torch.no_grad():
            for p in net.parameters():
                flat, slope = p.data.view(-1), torch.zeros(p.numel(), dtype=p.dtype)
                for i in range(p.numel()):
                    at = flat[i].item()
                    ends = []
                    for sign in (1, -1):
                        flat[i] = at + sign * step
                        with torch.enable_grad():
                            ends.append(float(scalar().detach()))
                    flat[i] = at
                    slope[i] = (ends[0] - ends[1]) / (2 * step)
                out.append(slope.view(p.shape))
        return out

    return differences
