"""Attacks that follow the gradient: FGSM, PGA, PGD, majorisation-minimisation. Constructors only.

Each is a set, a payoff and a maximiser of the spine. LECTURE rows B2 to B6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from danskin.attacks.attack import Attack
from danskin.errors import InputError
from danskin.minmax import Ascent, Maximizer, Number, Restarts, Vertex, number
from danskin.minmax import MajorizeMinimize as _MajorizeMinimize
from danskin.minmax.intersection import order_of
from danskin.minmax.maximize import Schedule
from danskin.minmax.search import Keep
from danskin.minmax.sets import is_cube


@dataclass(frozen=True)
class FGSM(Attack):
    """The fast gradient sign method: delta = argmax over ball and box of <grad loss(x), delta>.

    For `Linf` that is radius * sign(grad), cut at the box; for `L2` and `L1` its exact counterparts. One
    forward and backward pass, and one forward pass to judge the outcome.

    Reference: Goodfellow, Shlens and Szegedy, ICLR 2015. Lecture: row B2. Prefer `PGD` to measure
    robustness: a model can be trained to resist FGSM and nothing else (row C10).
    """

    moves: ClassVar[str] = "one linear maximiser"

    def maximizer(self) -> Maximizer:
        """One linear maximiser."""
        return Vertex()


@dataclass(frozen=True)
class PGA(Attack):
    """Proximal gradient ascent with the true gradient: delta <- project(delta + a_k grad loss(x + delta)).

    Args:
        ball: the perturbation ball.
        steps: gradients taken.
        step: a_0. Gradients of images are about 1e-3 to 1e-6 per pixel, so it must be large.
        schedule: a_k / a_0: "constant", "inverse_sqrt", "inverse", "linear", "cosine".
        random_start: begin at a random point of the ball.
        restarts: runs from independent random starts; the best is kept per example.
        keep: "best" point visited (adversarial first, then by loss), best by "value" alone, or the "last".
        stop: leave an example as soon as it is adversarial.

    With delta = 0 at the start and a_0 |grad_i| > radius for all i, one step is FGSM (row B5).
    Lecture: row B3.
    """

    moves: ClassVar[str] = "projected ascent, true gradient"

    steps: int = 10
    step: Number = 1000.0
    schedule: Schedule = "constant"
    random_start: bool = False
    restarts: int = 1
    keep: Keep = "best"
    stop: bool = False

    def maximizer(self) -> Maximizer:
        """Projected ascent along the gradient."""
        step = number(self.step, radius=self.radius, steps=self.steps)
        ascent = Ascent(
            self.steps,
            step,
            direction="gradient",
            schedule=self.schedule,
            random_start=self.random_start,
            keep=self.keep,
            stop=self.stop,
        )
        return _restarted(ascent, self.restarts, self.random_start, self.keep, self.stop)


@dataclass(frozen=True)
class PGD(Attack):
    """Projected steepest ascent, "PGD" as practised: delta <- project(delta + a_k d_k).

    d_k is the sign of the gradient for `Linf` and the normalised gradient for `L2`. For `L1` it is sparse: the
    signs of the largest 1 - quantile share of the coordinates that still have room, with l1 norm 1.

    Args:
        ball: the perturbation ball.
        steps: gradients taken.
        step: a_0: a number, or a text such as "2/255" or "radius/4"; default 2.5 * radius / steps.
        schedule: a_k / a_0: "constant", "inverse_sqrt", "inverse", "linear", "cosine".
        random_start: begin uniformly in the ball (cut at the box), instead of at the clean input.
        start_noise: begin at start_noise * N(0, 1) instead (TRADES and MART: 0.001; at the clean input a divergence
            from it has no gradient to follow).
        restarts: runs from independent random starts; the best is kept per example.
        keep: "best" point visited (adversarial first, then by loss), best by "value" alone, or the "last".
        stop: leave an example as soon as it is adversarial: as many successes for less work.
        first: "vertex" makes the first step a full linear maximiser (FGSM), "step" an ordinary one; default:
            "step" for `Linf`, "vertex" for `L2` and `L1`, which makes them exact for linear models.
        quantile: share of coordinates an l1 step leaves alone.

    Reference: Madry et al., ICLR 2018; for l1 Tramer and Boneh, NeurIPS 2019. Lecture: row B4.
    """

    moves: ClassVar[str] = "projected ascent, steepest direction"
    anywhere: ClassVar[bool] = True

    steps: int = 10
    step: Number | None = None
    schedule: Schedule = "constant"
    random_start: bool = True
    restarts: int = 1
    keep: Keep = "best"
    stop: bool = False
    first: str | None = None
    quantile: float = 0.99
    start_noise: float | None = None

    def maximizer(self) -> Maximizer:
        """Projected ascent along the steepest direction."""
        if self.steps < 1:
            raise InputError(f"PGD.steps: expected at least 1, got {self.steps}; use 1 for a single step")
        step = number("2.5*radius/steps" if self.step is None else self.step, radius=self.radius, steps=self.steps)
        first = self.first or ("step" if is_cube(self.ball) else "vertex")
        if first not in ("step", "vertex"):
            raise InputError(f"PGD.first: expected 'step' or 'vertex', got {first!r}; leave it out for the default")
        ascent = Ascent(
            self.steps,
            step,
            direction="sparse" if order_of(self.ball) == 1 else "steepest",
            schedule=self.schedule,
            first=first,  # type: ignore[arg-type]
            random_start=self.random_start,
            start_noise=self.start_noise,
            quantile=self.quantile,
            keep=self.keep,
            stop=self.stop,
        )
        return _restarted(ascent, self.restarts, self.random_start, self.keep, self.stop)


@dataclass(frozen=True)
class MajorizeMinimize(Attack):
    """Ascent without a step size: each step maximises the lower bound that smoothness gives.

    The loss never falls from step to step; the constant is found by a line search per example
    (`danskin.minmax.MajorizeMinimize`).

    Args:
        ball: the perturbation ball.
        steps: trial points.
        random_start: begin at a random point of the ball.
        restarts: runs from independent random starts.
        stop: leave an example as soon as it is adversarial.

    Lecture: row B6.
    """

    moves: ClassVar[str] = "majorisation-minimisation"

    steps: int = 10
    random_start: bool = False
    restarts: int = 1
    stop: bool = False

    def maximizer(self) -> Maximizer:
        """Majorisation-minimisation."""
        inner = _MajorizeMinimize(self.steps, self.random_start, self.stop)
        return _restarted(inner, self.restarts, self.random_start, "best", self.stop)


def _restarted(inner: Maximizer, n: int, random_start: bool, keep: Keep, stop: bool) -> Maximizer:
    if n < 1 or (n > 1 and not random_start):
        raise InputError(
            f"restarts: expected 1, or more together with random_start=True, got {n} and {random_start}; "
            "runs from the same start are all the same"
        )
    if n > 1 and keep == "last":
        raise InputError("keep: expected 'best' or 'value' with restarts, got 'last'; the best run must be chosen")
    # one random start is drawn as the first of several, so that more restarts never lower the best value
    return Restarts(inner, n, stop, keep) if random_start and keep != "last" else inner
