"""How much the loss rises at the worst weights near by, per group of m examples. LECTURE row D5."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.inputs import whole_number
from danskin.losses import LossName
from danskin.metrics.average import Average
from danskin.metrics.saliency import Model
from danskin.metrics.weights import MeanLoss, mean_loss
from danskin.minmax import L2, Number


@dataclass(frozen=True, eq=False)
class Sharpness:
    """How much the loss of each group rises: a lower bound of the largest rise.

    Args:
        rises: (groups,) L(w + v) - L(w) >= 0 at the best shift v that was found for the group, float64.
        m: examples in a group.
        radius: of the shift.
        steps: ascent steps that were made.
        adaptive: the shift is measured relative to each weight.
        left_out: examples that did not fill a group.
    """

    rises: Tensor
    m: int
    radius: float
    steps: int
    adaptive: bool
    left_out: int

    @property
    def average(self) -> Average:
        """The mean over groups with its error bar."""
        return Average.of(self.rises)

    @property
    def value(self) -> float:
        """M-sharpness: the mean rise, a lower bound of it."""
        return self.average.value

    def __str__(self) -> str:
        kind = "adaptive " if self.adaptive else ""
        return f"{kind}m-sharpness (m={self.m}, radius {self.radius:g}) at least {self.average}"


def m_sharpness(
    model: Model,
    x: Tensor,
    y: Tensor,
    radius: Number = 0.05,
    m: int = 64,
    *,
    steps: int = 1,
    adaptive: bool = False,
    loss: LossName = "cross_entropy",
    batch_size: int = 256,
    seed: int = 0,
) -> Sharpness:
    r"""(m/n) sum over groups S of max over |v|_2 <= radius of L_S(w + v) - L_S(w): SAM's worst shift of all weights.

    L_S is the mean loss of a group of m examples. The shift is one linear maximiser, v = radius g / |g| with g the
    gradient of L_S (SAM's ascent, FGSM on weights); with more steps, projected ascent of step 2 radius / steps goes on
    from there and the best point of all counts, v = 0 among them. It is therefore a lower bound, and more steps never
    make it smaller. With m = n it is the sharpness of SAM's eq. (1); smaller m is never less up to the search: each
    group has a worst shift of its own.

    Args:
        model: inputs to logits, in eval mode; its parameters that require gradients are shifted; left as found.
        x: (n, ...) inputs.
        y: (n,) labels.
        radius: of the l2 ball over all weights, a number > 0 or a text.
        m: examples in a group, 1 to n; groups are drawn at random, and what does not fill one is left out.
        steps: gradients per group, >= 1.
        adaptive: the ball is |v / |w||_2 <= radius, weight by weight (ASAM): its sharpness does not change when a
            layer is multiplied by c and the next one divided by it. Weights of 0 stay.
        loss: by name.
        batch_size: examples in a pass.
        seed: of the groups.

    Raises:
        InputError: a radius, m or steps out of range.

    Reference: Foret et al., "Sharpness-aware minimization", ICLR 2021, section 4.1; Kwon et al., "ASAM", ICML 2021,
    eq. (3). Lecture: row D5.
    """
    ball, m, steps = L2(radius), whole_number(m, "m", 1), whole_number(steps, "steps", 1)
    if isinstance(ball.value, Tensor) or not ball.value > 0:
        raise InputError(f"radius: expected one number > 0, got {radius!r}; 0.05 is SAM's")
    if m > len(x):
        raise InputError(f"m: expected at most the {len(x)} examples there are, got {m}; take fewer, or more examples")
    with mean_loss(model, x, y, loss, batch_size) as f:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(whole_number(seed, "seed")))
        scale = f.here.abs() if adaptive else torch.ones(())
        groups = order[: len(x) // m * m].to(x.device).split(m)
        rises = [_rise(f.rows(rows), ball, scale.to(x.device), steps) for rows in groups]
    values = torch.tensor(rises, dtype=torch.float64)
    return Sharpness(values, m, float(ball.value), steps, adaptive, len(x) % m)


def _rise(f: MeanLoss, ball: L2, scale: Tensor, steps: int) -> float:
    """The largest rise over the shifts scale * u, |u| <= radius, that the search visits."""
    before, slope = f.gradient()
    best, u = before, ball.lmo((scale * slope)[None])[0]
    for _ in range(steps - 1):
        with f.moved(scale * u):
            value, slope = f.gradient()
        best = _better(best, value)
        way = scale * slope
        u = ball.project((u + 2 * ball.value / steps * way / way.norm().clamp_min(1e-30))[None])[0]
    with f.moved(scale * u):
        best = _better(best, f.value())
    return best - before


def _better(best: float, value: float) -> float:
    """The larger loss; NaN is none."""
    return value if value > best else best
