"""Robust accuracy against the radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.attacks.bounds import Ball
from danskin.errors import InputError
from danskin.evaluation.evaluate import Model, evaluate
from danskin.inputs import class_numbers
from danskin.metrics import Share
from danskin.minmax.measured import grown, of_one_radius, radius_of
from danskin.minmax.reading import read_ball
from danskin.minmax.rows import rows_of

FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class CurvePoint:
    """Robust accuracy at one radius.

    Args:
        radius: in the data's units.
        accuracy: of all examples.
    """

    radius: float
    accuracy: Share

    def to_dict(self) -> dict[str, Any]:
        """As in verdict.json."""
        return {"radius": self.radius, "accuracy": self.accuracy.to_dict()}


def robustness_curve(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball | str,
    *,
    factors: Sequence[float] = FACTORS,
    suite: str = "fast",
    **options: Any,
) -> tuple[CurvePoint, ...]:
    """Robust accuracy at multiples of a radius, clean accuracy first.

    What a smaller ball broke counts as broken in a larger one, which contains it: so the curve never rises, and a
    radius costs only the examples that are left.

    Args:
        model: see `evaluate`.
        x: (n, ...) inputs.
        y: (n,) labels.
        ball: with one radius.
        factors: > 0.
        suite: by name.
        options: further ones of `evaluate`.
    """
    given: Ball = read_ball(ball)
    if isinstance(getattr(given, "value", None), Tensor) or any(f <= 0 for f in factors):
        raise InputError("curve: expected one radius and factors > 0, got others; pass a ball with a number")
    y = class_numbers(y, len(x))
    points: list[CurvePoint] = []
    left = torch.arange(len(y))
    given = of_one_radius(given, left, x)
    for factor in sorted(factors):
        radius = float(radius_of(given)) * factor
        if len(left):
            at = grown(rows_of(given, left), radius)
            found = evaluate(model, (x[left], y[left]), at, suite, diagnostics=0, **options)
            if not points:
                points.append(CurvePoint(0.0, Share(found.clean.hits, len(y))))
            left = left[found.outcomes]
        points.append(CurvePoint(radius, Share(len(left), len(y))))
    return tuple(points)
