"""Linear bounds of activations between given bounds of their inputs.

Each is  lower slope z + lower shift <= sigma(z) <= upper slope z + upper shift  for all z in [low, high].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from danskin.evaluation.certificates.windows import Window
from danskin.lipschitz.curves import Curve
from danskin.lipschitz.operations import Abs, Activation, MaxPool, Relu, Sigmoid, Sort, Spline, Tanh, total

Style = Literal["parallel", "adaptive"]


class Relaxation(Protocol):
    """What is below and above an activation, per example."""

    def pull(self, a: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c) with <a, sigma(z)> >= <b, z> + c.

        Args:
            a: (rows, *outputs).
            example: (rows,) whose bounds.
        """
        ...

    def rows(self, index: Tensor) -> Relaxation:
        """The relaxation of some examples."""
        ...


@dataclass(frozen=True, eq=False)
class Lines:
    """One line below and one above each neuron.

    Args:
        lower, upper: (n, *shape) slopes.
        below, above: (n, *shape) the lines' values at 0; None for 0.
    """

    lower: Tensor
    upper: Tensor
    below: Tensor | None
    above: Tensor | None

    def pull(self, a: Tensor, example: Tensor | None) -> tuple[Tensor, Tensor]:
        """Positive coefficients take the line below, negative ones the line above (None: row i has lines i)."""
        lines, constant = self if example is None else self.rows(example), a.new_zeros(len(a))
        if lines.above is not None:
            constant = constant + total(a.clamp_max(0) * lines.above)
        if lines.below is not None:
            constant = constant + total(a.clamp_min(0) * lines.below)
        if lines.lower is lines.upper:
            return a * lines.lower, constant
        return a * torch.where(a > 0, lines.lower, lines.upper), constant

    def rows(self, index: Tensor) -> Lines:
        """The lines of some examples."""
        return self._each(lambda v: v[index])

    def cut(self, window: Window, example: Tensor) -> Lines:
        """The lines in each row's window; 0 in the padding."""
        return self._each(lambda v: window.cut(v, example))

    def _each(self, function: Callable[[Tensor], Tensor]) -> Lines:
        lower = function(self.lower)
        upper = lower if self.upper is self.lower else function(self.upper)
        below, above = (None if v is None else function(v) for v in (self.below, self.above))
        return Lines(lower, upper, below, above)


