"""Constraints by the names they go by in recipes."""

from __future__ import annotations

from danskin.gan.constraint import Constraint, Unconstrained, WeightClip
from danskin.gan.layered import Orthogonal, Spectral, Spline
from danskin.gan.penalties import R1R2, GradientPenalty

CONSTRAINTS: dict[str, type[Constraint]] = {
    "none": Unconstrained,
    "clip": WeightClip,
    "gradient_penalty": GradientPenalty,
    "r1r2": R1R2,
    "spectral": Spectral,
    "orthogonal": Orthogonal,
    "spline": Spline,
}
