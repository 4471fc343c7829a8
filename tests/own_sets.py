"""Sets that danskin does not know, as somebody else would write them: only what `Set` asks for."""

import math
from dataclasses import dataclass

import torch

from danskin.minmax import L1, Linf


def flat(t):
    return t.reshape(len(t), math.prod(t.shape[1:]))


def unit(g):
    largest = flat(g).abs().amax(1).view(-1, *[1] * (g.ndim - 1))
    g = torch.where(largest > 0, g / largest, 0.0)
    return g / flat(g).norm(dim=1).clamp_min(1e-30).view(largest.shape)


class Euclidean:
    """The norm of a set that measures steps in l2."""

    def norm(self, y):
        return flat(y).double().norm(dim=1).to(y.dtype)

    dual_norm = norm

    def steepest(self, g):
        return unit(g)

    def rows(self, index):
        return self


@dataclass(frozen=True)
class Ellipsoid(Euclidean):
    """sum (y_i / a_i)^2 <= 1 with half axes from `short` to `long`, alternating."""

    short: float
    long: float

    def _axes(self, y):
        d = math.prod(y.shape[1:])
        return torch.where(torch.arange(d, device=y.device) % 2 == 0, self.long, self.short).to(y)

    def project(self, y):
        """q_i = y_i a_i^2 / (a_i^2 + t), with t >= 0 by Newton's method on 1 / |q / a|, in float64."""
        a, z = self._axes(y).double(), flat(y).double()
        t = torch.zeros(len(z), 1, dtype=z.dtype)
        for _ in range(20):
            s = a * z / (a * a + t)
            n = s.norm(dim=1, keepdim=True)
            rise = (n - 1) * n * n / (s * s / (a * a + t)).sum(1, keepdim=True).clamp_min(1e-300)
            t = torch.where(n > 1, t + rise, t)
        return (z * a * a / (a * a + t)).to(y.dtype).view(y.shape)

    def lmo(self, g):
        a, scale = self._axes(g).double(), flat(g).double()
        best = a * unit(a * scale / scale.abs().amax(1, keepdim=True).clamp_min(1e-300))
        return best.to(g.dtype).view(g.shape)

    def sample(self, like, generator):
        return self.project(2 * self.long * (generator.uniform(like) - 0.5))

    def violation(self, y):
        out = (flat(y).double() / self._axes(y).double()).norm(dim=1) - 1
        return (self.short * out).clamp_min(0).nan_to_num(nan=math.inf).to(y.dtype)


@dataclass(frozen=True)
class GroupLasso:
    """The l2 norms of neighbouring pairs of coordinates sum to at most `radius`."""

    radius: float

    def _pairs(self, y):
        z = flat(y)
        z = torch.nn.functional.pad(z, (0, z.shape[1] % 2))
        return z.view(len(z), -1, 2)

    def _back(self, pairs, like):
        return pairs.reshape(len(pairs), -1)[:, : math.prod(like.shape[1:])].reshape(like.shape)

    def project(self, y):
        pairs = self._pairs(y).double()
        size = pairs.norm(dim=2)
        ordered = size.sort(1, descending=True).values
        counts = torch.arange(1, size.shape[1] + 1, dtype=size.dtype)
        level = ((ordered.cumsum(1) - self.radius) / counts).amax(1, keepdim=True).clamp_min(0)
        share = (size - level).clamp_min(0) / size.clamp_min(1e-300)
        return self._back(torch.where(level[..., None] > 0, pairs * share[..., None], pairs).to(y.dtype), y)

    def lmo(self, g):
        return self.radius * self.steepest(g)

    def steepest(self, g):
        pairs = self._pairs(unit(g))
        size = pairs.norm(dim=2)
        first = torch.zeros_like(size).scatter_(1, size.argmax(1, keepdim=True), 1.0)
        return self._back(pairs / size.clamp_min(1e-38)[..., None] * first[..., None], g)

    def sample(self, like, generator):
        return self.project(2 * self.radius * (generator.uniform(like) - 0.5))

    def violation(self, y):
        return (self.norm(y) - self.radius).clamp_min(0).nan_to_num(nan=math.inf)

    def norm(self, y):
        return self._pairs(y).double().norm(dim=2).sum(1).to(y.dtype)

    def dual_norm(self, g):
        return self._pairs(g).double().norm(dim=2).amax(1).to(g.dtype)

    def rows(self, index):
        return self


@dataclass(frozen=True, eq=False)
class Masked(Linf):
    """|y_i| <= radius where the mask (of one example) is 1, y_i = 0 elsewhere: made from Linf."""

    mask: torch.Tensor

    def project(self, y):
        return Linf.project(self, y) * self.mask.to(y)

    def lmo(self, g):
        return Linf.lmo(self, g) * self.mask.to(g)

    def sample(self, like, generator):
        return Linf.sample(self, like, generator) * self.mask.to(like)

    def violation(self, y):
        beside = flat(y * (1 - self.mask.to(y))).abs().amax(1)
        return torch.maximum(Linf.violation(self, y), beside.nan_to_num(nan=math.inf))


@dataclass(frozen=True, eq=False)
class Polytope:
    """centre + the l1 ball of `radius`: a translated polytope, one centre for each row. Measures steps in l_inf."""

    centre: torch.Tensor
    radius: float

    def _at(self, y):
        return self.centre.to(y)

    def project(self, y):
        return L1(self.radius).project(y - self._at(y)) + self._at(y)

    def lmo(self, g):
        return L1(self.radius).lmo(g) + self._at(g)

    def steepest(self, g):
        return g.sign()

    def sample(self, like, generator):
        return self.project(self._at(like) + self.radius * (generator.uniform(like) - 0.5))

    def violation(self, y):
        return (flat(y - self._at(y)).abs().sum(1) - self.radius).clamp_min(0).nan_to_num(nan=math.inf)

    def norm(self, y):
        return flat(y).abs().amax(1)

    def dual_norm(self, g):
        return flat(g).abs().sum(1)

    def rows(self, index):
        return Polytope(self.centre[index], self.radius)


def pattern(like):
    """(1, ...) 1 for two of every three coordinates of an example."""
    d = math.prod(like.shape[1:])
    return (torch.arange(d) % 3 > 0).to(like.dtype).view(1, *like.shape[1:])


def centres(like):
    """Small shifts, others for each row."""
    random = torch.Generator().manual_seed(5)
    return (0.02 * torch.rand(like.shape, generator=random, dtype=torch.float64)).to(like)
