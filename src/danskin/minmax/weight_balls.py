"""Sets of weight shifts: lists of tensors v_l beside the weights w_l of a network, and their linear maximisers.

The maximiser of <g, v> over a ball is what sharpness-aware steps call the ascent; it is the step of FGSM, on weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.lists import norm, squares


class WeightBall(Protocol):
    """A set of lists of tensors."""

    def lmo(self, g: Sequence[Tensor], at: Sequence[Tensor]) -> list[Tensor]:
        """Argmax over v in the set of sum_l <g_l, v_l>; 0 where g is 0. `at`: the weights it lies around."""
        ...

    def norm(self, v: Sequence[Tensor], at: Sequence[Tensor]) -> float:
        """How far out v lies: at most the radius inside the set."""
        ...


def check_radius(name: str, rho: float) -> None:
    """Raise unless it is a positive, finite number."""
    if not (isinstance(rho, int | float) and not isinstance(rho, bool) and 0 < rho < float("inf")):
        raise InputError(f"{name}: expected a radius above 0, got {rho!r}; 0.05 is usual for SAM, 0.5 to 2 for ASAM")


def _over(radius: float, length: float) -> float:
    """Radius / length; 0 where there is no direction to go, or one that float32 cannot tell from none."""
    return radius / length if length > 1e-37 * radius else 0.0


def _scaled(tensors: Sequence[Tensor], factor: float) -> list[Tensor]:
    return list(torch._foreach_mul(list(tensors), factor)) if tensors else []


@dataclass(frozen=True)
class AllWeights:
    """{v : |v|_2 <= rho}, the norm over all tensors together: the ball of SAM."""

    rho: float

    def __post_init__(self) -> None:
        check_radius("rho", self.rho)

    def lmo(self, g: Sequence[Tensor], at: Sequence[Tensor], length: float | None = None) -> list[Tensor]:
        """V = rho g / |g|; `length` is |g| where it is known already."""
        length = norm(g) if length is None else length
        return _scaled(g, _over(self.rho, length))

    def norm(self, v: Sequence[Tensor], at: Sequence[Tensor]) -> float:
        """|v|_2."""
        return norm(v)


@dataclass(frozen=True)
class ScaledWeights:
    """{v : |v / t|_2 <= rho} with t = |w| + eta, entry by entry: the ball of ASAM, the same for rescaled weights.

    With eta = 0 weights that are 0 do not move.
    """

    rho: float
    eta: float = 0.01

    def __post_init__(self) -> None:
        check_radius("rho", self.rho)
        if not self.eta >= 0:
            raise InputError(f"eta: expected a number >= 0, got {self.eta!r}; 0.01 is usual")

    def lmo(self, g: Sequence[Tensor], at: Sequence[Tensor]) -> list[Tensor]:
        """V = rho t^2 g / |t g|."""
        t = self._scale(at)
        v = list(torch._foreach_mul(list(g), t))
        length = norm(v)
        torch._foreach_mul_(v, t)
        torch._foreach_mul_(v, _over(self.rho, length))
        return v

    def norm(self, v: Sequence[Tensor], at: Sequence[Tensor]) -> float:
        """|v / t|_2; weights with t = 0 count if they moved: infinity."""
        parts = [
            torch.where(s > 0, shift / s, torch.where(shift == 0, 0.0, torch.inf))
            for shift, s in zip(v, self._scale(at), strict=True)
        ]
        return norm(parts)

    def _scale(self, at: Sequence[Tensor]) -> list[Tensor]:
        t = list(torch._foreach_abs([w.detach() for w in at]))
        if self.eta:
            torch._foreach_add_(t, self.eta)
        return t


@dataclass(frozen=True)
class EachLayer:
    """{v : |v_l|_2 <= gamma |w_l|_2 for each tensor l}: the ball of AWP, and of LookSAM by layers."""

    gamma: float

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < float("inf"):
            raise InputError(f"gamma: expected a share >= 0 of the norm of each layer, got {self.gamma!r}; try 0.01")

    def lmo(self, g: Sequence[Tensor], at: Sequence[Tensor]) -> list[Tensor]:
        """v_l = gamma |w_l| g_l / |g_l|: layer by layer the linear maximiser of an l2 ball."""
        pairs = zip(g, squares(at), squares(g), strict=True)
        return [slope * _over(self.gamma * math.sqrt(r), math.sqrt(n)) for slope, r, n in pairs]

    def norm(self, v: Sequence[Tensor], at: Sequence[Tensor]) -> float:
        """The largest |v_l| / |w_l|."""
        lengths = ((math.sqrt(a), math.sqrt(b)) for a, b in zip(squares(v), squares(at), strict=True))
        return max((a / b if b else (0.0 if a == 0 else float("inf")) for a, b in lengths), default=0.0)
