"""Elementwise activations and what is certain about their slopes.

A curve is cut into pieces on which its derivative is monotone, so the range of the derivative over any interval is
known from the ends of the pieces in it: the closed forms for ReLU, LeakyReLU, clamp, ELU, ..., and numerically placed
turning points of the derivative for GELU, SiLU and Mish, where an error e of the place changes the slope by O(e^2).
Slopes are enlarged by `MARGIN`. Largest slopes: GELU 1.1290, SiLU 1.0999, Mish 1.0885, Hardswish 1.5. LECTURE row E6.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[[Tensor], Tensor]
MARGIN = 1e-12
_FAR = 1e150  # stands for infinity: derivatives are 0 or 1 there to 1e-300


@dataclass(frozen=True)
class Piece:
    """An interval on which the derivative is monotone.

    Args:
        low: its left end; may be -inf.
        high: its right end; may be inf.
        derivative: on the closed piece: one-sided at its ends.
    """

    low: float
    high: float
    derivative: Function


@dataclass(frozen=True, eq=False)
class Curve:
    """A function of one number, applied to every coordinate; continuous.

    Args:
        name: of torch's operation.
        function: of tensors.
        pieces: that cover the line, left to right.
        turns: where the function itself turns from falling to rising or back.
        far: beyond it the derivative is constant in float64.
        kinks: where a piecewise linear curve bends; None for others.
    """

    name: str
    function: Function
    pieces: tuple[Piece, ...]
    turns: tuple[float, ...] = ()
    far: float = _FAR
    kinks: tuple[float, ...] | None = None

    def apply(self, x: Tensor) -> Tensor:
        """The function of x."""
        return self.function(x)

    def slopes(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest slope between any two points of [low, high], number by number."""
        least, most = torch.full_like(low, torch.inf), torch.full_like(low, -torch.inf)
        low, high = torch.broadcast_tensors(low, high)
        for piece in self.pieces:
            inside = (low <= piece.high) & (high >= piece.low)
            for end in (low, high):
                at = end.clamp(max(piece.low, -self.far), min(piece.high, self.far))
                slope = piece.derivative(at)
                least = torch.where(inside, torch.minimum(least, slope), least)
                most = torch.where(inside, torch.maximum(most, slope), most)
        return least - MARGIN * least.abs(), most + MARGIN * most.abs()

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """The least and the largest slope anywhere."""
        everything = torch.tensor(torch.inf, dtype=torch.float64)
        least, most = self.slopes(-everything, everything)
        return float(least.min()), float(most.max())

    @property
    def slope(self) -> float:
        """The Lipschitz constant: the largest absolute slope."""
        return max(abs(v) for v in self.limits)

    def range(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The least and largest value over [low, high], number by number."""
        ends = self.apply(low), self.apply(high)
        least, most = torch.minimum(*ends), torch.maximum(*ends)
        for turn in self.turns:
            at = self.apply(low.clamp(min=turn).clamp(max=turn))  # the value at the turn, in the shape of low
            inside = (low < turn) & (turn < high)
            least = torch.where(inside, torch.minimum(least, at), least)
            most = torch.where(inside, torch.maximum(most, at), most)
        slack = 1e-14 * (1 + least.abs() + most.abs())  # a turn is placed to rounding
        return (least - slack, most + slack) if self.turns else (least, most)


def _constant(value: float | Tensor) -> Function:
    return lambda x: torch.zeros_like(x) + value


def _straight(name: str, function: Function, slopes: tuple[float | Tensor, ...], kinks: tuple[float, ...]) -> Curve:
    """A piecewise linear curve; a slope may be a tensor, with a number for each channel."""
    ends = (-math.inf, *kinks, math.inf)
    pieces = tuple(Piece(a, b, _constant(s)) for a, b, s in zip(ends[:-1], ends[1:], slopes, strict=True))
    return Curve(name, function, pieces, turns=kinks, kinks=kinks)


def _cut(derivative: Function, *bends: float) -> tuple[Piece, ...]:
    """Pieces of one derivative between the places where it turns."""
    ends = (-math.inf, *bends, math.inf)
    return tuple(Piece(a, b, derivative) for a, b in pairwise(ends))


def _differentiated(function: Function) -> Function:
    """The derivative by automatic differentiation."""

    def derivative(x: Tensor) -> Tensor:
        return torch.func.vjp(function, x)[1](torch.ones_like(x))[0]

    return derivative


def _zero_of(function: Function, low: float, high: float) -> float:
    """A zero between two places of opposite sign, by bisection to the last digit."""

    def sign(at: float) -> bool:
        return bool(function(torch.tensor(at, dtype=torch.float64)) > 0)

    start = sign(low)
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if sign(middle) == start else (low, middle)
    return 0.5 * (low + high)


def leaky(slope: float | Tensor) -> Curve:
    """The identity above 0, slope x below; any slope, or a tensor of one for each channel."""
    return _straight("leaky_relu", lambda x: torch.where(x > 0, x, slope * x), (slope, 1.0), (0.0,))


def clamp(low: float, high: float) -> Curve:
    """min(max(x, low), high); a limit may be infinite."""
    ends = [(v, s) for v, s in ((low, 1.0), (high, 0.0)) if math.isfinite(v)]
    slopes = (1.0 if low == -math.inf else 0.0, *(s for _, s in ends))
    return _straight("clamp", lambda x: x.clamp(low, high), slopes, tuple(v for v, _ in ends))


def elu(alpha: float, scale: float = 1.0, input_scale: float = 1.0) -> Curve:
    """Scale x above 0, scale alpha (exp(input_scale x) - 1) below."""
    steep = scale * alpha * input_scale

    def function(x: Tensor) -> Tensor:
        return torch.where(x > 0, scale * x, scale * alpha * torch.expm1(input_scale * x.clamp_max(0)))

    pieces = Piece(-math.inf, 0.0, lambda x: steep * torch.exp(input_scale * x)), Piece(0.0, math.inf, _constant(scale))
    return Curve("elu", function, pieces, (0.0,) if steep < 0 else ())


def softplus(beta: float) -> Curve:
    """log(1 + exp(beta x)) / beta, without the shortcut for large x (which is off by exp(-20) / beta at most)."""

    def function(x: Tensor) -> Tensor:
        return torch.logaddexp(torch.zeros_like(x), beta * x) / beta

    return Curve("softplus", function, _cut(lambda x: torch.sigmoid(beta * x)))


@functools.cache
def gelu(approximate: str = "none") -> Curve:
    """The input times the normal distribution function of x, or torch's approximation of it by tanh."""

    def function(x: Tensor) -> Tensor:
        return F.gelu(x, approximate=approximate)

    def exact(x: Tensor) -> Tensor:
        return 0.5 * torch.erfc(-x / math.sqrt(2)) + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)

    if approximate == "none":
        return Curve("gelu", function, _cut(exact, -math.sqrt(2), math.sqrt(2)), (_zero_of(exact, -1.4, -0.1),))
    return _bent("gelu, tanh", function)


