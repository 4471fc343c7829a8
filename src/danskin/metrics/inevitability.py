r"""Adversarial examples are inevitable in high dimension: bounds that hold for every classifier.

Draw x from a class c whose density is at most `density` times the uniform one, on the unit sphere S^(d-1) in
R^d or on the cube [0, 1]^d, and let the classifier give the label c to a share of at most 1/2 of the space.
Then x is misclassified, or has a point of another label within `radius`, with at least the probability below.
(Of two classes at least one is given to no more than half of the space; of C, one to at most 1/C.)

Both rest on isoperimetry: of all sets of a given measure, the one whose neighbourhood is smallest is a cap
(sphere, Levy) or at least as large as a Gaussian half-space's (cube). With form="isoperimetric" the bounds
are these inequalities themselves. With form="closed" they are the published closed forms,

    sphere:  1 - V sqrt(pi / 8) exp(-(d - 1) eps^2 / 2)                                  (V: density)
    cube:    1 - U exp(-pi eps^2 d^(1 - 2/q)) / (2 pi eps d^(1/2 - 1/q)),  q = min(p, 2)   (U: density)

which are weaker. What is checked here: the cube's follows from the map of the Gaussian to the uniform law by
its distribution function, whose slope is at most 1 / sqrt(2 pi), and from Q(t) <= exp(-t^2/2) / (t sqrt(2 pi)).
The sphere's follows from the cap of angle eps beyond the equator having measure at most exp(-(d-1) eps^2/2) / 2
(its product with exp((d-1) eps^2/2) falls in eps, because eps <= tan eps); so sqrt(pi/8) = 0.627 may be 1/2.
The closed forms are those of the paper as secondary sources print them (sphere) and as recalled (cube); the
numbering of its theorems was not re-checked.

Reference: Shafahi, Huang, Studer, Feizi and Goldstein, "Are adversarial examples inevitable?", ICLR 2019.
Lecture: row B8.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import torch

from danskin.errors import InputError

Form = Literal["isoperimetric", "closed"]


def cap_measure(dimension: int, angle: float) -> float:
    """The share of the unit sphere in R^d within `angle` (radians, 0 to pi) of a fixed point of it.

    integral of sin(t)^(d-2) from 0 to angle, over the same from 0 to pi.

    >>> round(cap_measure(3, math.pi / 3), 12)  # Archimedes: (1 - cos angle) / 2
    0.25
    """
    if dimension < 2 or not 0 <= angle <= math.pi:
        raise InputError(
            f"cap_measure: expected dimension >= 2 and an angle in [0, pi], got {dimension} and {angle}; correct them"
        )
    if angle > math.pi / 2:
        return 1 - cap_measure(dimension, math.pi - angle)
    if angle == 0:
        return 0.0
    power = dimension - 2
    length = angle
    if power:  # log sin is concave with second derivative <= -1: further out the integrand is below exp(-50) of its end
        length = min(angle, math.sqrt(100 / power), 50 * math.tan(angle) / power)
    t = torch.linspace(angle - length, angle, 4001, dtype=torch.float64)
    log = power * (t.sin().clamp_min(1e-300).log() - math.log(math.sin(angle)))
    weight = torch.full_like(t, 2.0)
    weight[1::2] = 4.0
    weight[0] = weight[-1] = 1.0
    integral = float((log.exp() * weight).sum()) * length / (3 * (len(t) - 1))  # Simpson
    log_total = 0.5 * math.log(math.pi) + math.lgamma((dimension - 1) / 2) - math.lgamma(dimension / 2)
    return integral * math.exp(power * math.log(math.sin(angle)) - log_total)


def _check(radius: float, density: float, share: float, form: str) -> None:
    if not radius >= 0 or not density > 0:
        raise InputError(
            f"bound: expected a radius >= 0 and a density above 0, got {radius} and {density}; a class that is "
            "uniform on half of the space has density 2"
        )
    if not 0 < share <= 0.5:
        raise InputError(
            f"share: expected a number in (0, 1/2], got {share}; the bound is for a class given to at most half of "
            "the space"
        )
    if form not in ("isoperimetric", "closed"):
        raise InputError(f"form: expected 'isoperimetric' or 'closed', got {form!r}; pick one")


def sphere_bound(
    dimension: int, radius: float, density: float = 1.0, *, share: float = 0.5, form: Form = "isoperimetric"
) -> float:
    """Least probability of an error or of an adversarial example within geodesic distance `radius` on S^(d-1).

    Args:
        dimension: d of the space R^d around the sphere, >= 2.
        radius: eps in radians; a straight distance r <= 2 is the angle 2 asin(r / 2) >= r.
        density: V: largest density of the class relative to the uniform one.
        share: of the sphere that the classifier gives to the class, at most 1/2 (used by the isoperimetric form;
            the closed one is that for 1/2).
        form: see the module.

    Returns:
        The probability; 0 where the bound says nothing.

    >>> round(sphere_bound(100, 0.3, density=2), 3), round(sphere_bound(100, 0.3, density=2, form="closed"), 3)
    (0.997, 0.985)
    """
    _check(radius, density, share, form)
    if form == "closed":
        if dimension < 2:
            raise InputError(f"sphere_bound: expected dimension >= 2, got {dimension}; S^1 is the smallest sphere")
        return max(0.0, 1 - density * math.sqrt(math.pi / 8) * math.exp(-(dimension - 1) * radius**2 / 2))
    edge = math.pi / 2 if share == 0.5 else _cap_angle(dimension, share)
    return max(0.0, 1 - density * cap_measure(dimension, max(edge - radius, 0.0)))


def _cap_angle(dimension: int, share: float) -> float:
    """The angle of the cap with this measure, by bisection."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cap_measure(dimension, middle) < share else (low, middle)
    return high


def cube_bound(
    dimension: int,
    radius: float,
    density: float = 1.0,
    *,
    order: float = 2.0,
    share: float = 0.5,
    form: Form = "isoperimetric",
) -> float:
    """Least probability of an error or of an adversarial example within l_p distance `radius` in [0, 1]^d.

    For p >= 2 the bound does not depend on d; relative to the cube's l2 diameter sqrt(d) the same radius shrinks.
    The perturbed point stays in the cube.

    Args:
        dimension: d.
        radius: eps in the l_p norm.
        density: U: largest density of the class on the cube.
        order: p >= 1, or inf.
        share: of the cube that the classifier gives to the class, at most 1/2 (isoperimetric form only).
        form: see the module.

    Returns:
        The probability; 0 where the bound says nothing.

    >>> round(cube_bound(784, 1.0, density=2), 3), round(cube_bound(784, 1.0, density=2, form="closed"), 3)
    (0.988, 0.986)
    """
    _check(radius, density, share, form)
    if dimension < 1 or not order >= 1:
        raise InputError(
            f"cube_bound: expected dimension >= 1 and order >= 1, got {dimension} and {order}; correct them"
        )
    # a point within r in l2 is within r d^(1/p - 1/2) in l_p for p <= 2, and within r for p >= 2
    straight = radius * dimension ** (0.5 - 1 / min(order, 2.0))
    if form == "closed":
        if straight == 0:
            return 0.0
        return max(0.0, 1 - density * math.exp(-math.pi * straight**2) / (2 * math.pi * straight))
    normal = NormalDist()
    return max(0.0, 1 - density * normal.cdf(normal.inv_cdf(share) - math.sqrt(2 * math.pi) * straight))