@dataclass(frozen=True, eq=False)
class Winners:
    """Max pooling: below by one input of the window, above by it too where it always wins, else by a constant.

    Args:
        place: (n, *outputs) which input (flattened image) has the largest lower bound.
        above: (n, *outputs) the largest upper bound of the window.
        wins: (n, *outputs) 1 where the input at `place` is never below the others, else 0.
        size: (height, width) of the inputs.
    """

    place: Tensor
    above: Tensor
    wins: Tensor
    size: tuple[int, int]

    def pull(self, a: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients go to the chosen inputs; what is bounded by a constant goes nowhere."""
        wins = self.wins[example]
        passed = torch.where(a > 0, a, a * wins)
        b = a.new_zeros((*a.shape[:2], self.size[0] * self.size[1]))
        b = b.scatter_add(2, self.place[example].flatten(2), passed.flatten(2))
        return b.unflatten(2, self.size), total(a.clamp_max(0) * (1 - wins) * self.above[example])

    def rows(self, index: Tensor) -> Winners:
        """The choices of some examples."""
        return Winners(self.place[index], self.above[index], self.wins[index], self.size)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sorted pairs: max = (a + b + |a - b|) / 2 and min = (a + b - |a - b|) / 2, with lines of |a - b|.

    Args:
        dim: of the pair, counted from the end.
        descending: the larger one first.
        lines: of |a - b|, with one number in `dim`.
    """

    dim: int
    descending: bool
    lines: Lines

    def pull(self, a: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
        """Half of both coefficients to each input, and what |a - b| adds."""
        larger, smaller = a.split(1, self.dim) if self.descending else a.split(1, self.dim)[::-1]
        apart, constant = self.lines.pull(0.5 * (larger - smaller), example)
        both = 0.5 * (larger + smaller)
        return torch.cat([both + apart, both - apart], self.dim), constant

    def rows(self, index: Tensor) -> Pairs:
        """Those of some examples."""
        return Pairs(self.dim, self.descending, self.lines.rows(index))


@dataclass(frozen=True, eq=False)
class Constants:
    """Sorting of more than two: nothing but the least and the largest value is known.

    Args:
        low, high: (n, *shape).
    """

    low: Tensor
    high: Tensor

    def pull(self, a: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing goes on; the constant is what intervals say."""
        return torch.zeros_like(a), total(torch.where(a > 0, a * self.low[example], a * self.high[example]))

    def rows(self, index: Tensor) -> Constants:
        """Those of some examples."""
        return Constants(self.low[index], self.high[index])


def relax(activation: Activation, low: Tensor, high: Tensor, style: Style) -> Relaxation:
    """The relaxation of an activation whose inputs are in [low, high] (n, *shape).

    Args:
        activation: which.
        low: (n, *shape) at most its inputs.
        high: (n, *shape) at least its inputs.
        style: of the line below an undecided ReLU: "parallel" to the one above (Fast-Lin), or "adaptive":
            of slope 1 where high >= -low, else of the negative side's slope (CROWN).
    """
    if isinstance(activation, Relu):
        return _relu(activation.leak, low, high, style)
    if isinstance(activation, MaxPool):
        return _max_pool(activation, low, high)
    if isinstance(activation, Abs):
        return _absolute(low, high, style)
    if isinstance(activation, Sort):
        return _sorted(activation, low, high, style)
    if isinstance(activation, Spline):
        return _spline(activation, low, high)
    if isinstance(activation, Curve):
        return _sloped(activation, low, high)
    return _s_shaped(activation, low, high)


def _sorted(sort: Sort, low: Tensor, high: Tensor, style: Style) -> Relaxation:
    if low.shape[sort.dim] != 2:
        return Constants(sort.apply(low), sort.apply(high))
    (low_a, low_b), (high_a, high_b) = low.split(1, sort.dim), high.split(1, sort.dim)
    return Pairs(sort.dim, sort.descending, _absolute(low_a - high_b, high_a - low_b, style))


def _spline(spline: Spline, low: Tensor, high: Tensor) -> Lines:
    """Two lines of the chord's slope, through the furthest points below and above the chord: ends, or knots between."""
    width = high - low
    chord = (spline.apply(high) - spline.apply(low)) / width.clamp_min(1e-8)
    slope = torch.where(width > 1e-8, chord, 0.0)
    below, above = spline.range(low, high, slope)
    off = 1e-14 * (1 + below.abs() + above.abs() + (slope * high).abs() + (slope * low).abs())  # of rounding
    return Lines(slope, slope, below - off, above + off)


def _absolute(low: Tensor, high: Tensor, style: Style) -> Lines:
    """The chord above; below a line through 0, of the chord's slope ("parallel") or the longer side's ("adaptive")."""
    undecided = (low < 0) & (high > 0)
    side = torch.where(low >= 0, 1.0, -torch.ones_like(low))
    width = torch.where(undecided, high - low, 1.0)
    chord = torch.where(undecided, (high + low) / width, side)
    above = torch.where(undecided, -2 * low * (high / width), 0.0)
    if style == "parallel":
        return Lines(chord, chord, None, above)
    longer = torch.where(high >= -low, 1.0, -torch.ones_like(low))
    return Lines(torch.where(undecided, longer, side), chord, None, above)


def _relu(leak: float, low: Tensor, high: Tensor, style: Style) -> Lines:
    """The chord above; below a line through 0 with a slope between `leak` and 1.

    Reference: Weng et al., ICML 2018, section 3.3 (parallel); Zhang et al., NeurIPS 2018, section 3.2 (adaptive).
    """
    undecided = (low < 0) & (high > 0)
    width = torch.where(undecided, high - low, 1.0)
    leaks = torch.full_like(low, leak)  # in float64, as a number by itself would not be
    side = leaks.masked_fill(low >= 0, 1.0)
    chord = torch.where(undecided, (high - leak * low) / width, side)
    above = torch.where(undecided, -low * (1 - leak) * (high / width), 0.0)
    if style == "parallel":
        return Lines(chord, chord, None, above)
    steeper = leaks.masked_fill(high >= -low, 1.0)
    return Lines(torch.where(undecided, steeper, side), chord, None, above)


def _s_shaped(activation: Sigmoid | Tanh, low: Tensor, high: Tensor) -> Lines:
    """Chord and tangent where the interval is on one side of 0; else two lines of the least slope at its ends.

    The derivative rises up to 0 and falls after, so over an interval it is least at an end: lines of that slope
    through the left end (below) and the right end (above) are bounds.
    """
    f, d = activation.apply, activation.derivative
    bottom, top, middle = f(low), f(high), 0.5 * (low + high)
    least = torch.minimum(d(low), d(high))
    width = high - low
    chord = torch.where(width > 1e-8, (top - bottom) / width.clamp_min(1e-8), least)
    tangent = d(middle)
    concave, convex = low >= 0, high <= 0
    # a chord touches both ends but for rounding: take the end where it is lower (below) or higher (above)
    lower = torch.where(concave, chord, torch.where(convex, tangent, least))
    upper = torch.where(convex, chord, torch.where(concave, tangent, least))
    at_middle = f(middle) - tangent * middle
    ends = bottom - lower * low, top - lower * high
    below = torch.where(convex, at_middle, torch.where(concave, torch.minimum(*ends), ends[0]))
    ends = bottom - upper * low, top - upper * high
    above = torch.where(concave, at_middle, torch.where(convex, torch.maximum(*ends), ends[1]))
    return Lines(lower, upper, below, above)


def _sloped(curve: Curve, low: Tensor, high: Tensor) -> Lines:
    r"""Two parallel lines from the range [a, b] of the slope over the interval.

    With s = (a + b) / 2 and the middle m: \|f(z) - f(m) - s (z - m)\| <= (b - a) / 2 \|z - m\|.
    """
    least, most = curve.slopes(low, high)
    slope, middle = 0.5 * (least + most), 0.5 * (low + high)
    off, constant = 0.25 * (most - least) * (high - low), curve.apply(middle) - slope * middle
    off = off + 1e-14 * (1 + constant.abs())  # of rounding
    return Lines(slope, slope, constant - off, constant + off)


def _max_pool(pool: MaxPool, low: Tensor, high: Tensor) -> Winners:
    place = pool.winners(low)
    above = pool.apply(high)
    flat = place.flatten(2)
    others = [(v.flatten(2).gather(2, flat).view(place.shape)) for v in (low, high)]  # low and high of the chosen input
    # it always wins if its low is the largest high of the others; windows overlap, so ask window by window
    wins = _runner_up(pool, high, place) <= others[0]
    return Winners(place, above, wins.to(low), (low.shape[2], low.shape[3]))


def _runner_up(pool: MaxPool, high: Tensor, place: Tensor) -> Tensor:
    """The largest upper bound in each window without the input at `place`."""
    height, width = high.shape[2:]
    numbers = torch.arange(height * width, device=high.device, dtype=high.dtype).view(1, 1, height, width)
    best = torch.full(place.shape, -torch.inf, dtype=high.dtype, device=high.device)
    bottom, right = (
        (o - 1) * s + (k - 1) * d + 1 - m - p
        for o, s, k, d, m, p in zip(
            place.shape[2:], pool.stride, pool.kernel, pool.dilation, (height, width), pool.padding, strict=True
        )
    )
    around = (pool.padding[1], max(right, 0), pool.padding[0], max(bottom, 0))
    padded = torch.nn.functional.pad(high, around, value=-torch.inf)
    named = torch.nn.functional.pad(numbers, around, value=-1.0)
    for i in range(pool.kernel[0]):
        for j in range(pool.kernel[1]):
            rows = slice(i * pool.dilation[0], None, pool.stride[0])
            columns = slice(j * pool.dilation[1], None, pool.stride[1])
            value = padded[:, :, rows, columns][:, :, : place.shape[2], : place.shape[3]]
            name = named[:, :, rows, columns][:, :, : place.shape[2], : place.shape[3]]
            best = torch.maximum(best, torch.where(name == place, -torch.inf, value))
    return best
