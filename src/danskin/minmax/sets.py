"""The sets Y that an adversary moves in: balls, boxes, the simplex, and ball with box.

Every set is batched over dim 0 and offers the same few things (`Set`). Balls are centred at 0: they hold
perturbations. A radius may be a number, a text such as ``"8/255"`` (which is how it prints) or a tensor
with one radius per example. LECTURE row B1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import projections
from danskin.minmax.number import Number, number
from danskin.minmax.random import Streams
from danskin.minmax.rows import cut


@runtime_checkable
class Set(Protocol):
    """A closed convex set, one copy of it per row of a batch.

    `norm` is the norm the set measures steps in, `dual_norm` its dual; both return (batch,).
    """

    def project(self, y: Tensor) -> Tensor:
        r"""Argmin over q in Y of \|q - y\|_2, exactly."""
        ...

    def lmo(self, g: Tensor) -> Tensor:
        """Argmax over q in Y of <g, q>, exactly (the linear maximiser)."""
        ...

    def steepest(self, g: Tensor) -> Tensor:
        r"""Argmax over \|d\| <= 1 of <g, d> in the set's own norm; 0 where g is 0."""
        ...

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Random points of the set, shaped as `like`; uniform unless the set says otherwise."""
        ...

    def violation(self, y: Tensor) -> Tensor:
        """(batch,): by how much y leaves the set; 0 inside, inf where y is NaN."""
        ...

    def norm(self, y: Tensor) -> Tensor:
        """(batch,): the set's own norm."""
        ...

    def dual_norm(self, g: Tensor) -> Tensor:
        """(batch,): the dual of the set's own norm."""
        ...

    def rows(self, index: Tensor) -> Set:
        """The same set for some rows of the batch."""
        ...


def rowwise(value: float | Tensor, like: Tensor) -> Any:
    """One number per row, shaped to broadcast against `like`; a plain number stays one."""
    if not isinstance(value, Tensor):
        return value
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1))


def _as(value: Any, like: Tensor) -> Tensor:
    """A number or tensor in the dtype and on the device of `like` (a number without passing float32)."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def vector_norm(y: Tensor, order: float) -> Tensor:
    """(batch,): the l_order norm of each row, summed in float64 for orders 1 and 2."""
    if y.ndim < 2:
        y = y.reshape(len(y), 1)
    dims = tuple(range(1, y.ndim))
    if y.numel() == 0:
        return y.new_zeros(len(y))
    if order == math.inf:
        flat = projections.flatten(y)
        return torch.maximum(-flat.amin(1), flat.amax(1))  # two passes of a tenth of aminmax's on a CPU each
    wide = y.dtype if y.device.type == "mps" else torch.float64
    return torch.linalg.vector_norm(y, order, dims, dtype=wide).to(y.dtype)


def _excess(value: Tensor) -> Tensor:
    return value.clamp_min(0).nan_to_num(nan=math.inf)


def _one_hot_largest(size: Tensor, value: Tensor) -> Tensor:
    """`value` at the largest entry of `size` in each row (the first of equals), 0 elsewhere."""
    flat = projections.flatten(size)
    if not flat.numel():
        return torch.zeros_like(size)
    at = flat.argmax(1, keepdim=True)
    picked = projections.flatten(value).gather(1, at)
    return torch.zeros_like(flat).scatter_(1, at, picked).view(size.shape)


def _unit_l2(g: Tensor) -> Tensor:
    r"""G / \|g\|_2 per row, 0 where g is 0, right for gradients as small as 1e-38."""
    largest = rowwise(vector_norm(g, math.inf), g)
    scaled = g / torch.where(largest > 0, largest, 1.0)
    return scaled / rowwise(vector_norm(scaled, 2), g).clamp_min(1e-30)


@dataclass(frozen=True)
class _Ball:
    """What the three balls share: a radius."""

    radius: Number

    def __post_init__(self) -> None:
        value = torch.as_tensor(self.value)
        if value.ndim > 1 or not bool(((value >= 0) & value.isfinite()).all()):
            raise InputError(
                f"{type(self).__name__}.radius: expected a finite number >= 0, such as 0.5 or '8/255', or a "
                f"tensor with one per example, got {self.radius!r}; give the radius in the data's own units"
            )

    @cached_property
    def value(self) -> Any:
        """The radius as a number or a (batch,) tensor."""
        return number(self.radius)

    def _check(self, y: Tensor) -> None:
        if isinstance(self.value, Tensor) and self.value.ndim == 1 and len(self.value) not in (1, len(y)):
            raise InputError(
                f"{type(self).__name__}.radius: expected one radius for each of {len(y)} examples, "
                f"got {len(self.value)}; use one number for all, or a tensor of shape ({len(y)},)"
            )

    def norm(self, y: Tensor) -> Tensor:
        """(batch,): the ball's norm."""
        raise NotImplementedError

    def violation(self, y: Tensor) -> Tensor:
        """norm(y) - radius, cut at 0."""
        return _excess(self.norm(y) - self.value)

    def rows(self, index: Tensor) -> Any:
        """The same ball for some rows."""
        return cut(self, index)


