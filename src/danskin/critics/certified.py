"""What a critic proves about a Wasserstein distance: its gap divided by a certified Lipschitz constant."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from danskin.callables import copied
from danskin.critics.fitting import answers
from danskin.critics.lipschitz_class import check_norm
from danskin.critics.samples import as_points, samples
from danskin.errors import InputError, ModelError
from danskin.lipschitz import LipschitzBound, product_bound

BoundOf = Callable[[nn.Module, Sequence[int]], LipschitzBound]


@dataclass(frozen=True, eq=False)
class DualBound:
    r"""W1(mu, nu) >= lower = |gap| / L, by Kantorovich-Rubinstein duality.

    Args:
        gap: E_mu d - E_nu d of the critic as it is, in float64: no distance, and no bound of one.
        lipschitz: a certified upper bound of the l2 Lipschitz constant of d.
        lower: what is proved, in the units of the points.
        p: norm of the ground distance of W1.
    """

    gap: float
    lipschitz: LipschitzBound
    lower: float
    p: float

    def __str__(self) -> str:
        return f"W1 >= {self.lower:.6g} (critic gap {self.gap:.6g}, {self.lipschitz})"


def certified(
    critic: nn.Module,
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
    bound: BoundOf | LipschitzBound = product_bound,
) -> DualBound:
    r"""The certified Kantorovich lower bound of any critic, trained in whatever way.

    d / L is 1-Lipschitz, so W1(mu, nu) >= |E_mu d - E_nu d| / L. The critic is copied to float64, and both the gap
    and L are of that copy, in eval mode: parametrised weights are computed in float64 too. An l2 constant serves for
    l1 distances, which are no smaller, and, times sqrt(d), for l_inf ones.

    Args:
        critic: (n, ...) to (n,) or (n, 1); left as found.
        x: (n, ...) points.
        y: (m, ...).
        a: (n,) weights; None for equal ones.
        b: (m,).
        p: 1, 2 or inf.
        bound: how L is bounded, or the bound itself (of kind "upper", of this critic in float64).

    Raises:
        InputError: samples that cannot be used, or a bound that is no certificate.
        ModelError: the critic holds an operation without a rule (it is named), or its values are not finite.

    Lecture: E4.

    >>> line = nn.Linear(1, 1)
    >>> _ = line.weight.data.fill_(-3.0)
    >>> round(certified(line, torch.zeros(2, 1), torch.ones(2, 1)).lower, 6)
    1.0
    """
    check_norm(p, "certified")
    s, wide, x, y = samples(x, y, a, b), frozen(critic), as_points(x), as_points(y)
    made = bound(wide, tuple(x.shape[1:])) if callable(bound) else bound
    if not isinstance(made, LipschitzBound) or made.kind != "upper" or not made.value >= 0:
        raise InputError(f"bound: expected a certified upper bound, got {made}; divide by nothing that is an estimate")
    at_x, at_y = values(wide, x), values(wide, y)
    gap = float(s.gap(at_x, at_y).detach())
    if not math.isfinite(gap):
        raise ModelError(f"critic: expected finite values on the samples, got a gap of {gap}; train it more gently")
    return DualBound(gap, made, proved(gap, made.value, s.x.shape[1], p, at_x, at_y), p)


def proved(gap: float, lipschitz: float, dims: int, p: float, *at: Tensor) -> float:
    """|gap| / L in the ground norm, less what rounding of the values may have added."""
    slack = 1e-13 * sum(float(t.abs().amax()) for t in at)
    constant = lipschitz * (math.sqrt(dims) if p == math.inf else 1.0)
    return max(abs(gap) - slack, 0.0) / constant if constant > 0 else 0.0


def frozen(critic: nn.Module) -> nn.Module:
    """A float64 copy in eval mode whose parameters ask for no gradients."""
    if not isinstance(critic, nn.Module):
        raise InputError(f"critic: expected a torch.nn.Module, got {type(critic).__name__}; wrap the function in one")
    return copied(critic).double().eval().requires_grad_(False)


def values(wide: nn.Module, z: Tensor, rows: int = 4096) -> Tensor:
    """(n,) float64 values of a float64 critic, in blocks."""
    with torch.no_grad():
        return torch.cat([answers(wide, part.double()) for part in z.detach().split(rows)])


def trained_copy(critic: nn.Module) -> nn.Module:
    """A copy to train; the given one is left as found."""
    if not isinstance(critic, nn.Module):
        raise InputError(f"critic: expected a torch.nn.Module, got {type(critic).__name__}; wrap the function in one")
    return copy.deepcopy(critic).train()
