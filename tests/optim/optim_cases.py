"""What the tests of optimisers share: a small network with BatchNorm and dropout, and every method on it."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from danskin import AESAM, ASAM, GSAM, SAM, FriendlySAM, LookSAM
from danskin.optim import Plain

METHODS = {
    "plain": Plain,
    "sam": SAM,
    "asam": ASAM,
    "gsam": lambda base, **o: GSAM(base, 0.1, rho_min=0.02, lr_max=0.1, **o),
    "friendly": FriendlySAM,
    "look": lambda base, **o: LookSAM(base, 0.1, k=3, **o),
    "look by tensor": lambda base, **o: LookSAM(base, 0.1, k=2, layerwise=True, per_tensor=True, **o),
    "ae": lambda base, **o: AESAM(base, 0.1, steps=20, **o),
}


def network(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, 5, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def closure_of(model, step, zero=False, opt=None):
    x, y = batch(step)

    def closure():
        if zero:
            opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)


def run(model, opt, steps, first=0):
    for step in range(first, first + steps):
        opt.step(closure_of(model, step))
    return model


def everything(model):
    return copy.deepcopy(model.state_dict())


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