@dataclass(frozen=True)
class Linf(_Ball):
    r"""\|y\|_inf <= radius.

    >>> Linf("8/255")
    Linf(radius='8/255')
    """

    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The least and largest value of each coordinate, shaped to broadcast against y."""
        self._check(y)
        r = _as(rowwise(self.value, y), y)
        return -r, r

    def project(self, y: Tensor) -> Tensor:
        """Clip each coordinate to [-radius, radius]."""
        return y.clamp(*self.bounds(y))

    def lmo(self, g: Tensor) -> Tensor:
        """Radius sign(g): the fast gradient sign."""
        self._check(g)
        return rowwise(self.value, g) * g.sign()

    def steepest(self, g: Tensor) -> Tensor:
        """sign(g)."""
        return g.sign()

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform in the cube."""
        return generator.uniform(like).mul_(2).sub_(1).mul_(rowwise(self.value, like))

    def norm(self, y: Tensor) -> Tensor:
        """The l_inf norm."""
        return vector_norm(y, math.inf)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l1 norm."""
        return vector_norm(g, 1)


@dataclass(frozen=True)
class L2(_Ball):
    r"""\|y\|_2 <= radius."""

    def project(self, y: Tensor) -> Tensor:
        """Scale back to the radius where the norm is larger."""
        self._check(y)
        n = self.norm(y)
        return y * rowwise(torch.where(n > self.value, self.value / n.clamp_min(1e-30), 1.0), y)

    def lmo(self, g: Tensor) -> Tensor:
        r"""Radius g / \|g\|_2."""
        self._check(g)
        return rowwise(self.value, g) * _unit_l2(g)

    def steepest(self, g: Tensor) -> Tensor:
        r"""G / \|g\|_2."""
        return _unit_l2(g)

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform in the ball: a uniform direction and the radius times U^(1/d)."""
        d = max(math.prod(like.shape[1:]), 1)
        u = generator.child(1).uniform(like.new_empty(len(like), 1)).view(-1)
        return _unit_l2(generator.child(0).normal(like)) * rowwise(u ** (1 / d) * self.value, like)

    def norm(self, y: Tensor) -> Tensor:
        """The l2 norm."""
        return vector_norm(y, 2)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l2 norm."""
        return vector_norm(g, 2)


@dataclass(frozen=True)
class L1(_Ball):
    r"""\|y\|_1 <= radius."""

    def project(self, y: Tensor) -> Tensor:
        """Soft thresholding at the level that meets the radius (`projections.project_l1`)."""
        self._check(y)
        return projections.project_l1(y, self.value)

    def lmo(self, g: Tensor) -> Tensor:
        """All of the radius on the coordinate with the largest |g|."""
        self._check(g)
        return rowwise(self.value, g) * self.steepest(g)

    def steepest(self, g: Tensor) -> Tensor:
        """sign(g) at the largest |g|, 0 elsewhere."""
        return _one_hot_largest(g.abs(), g.sign())

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform in the ball: +-radius E_i / (E_1 + ... + E_{d+1}) with independent exponentials."""
        last = generator.child(1).exponential(like.new_empty(len(like), 1)).view(-1)
        e = generator.child(0).exponential(like)
        total = projections.flatten(e).sum(1) + last
        return e * generator.child(2).sign(like) * rowwise(self.value / total, like)

    def norm(self, y: Tensor) -> Tensor:
        """The l1 norm."""
        return vector_norm(y, 1)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l_inf norm."""
        return vector_norm(g, math.inf)


@dataclass(frozen=True, eq=False)
class Box:
    """low <= y <= high, coordinate by coordinate; numbers, or tensors that broadcast against y.

    Its own norm is l_inf.
    """

    low: float | Tensor
    high: float | Tensor

    def __post_init__(self) -> None:
        if not bool((torch.as_tensor(self.low) <= torch.as_tensor(self.high)).all()):
            raise InputError("Box: expected low <= high everywhere, got low > high; swap the bounds")

    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The bounds as tensors in the dtype of y."""
        return _as(self.low, y), _as(self.high, y)

    def project(self, y: Tensor) -> Tensor:
        """Clip to [low, high]."""
        return torch.clamp(y, *self.bounds(y))

    def lmo(self, g: Tensor) -> Tensor:
        """High where g > 0, low where g < 0, the point nearest to 0 where g = 0."""
        low, high = self.bounds(g)
        best = torch.where(g > 0, high, torch.where(g < 0, low, self.project(torch.zeros_like(g))))
        if not bool(best.isfinite().all()):
            raise InputError("Box.lmo: expected finite bounds, got an unbounded box; bound it, or use project")
        return best

    def steepest(self, g: Tensor) -> Tensor:
        """sign(g)."""
        return g.sign()

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform between the bounds, which must be finite."""
        low, high = self.bounds(like)
        return self.project(low + (high - low) * generator.uniform(like))

    def violation(self, y: Tensor) -> Tensor:
        """The largest excess over a bound."""
        if not y.numel():
            return y.new_zeros(len(y))
        low, high = self.bounds(y)
        if low.ndim == high.ndim == 0:  # the extremes of a row tell, without a tensor of its size
            flat = projections.flatten(y)
            return _excess(torch.maximum(low - flat.amin(1), flat.amax(1) - high))
        outside = torch.maximum(low - y, y - high)
        return _excess(projections.flatten(outside).amax(1))

    def norm(self, y: Tensor) -> Tensor:
        """The l_inf norm."""
        return vector_norm(y, math.inf)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l1 norm."""
        return vector_norm(g, 1)

    def rows(self, index: Tensor) -> Box:
        """The same box for some rows; only tensors with more than one row are cut."""

        def cut(bound: Any) -> Any:
            return (
                bound[index.to(bound.device)] if isinstance(bound, Tensor) and bound.ndim and len(bound) > 1 else bound
            )

        return Box(cut(self.low), cut(self.high))


