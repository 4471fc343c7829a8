"""Maximum mean discrepancy and energy distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from danskin.critics.ipm import Witness
from danskin.critics.kernels import RBF, Energy, Kernel
from danskin.critics.samples import Samples, samples
from danskin.errors import InputError
from danskin.minmax import Template

_ROWS = 1024  # of a kernel matrix at a time


@dataclass(frozen=True)
class MMD:
    r"""The distance of mean embeddings: sup of E_mu f - E_nu f over \|f\|_H <= 1, H the space of the kernel.

    MMD^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y). `value` is that of the two given distributions (the "biased"
    estimator of the populations'); `squared(..., estimator="unbiased")` leaves out pairs of a point with itself.
    Differentiable in points and weights.

    Args:
        kernel: RBF, Laplace, IMQ, Energy, or any function of (n, d) and (m, d) to (n, m). Prefer the median distance
            (`median_distance`) for its scale where nothing better is known.

    Reference: Gretton et al., JMLR 13 (2012), equations 1, 3 and 5. Lecture: E5.

    >>> x, y = torch.zeros(1, 1), torch.ones(1, 1)
    >>> round(float(MMD(RBF(1.0)).squared(x, y)), 6) == round(2 - 2 * math.exp(-0.5), 6)
    True
    """

    template: ClassVar[Template] = Template("-", "a function", "unit ball of a kernel's space", "E_mu f - E_nu f")
    moves: ClassVar[str] = "closed form"

    kernel: Kernel = field(default_factory=RBF)

    def value(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        """MMD, >= 0; its gradient is 0 where it is 0 (a subgradient). Rounding leaves about 1e-8 in place of 0."""
        squared = self.squared(x, y, a, b)
        positive = squared > 0
        return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)

    def squared(
        self,
        x: Tensor,
        y: Tensor,
        a: Tensor | None = None,
        b: Tensor | None = None,
        *,
        estimator: Literal["biased", "unbiased"] = "biased",
    ) -> Tensor:
        """MMD^2; the unbiased estimator may be negative.

        Raises:
            InputError: samples that cannot be used; a single point of mass 1, for the unbiased estimator.
        """
        if estimator not in ("biased", "unbiased"):
            raise InputError(f"estimator: expected 'biased' or 'unbiased', got {estimator!r}; choose one")
        s, unbiased = samples(x, y, a, b), estimator == "unbiased"
        own = self._own(s.x, s.a, unbiased, "x") + self._own(s.y, s.b, unbiased, "y")
        found = own - 2 * self._mean(s.x, s.y, s.a, s.b)
        if not bool(found.isfinite()):
            raise InputError(f"kernel: expected finite values on the samples, got a mean of {float(found)}; correct it")
        return found

    def _mean(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """sum_ij a_i b_j k(x_i, y_j)."""
        parts = [w @ (self.kernel(p, y) @ b) for p, w in zip(x.split(_ROWS), a.split(_ROWS), strict=True)]
        return torch.stack(parts).sum()

    def _own(self, x: Tensor, a: Tensor, unbiased: bool, name: str) -> Tensor:
        """E k(X, X') for two draws, of different points if unbiased."""
        mean = self._mean(x, x, a, a)
        if not unbiased:
            return mean
        left = 1 - a.square().sum()
        if len(x) < 2 or float(left.detach()) <= 1e-12:
            raise InputError(f"{name}: expected two points or more for the unbiased estimator, got one; use 'biased'")
        itself = torch.stack([self.kernel(p[None], p[None])[0, 0] for p in x])
        return (mean - a.square() @ itself) / left

    def witness(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Witness:
        r"""f(z) = (E_mu k(X, z) - E_nu k(Y, z)) / MMD, of norm 1; the zero function where MMD is 0."""
        s, size = samples(x, y, a, b), self.value(x, y, a, b)
        s = Samples(*(t.detach() for t in (s.x, s.y, s.a, s.b)))
        size = size.detach()

        def f(z: Tensor) -> Tensor:
            z = z.to(s.x).reshape(len(z), -1)
            if not float(size):
                return z.new_zeros(len(z))
            return torch.cat([s.gap(self.kernel(s.x, p), self.kernel(s.y, p)) for p in z.split(_ROWS)]) / size

        return f

    def lower_bound(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> float:
        """The value with an allowance for rounding: MMD has a closed form."""
        squared = float(self.squared(x, y, a, b).detach())
        s = samples(x, y, a, b)
        size = float(self._mean(s.x, s.x, s.a, s.a).abs() + self._mean(s.y, s.y, s.b, s.b).abs())
        return math.sqrt(max(squared - 1e-13 * (size + abs(squared)), 0))


@dataclass(frozen=True)
class EnergyDistance(MMD):
    r"""The energy distance; `squared` is 2 E\|X - Y\|_2 - E\|X - X'\|_2 - E\|Y - Y'\|_2, `value` its root.

    The root is a metric (and what `scipy.stats.energy_distance` calls so). In 1-D, squared = 2 int (F - G)^2. As an
    IPM it is the MMD with kernel -\|x - y\|_2.

    Reference: Szekely and Rizzo, J. Statistical Planning and Inference 2013. Lecture: E5.
    """

    template: ClassVar[Template] = Template("-", "a function", "unit ball of the space of distances", "E_mu f - E_nu f")

    kernel: Kernel = field(default_factory=Energy, init=False)


def gaussian_mmd_squared(
    mean_x: Sequence[float] | Tensor, sd_x: float, mean_y: Sequence[float] | Tensor, sd_y: float, scale: float = 1.0
) -> float:
    r"""MMD^2 of N(mean_x, sd_x^2 I) and N(mean_y, sd_y^2 I) for the `RBF` kernel, in closed form.

    E k(X, Y) = (s^2 / (s^2 + sd_x^2 + sd_y^2))^(d/2) exp(-\|mean_x - mean_y\|^2 / (2 (s^2 + sd_x^2 + sd_y^2))).

    Args:
        mean_x: (d,).
        sd_x: standard deviation of each coordinate, >= 0.
        mean_y: (d,).
        sd_y: likewise.
        scale: s of the kernel.
    """
    one, other = (torch.as_tensor(m, dtype=torch.float64).reshape(-1) for m in (mean_x, mean_y))
    if one.shape != other.shape or not min(sd_x, sd_y) >= 0:
        raise InputError("gaussian_mmd_squared: expected means of one dimension and sd >= 0, got others; correct them")
    apart = float((one - other).square().sum())
    if not (scale > 0 and math.isfinite(apart)):
        raise InputError("gaussian_mmd_squared: expected finite means and a scale > 0, got others; correct them")

    def mean(u: float, v: float, far: float) -> float:
        width = scale**2 + u**2 + v**2
        return float((scale**2 / width) ** (len(one) / 2) * math.exp(-far / (2 * width)))

    return mean(sd_x, sd_x, 0) + mean(sd_y, sd_y, 0) - 2 * mean(sd_x, sd_y, apart)
