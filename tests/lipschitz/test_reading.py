"""What a network is read as computes the same, and its bounds hold; what is refused is named."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danskin.errors import ModelError
from danskin.evaluation.certify import certify
from danskin.foreign.opened import Batched
from danskin.lipschitz import read
from danskin.minmax import Linf
from danskin.testing.models import seeded

X = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def joined(h):
    a, b = h.split([1, 3], 1)
    return torch.cat([b, a.new_full((len(a), 2, 6, 6), 0.3), a - 2 * b[:, 1:2]], 1)


def chunked(h):
    a, b, c = torch.chunk(h, 3, dim=3)
    return torch.cat([c, a, b.flip(2)], 2)


WAYS = {
    "split and cat, with a constant": joined,
    "chunk, flip and cat of rows": chunked,
    "unbind and stack": lambda h: torch.stack([p * k for k, p in enumerate(h.unbind(1), 1)], -1),
    "unbind of the last dimension": lambda h: torch.stack(h.unbind(-1)[::2], 1),
    "index_select": lambda h: h.index_select(1, torch.tensor([3, 0, 0, 2])),
    "relu6": lambda h: F.relu6(20 * h - 3),
    "hardtanh": lambda h: F.hardtanh(3 * h, -0.5, 0.25),
    "clamp": lambda h: (3 * h).clamp(-0.2, 0.7),
    "clamp from below": lambda h: h.clamp(min=0.1),
    "clamp from above": lambda h: (2 * h).clamp(max=0.1),
    "split into unequal parts": lambda h: torch.cat(h.split(4, 2)[::-1], 2),
}


class Between(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.first, self.way = nn.Conv2d(3, 4, 3, padding=1), way
        with torch.no_grad():
            self.out = nn.Linear(way(torch.zeros(1, 4, 6, 6)).numel(), 3)

    def forward(self, x):
        return self.out(self.way(F.relu(self.first(x))).flatten(1))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_shapes_and_limits_are_read_and_bounded(way):
    model = seeded(Between(way), 3, 2.0).double()
    torch.testing.assert_close(read(model, X)(X), model(X).detach(), rtol=0, atol=1e-12)
    y, radius = model(X).argmax(1), 0.05
    shifts = radius * (2 * torch.rand(300, *X.shape, generator=torch.Generator().manual_seed(2)).double() - 1).sign()
    z = model((X + shifts).clamp(0, 1).flatten(0, 1)).detach().view(300, 5, 3)
    k = y[None, :, None].expand(300, 5, 1)
    worst = (z.gather(2, k)[..., 0] - z.scatter(2, k, -torch.inf).amax(2)).amin(0)
    for method in ("ibp", "crown-ibp", "crown"):
        assert bool((certify(model, (X, y), Linf(radius), method=method).margin <= worst + 1e-9).all()), method
    tiny = certify(model, (X, y), Linf(1e-9), method="crown").margin
    clean = z.new_tensor([float(m) for m in (model(X).detach().topk(2).values.diff().neg()[:, 0])])
    torch.testing.assert_close(tiny, clean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1])
def test_a_network_that_takes_fixed_batches_is_read(size):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(108, 3)

        def forward(self, x):
            return self.out(x.reshape(size, 108))

    model = seeded(Batched(Fixed(), size, size), 0, 1.0).double()
    torch.testing.assert_close(read(model, X)(X), model(X).detach(), rtol=0, atol=1e-12)
    found = certify(model, (X, model(X).argmax(1)), Linf(1e-4))
    assert bool(found.certified.all())


class Vmapped(nn.Module):
    """As networks that take one example are applied to many."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))

    def forward(self, x):
        return self.net(x) if len(x) == 1 else torch.func.vmap(lambda row: self.net(row[None])[0])(x)


def test_a_network_applied_to_each_example_is_read():
    model = seeded(Vmapped(), 0, 1.0).double()
    torch.testing.assert_close(read(model, X)(X), model(X).detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: torch.cat([x, x]).flatten(1), "larger batch"),
        (lambda x: torch.stack([x, x]).flatten(1), "before that of the batch"),
        (lambda x: x.flip(0).flatten(1), "across the examples"),
        (lambda x: x.unbind(0)[0], "across the examples"),
        (lambda x: x.clamp(torch.zeros(6), torch.ones(6)).flatten(1), "one number|no bound"),
        (lambda x: x.clamp(0.5, 0.2).flatten(1), "wrong order"),
        (lambda x: torch.exp(x).flatten(1), "exp"),
    ],
)
def test_what_has_no_rule_is_named(call, says):
    with pytest.raises(ModelError, match=says):
        read(call, X)