@dataclass(frozen=True)
class Simplex:
    """y >= 0 and the sum of y is `total`: class weights, mixtures. Its own norm is l1."""

    total: Number = 1.0

    def __post_init__(self) -> None:
        value = torch.as_tensor(self.value)
        if value.ndim > 1 or not bool(((value >= 0) & value.isfinite()).all()):
            raise InputError(
                f"Simplex.total: expected a finite number >= 0, or a tensor with one per row, got {self.total!r}; "
                "use 1 for class weights"
            )

    @cached_property
    def value(self) -> Any:
        """The total as a number or a (batch,) tensor."""
        return number(self.total)

    def project(self, y: Tensor) -> Tensor:
        """max(y - t, 0) with the t that meets the total."""
        return projections.project_simplex(y, self.value)

    def lmo(self, g: Tensor) -> Tensor:
        """All weight on the largest g: "the worst class"."""
        return rowwise(self.value, g) * _one_hot_largest(g, torch.ones_like(g))

    def steepest(self, g: Tensor) -> Tensor:
        """sign(g) at the largest |g|, 0 elsewhere."""
        return _one_hot_largest(g.abs(), g.sign())

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform: exponentials over their sum (the flat Dirichlet distribution)."""
        e = generator.exponential(like)
        return e * rowwise(self.value / projections.flatten(e).sum(1), like)

    def violation(self, y: Tensor) -> Tensor:
        """The larger of |sum y - total| and the most negative weight."""
        flat = projections.flatten(y)
        return _excess(torch.maximum((flat.sum(1) - self.value).abs(), -flat.amin(1)))

    def norm(self, y: Tensor) -> Tensor:
        """The l1 norm."""
        return vector_norm(y, 1)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l_inf norm."""
        return vector_norm(g, math.inf)

    def rows(self, index: Tensor) -> Simplex:
        """The same simplex for some rows."""
        return cut(self, index)