@functools.cache
def silu() -> Curve:
    """Swish: x sigmoid(x)."""
    return _bent("silu", F.silu)


@functools.cache
def mish() -> Curve:
    """Mish: x tanh(softplus(x))."""
    return _bent("mish", lambda x: x * torch.tanh(torch.logaddexp(torch.zeros_like(x), x)))


def _bent(name: str, function: Function) -> Curve:
    """A curve whose derivative falls, rises from below 0 to above 1, and falls again to 1."""
    derivative = _differentiated(function)
    second = _differentiated(derivative)
    bends = _zero_of(second, -5.0, -0.5), _zero_of(second, 0.5, 5.0)
    return Curve(name, function, _cut(derivative, *bends), (_zero_of(derivative, bends[0], 0.0),), 1e4)


@functools.cache
def hardswish() -> Curve:
    """Hard swish: x min(max(x + 3, 0), 6) / 6."""
    middle = Piece(-3.0, 3.0, lambda x: (2 * x + 3) / 6)
    pieces = Piece(-math.inf, -3.0, _constant(0.0)), middle, Piece(3.0, math.inf, _constant(1.0))
    return Curve("hardswish", F.hardswish, pieces, (-1.5,))


@functools.cache
def simple() -> dict[str, Curve]:
    """Curves without settings, by torch's name."""
    return {
        "silu": silu(),
        "mish": mish(),
        "hardswish": hardswish(),
        "hardsigmoid": _straight("hardsigmoid", F.hardsigmoid, (0.0, 1 / 6, 0.0), (-3.0, 3.0)),
        "selu": elu(1.6732632423543772848170429916717, 1.0507009873554804934193349852946),
        "log_sigmoid": Curve("log_sigmoid", F.logsigmoid, _cut(lambda x: torch.sigmoid(-x))),
        "atan": Curve("atan", torch.atan, _cut(lambda x: 1 / (1 + x * x), 0.0)),
        "erf": Curve("erf", torch.erf, _cut(lambda x: 2 / math.sqrt(math.pi) * torch.exp(-x * x), 0.0)),
    }  # fmt: skip


def softshrink(width: float) -> Curve:
    """Each number moved towards 0 by `width`, and 0 where it is nearer."""
    return _straight("softshrink", lambda x: F.softshrink(x, width), (1.0, 0.0, 1.0), (-width, width))
