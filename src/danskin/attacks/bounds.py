"""Where a perturbation may be: in the ball, with the point in the box; and the audit that it is."""

from __future__ import annotations

from torch import Tensor

from danskin.minmax import Box, Intersection, Set
from danskin.minmax.data_box import DataBox, box_for
from danskin.minmax.intersection import order_of
from danskin.minmax.rows import numbers

#: Any set of perturbations: a ball, or one of your own (docs/extending.md).
Ball = Set
_TOLERANCE = 1e-6  # of the audit, relative to the radius and absolute in the box


def perturbations(x: Tensor, ball: Ball, box: DataBox) -> Set:
    """Perturbations of x within the ball that stay in the box."""
    beside = box_for(box, x)
    if beside is None:
        return ball
    # inputs may leave the box by rounding: no perturbation is then still feasible
    return Intersection(ball, Box((beside[0] - x).clamp_max(0), (beside[1] - x).clamp_min(0)))


def audit_tolerance(ball: Ball) -> float:
    """By how much a point may leave the ball, relative to its radius or 1, whichever is more."""
    return _TOLERANCE if order_of(ball) is not None else 10 * _TOLERANCE


def in_bounds(ball: Ball, box: DataBox, delta: Tensor, x: Tensor) -> Tensor:
    """(batch,) bool: the audit. Delta is in the ball and x in the box, to 1e-6, and neither is NaN.

    A set of one's own may measure otherwise than an l_p ball what rounding does to x + delta: it is believed to 1e-5.
    """
    tolerance = audit_tolerance(ball)
    radius, beside = numbers(getattr(ball, "value", 1.0), delta), box_for(box, delta)
    inside = ball.violation(delta) <= tolerance * radius.clamp_min(1)
    return inside if beside is None else inside & (Box(*beside).violation(x.to(delta.dtype)) <= _TOLERANCE)