@dataclass(frozen=True, eq=False)
class Intersection:
    """A ball cut with a box that holds 0: perturbations within the budget that stay valid data.

    Projection and linear maximiser are exact for all three balls (for l1 and l2 they are not the
    composition of the two projections).
    """

    ball: Linf | L2 | L1
    box: Box

    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Each coordinate's least and largest value in ball and box, shaped as y; made once."""
        made = self.__dict__.setdefault("_bounds", {})
        key = (y.shape, y.dtype, y.device)
        if key not in made:
            self.ball._check(y)
            low, high = _as(self.box.low, y), _as(self.box.high, y)
            if low.numel() and not bool((low.amax() <= 0) & (high.amin() >= 0)):
                raise InputError("Intersection: expected a box that holds 0, got one that does not; shift it")
            r = _as(rowwise(self.ball.value, y), y)
            made[key] = torch.maximum(low, -r).expand_as(y), torch.minimum(high, r).expand_as(y)
        return made[key]

    def project(self, y: Tensor) -> Tensor:
        """The nearest point of ball and box."""
        low, high = self.bounds(y)
        if isinstance(self.ball, Linf):
            return y.clamp(low, high)
        if isinstance(self.ball, L2):
            return projections.stretch_l2_box(y, self.ball.value, low, high, most=1.0)
        return projections.project_l1_box(y, self.ball.value, low, high)

    def lmo(self, g: Tensor) -> Tensor:
        """The best point of ball and box for a linear payoff."""
        low, high = self.bounds(g)
        if isinstance(self.ball, Linf):
            return torch.where(g > 0, high, torch.where(g < 0, low, torch.zeros_like(g)))
        if isinstance(self.ball, L2):
            return projections.stretch_l2_box(g, self.ball.value, low, high, most=math.inf)
        return projections.lmo_l1_box(g, self.ball.value, low, high)

    def steepest(self, g: Tensor) -> Tensor:
        """The ball's steepest direction."""
        return self.ball.steepest(g)

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """A uniform point of the ball, projected: as in the field, not uniform in the intersection."""
        return self.project(self.ball.sample(like, generator))

    def violation(self, y: Tensor) -> Tensor:
        """The larger violation of ball and box."""
        return torch.maximum(self.ball.violation(y), self.box.violation(y))

    def norm(self, y: Tensor) -> Tensor:
        """The ball's norm."""
        return self.ball.norm(y)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The dual of the ball's norm."""
        return self.ball.dual_norm(g)

    def rows(self, index: Tensor) -> Intersection:
        """The same intersection for some rows."""
        return Intersection(self.ball.rows(index), self.box.rows(index))
