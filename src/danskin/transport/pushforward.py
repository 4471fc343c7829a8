"""Push-forward measures: samples through any map, densities by change of variables. Lecture: row E1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from danskin.errors import InputError

Map = Callable[[Tensor], Tensor]
_PROBES, _SEED = 256, 0  # draws that must come back through a branch
_NEAR = 1e-3  # relative; float32 maps and inverses


@dataclass(frozen=True)
class Branch:
    """A piece of the domain on which a map is injective.

    Args:
        inverse: from images (n, d) to the points of this piece.
        covers: from images (n, d) to a mask (n,): whether the piece has a preimage; None: it has, wherever the inverse
            is finite.
    """

    inverse: Map
    covers: Map | None = None


@dataclass(frozen=True)
class PushForward:
    """h#mu: the law of h(w) with w drawn from mu, p(y) = sum over branches of p(w_k(y)) / |det J_h(w_k(y))|.

    The determinant counts without its sign, and every preimage counts: with one of the two roots alone, the density of
    a squared Gaussian is the half of what it should be. Branches that leave out preimages are refused at once: draws of
    the base must come back through one of them.

    Args:
        base: a distribution of torch over numbers or over vectors (d,).
        forward: h, from (n, d) to (n, k); applied row by row. A function of single numbers gets (n, 1).
        branches: inverses that cover the domain together; a callable alone is the inverse of an invertible map; none:
            samples only, of any map into any dimension.

    Raises:
        InputError: an inverse that does not invert, or branches that miss a part of the base.

    Lecture:
        E1

    >>> from torch.distributions import Normal
    >>> chi = PushForward(Normal(0.0, 1.0), torch.square, (Branch(torch.sqrt), Branch(lambda y: -y.sqrt())))
    >>> round(float(chi.log_prob(torch.tensor([1.0])).exp()), 4)  # exp(-1/2) / sqrt(2 pi)
    0.242
    """

    base: Distribution
    forward: Map
    branches: tuple[Branch, ...] | Map = ()

    def __post_init__(self) -> None:
        found = (Branch(self.branches),) if callable(self.branches) else tuple(self.branches)
        object.__setattr__(self, "branches", found)
        if len(self.base.batch_shape) or len(self.base.event_shape) > 1:
            raise InputError(
                f"base: expected one distribution of numbers or vectors, got batch shape "
                f"{tuple(self.base.batch_shape)} and event shape {tuple(self.base.event_shape)}; use Independent"
            )
        if found:
            missed = self.missed(_PROBES, _SEED)
            if missed > 0:
                raise InputError(
                    f"branches: expected every draw of the base to come back through one of them, got {missed:.1%} "
                    "that do not; add the branch of the other preimages, or mend an inverse"
                )

    @property
    def _parts(self) -> tuple[Branch, ...]:
        return self.branches  # type: ignore[return-value]

    def _draw(self, n: int, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            w = self.base.sample((n,))
        return w if w.ndim == 2 else w[:, None]

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Points of the push-forward, (n, k), or (n,) for a map of numbers to numbers; the random state stays as it is.

        Args:
            n: how many.
            seed: of the draw.
        """
        if n < 1:
            raise InputError(f"n: expected at least 1 point, got {n}; ask for more")
        y = self.forward(self._draw(n, seed))
        return y[:, 0] if not self.base.event_shape and y.ndim == 2 and y.shape[1] == 1 else y

    def missed(self, n: int, seed: int = 0) -> float:
        """The share of n draws w of the base that no branch finds again from h(w)."""
        w = self._draw(n, seed)
        y = self.forward(w)
        if y.shape != w.shape:
            raise InputError(
                f"forward: expected a map between spaces of one dimension for a density, got {w.shape[1]} to "
                f"{tuple(y.shape[1:])}; leave the branches out: samples can be drawn all the same"
            )
        size = 1 + w.abs().amax(1)
        back = torch.zeros(n, dtype=torch.bool, device=w.device)
        for part in self._parts:
            there, point = self._preimage(part, y)
            back |= there & ((point - w).abs().amax(1) <= _NEAR * size)
        return float((~back).double().mean())

    def _preimage(self, part: Branch, y: Tensor) -> tuple[Tensor, Tensor]:
        """Whether there is one, and where (0 where there is none, so that nothing turns to NaN)."""
        point = part.inverse(y)
        there = point.isfinite().all(1)
        if part.covers is not None:
            there = there & part.covers(y).reshape(len(y))
        return there, torch.where(there[:, None], point, torch.zeros_like(point))

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density at points (n, d), or (n,) of numbers: (n,); -inf where no branch has a preimage.

        Raises:
            InputError: there are no branches to compute it with.
        """
        if not self._parts:
            raise InputError("log_prob: expected branches with inverses, got none; give them, or use samples only")
        rows = y if y.ndim == 2 else y[:, None]
        terms = []
        for part in self._parts:
            there, w = self._preimage(part, rows)
            inside = w if self.base.event_shape else w[:, 0]
            there = there & self._supported(inside)
            safe = torch.where(there[:, None], w, self._draw(1, _SEED).to(w))
            log = self.base.log_prob(safe if self.base.event_shape else safe[:, 0]) - self._log_volume(safe)
            terms.append(torch.where(there, log, torch.full_like(log, -math.inf)))
        return torch.logsumexp(torch.stack(terms), 0)

    def _supported(self, w: Tensor) -> Tensor:
        support = self.base.support
        if support is None:
            return torch.ones(len(w), dtype=torch.bool, device=w.device)
        return torch.as_tensor(support.check(w)).reshape(len(w), -1).all(1)

    def _log_volume(self, w: Tensor) -> Tensor:
        """The logarithm of |det J_h(w)|, (n,)."""

        def single(point: Tensor) -> Tensor:
            return self.forward(point[None])[0]

        jacobian = torch.func.vmap(torch.func.jacrev(single))(w)
        return torch.linalg.slogdet(jacobian).logabsdet


class Agreement(NamedTuple):
    """How far a sample is from a law: sup |F_n - F|, and how often so much happens if it is drawn from it."""

    statistic: float
    p_value: float


def kolmogorov_smirnov(sample: Tensor, cdf: Callable[[Tensor], Tensor]) -> Agreement:
    """The test of Kolmogorov and Smirnov of one sample against a continuous law.

    Args:
        sample: (n,).
        cdf: F, from (n,) to (n,).

    Reference:
        Stephens 1970 for the correction of the asymptotic p-value, good to a few per cent from n = 5 on.
    """
    if sample.ndim != 1 or not len(sample):
        raise InputError(f"sample: expected numbers (n,), got shape {tuple(sample.shape)}; test a coordinate at a time")
    n = len(sample)
    levels = cdf(sample.double().sort().values)
    steps = torch.arange(n + 1, dtype=torch.float64, device=sample.device) / n
    statistic = float(torch.maximum(steps[1:] - levels, levels - steps[:-1]).max())
    t = (n**0.5 + 0.12 + 0.11 / n**0.5) * statistic
    if t < 0.2:  # the series below converges slowly there, and the answer is 1 to ten digits
        return Agreement(statistic, 1.0)
    series = 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * t * t) for k in range(1, 101))
    return Agreement(statistic, min(max(series, 0.0), 1.0))
