"""The measurements behind `diagnostics`: finite differences against gradients, noise in a ball, the size of a box."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from danskin.attacks.bounds import Ball, perturbations
from danskin.attacks.checks import DataBox
from danskin.attacks.guard import as_found
from danskin.callables import copied
from danskin.evaluation.counted import Counted
from danskin.losses import apart, largest, margin
from danskin.minmax import Streams
from danskin.minmax.data_box import box_for
from danskin.minmax.measured import largest_radius, radius_of
from danskin.minmax.sets import rowwise

Score = Callable[[Tensor, Tensor], Tensor]


def whole_box(ball: Ball, width: Tensor | None) -> float:
    """The radius at which the ball around any point of the box (its width (1, ...)) holds the box; else 1024 radii."""
    if width is None:
        return 1024 * largest_radius(ball)
    return float(ball.norm(width))


def coordinate_step(ball: Ball, x: Tensor) -> Tensor:
    """(batch,): half the radius, spread over all coordinates: h such that h (±1, …, ±1) has norm radius / 2."""
    share = 1 / float(ball.norm(torch.ones_like(x[:1], dtype=torch.float64)))
    radius = torch.as_tensor(radius_of(ball), dtype=torch.float64, device=x.device).reshape(-1)
    return 0.5 * share * (radius.expand(len(x)) if len(radius) == 1 else radius[: len(x)])


def noise(ball: Ball, box: DataBox, x: Tensor, streams: Streams, draws: int = 10) -> list[Tensor]:
    """Random points around x: uniform ones of the ball and random vertices, half and half, cut at the box."""
    feasible, box = perturbations(x, ball, box), box_for(box, x)
    out = []
    for k in range(draws):
        inner = feasible.sample(x, streams.child(2 * k))
        outer = feasible.lmo(streams.child(2 * k + 1).normal(x))
        out += [x + inner, x + outer]
    return out if box is None else [p.clamp(*box) for p in out]


# --- is the gradient the derivative? --------------------------------------------------------------------

#: How far beside an example its gradient is looked at, as a share of the width of the data.
BESIDE = 0.02
#: Steps per coordinate, as shares of that width, at which differences are not yet rounding noise.
_TINY = {"float64": (1e-6, 1e-5, 1e-4), "float32": (1e-3, 1e-4, 3e-3)}
_COARSER = (1e-2, 3e-2)


def steps(precision: str) -> tuple[float, ...]:
    """The steps at which differences are taken in a precision, the most telling one first."""
    return _TINY.get(precision, _COARSER)


def data_width(x: Tensor, box: DataBox) -> float:
    """Of the box; without one, of the values that are there."""
    if box is not None:
        return float((torch.as_tensor(box[1]) - torch.as_tensor(box[0])).max())
    low, high = (float(v) for v in x.aminmax())
    return high - low or 1.0


def beside(x: Tensor, step: Tensor, box: DataBox, streams: Streams) -> Tensor:
    """A random point within `BESIDE` of x, from which a step in any coordinate stays in the box.

    At x itself a healthy network may have no derivative: constant backgrounds tie all values of a pooling window, and
    values at the edge of the box sit on the kink of a clamp. What is locally Lipschitz has one almost everywhere
    (Rademacher), and there autograd must return it; so the question is put at a point that chance has chosen.

    Args:
        x: (batch, ...).
        step: (batch,) that differences will take, per coordinate.
        box: of valid data.
        streams: of the examples.
    """
    room, h, box = BESIDE * data_width(x, box), rowwise(step, x).to(x), box_for(box, x)
    low, high = x - room, x + room
    if box is not None:
        inner = torch.minimum(torch.maximum(x, box[0] + h), box[1] - h)
        low, high = torch.maximum(inner - room, box[0] + h), torch.minimum(inner + room, box[1] - h)
        high = torch.maximum(low, high)
    return low + (high - low) * streams.uniform(x)


class Slopes(NamedTuple):
    """Along some directions, per unit of the step: what the gradient tells, and what differences see.

    Args:
        told: (batch, directions) <gradient, u>.
        seen: (batch, directions) central differences.
        size: (batch,) euclidean norm of the gradient: the size of <gradient, u> for random signs u.
        floor: (batch,) how far rounding of the score can throw a difference off.
    """

    told: Tensor
    seen: Tensor
    size: Tensor
    floor: Tensor

    @property
    def error(self) -> Tensor:
        """(batch,) the mean disagreement in units of the slope; 0 where rounding explains it."""
        off = ((self.told - self.seen).abs() - self.floor[:, None]).clamp_min(0)
        scale = torch.maximum(torch.maximum(self.told.abs(), self.seen.abs()), self.size[:, None])
        return (off / scale.clamp_min(1e-300)).mean(1)

    @property
    def cosine(self) -> Tensor:
        """(batch,) between what is told and what is seen; 1 where neither is more than rounding."""
        both = self.told.norm(dim=1) * self.seen.norm(dim=1)
        still = torch.maximum(self.told.abs().amax(1), self.seen.abs().amax(1)) <= self.floor
        return torch.where(still, 1.0, (self.told * self.seen).sum(1) / both.clamp_min(1e-300))


def slopes(
    model: Counted,
    base: Tensor,
    y: Tensor,
    score: Score,
    slope: Tensor,
    step: Tensor,
    signs: list[Tensor],
    box: DataBox,
) -> Slopes:
    """Compare a gradient at `base` with central differences of the score along sign vectors, cut at the box.

    Args:
        model: counts the passes: two for each direction.
        base: (batch, ...) where.
        y: (batch,) labels.
        score: of logits and labels, one number each.
        slope: (batch, ...) the gradient of the score there, by autograd.
        step: (batch,) per coordinate.
        signs: directions.
        box: of valid data; where an end would leave it, that coordinate moves less, and the gradient tells for that.
    """
    h, told, seen, box = rowwise(step, base).to(base), [], [], box_for(box, base)
    most = torch.zeros(len(base), dtype=torch.float64, device=base.device)
    eps = 0.0
    for u in signs:
        points = [base + h * u, base - h * u]
        points = points if box is None else [p.clamp(*box) for p in points]
        ends = [model.logits(p) for p in points]
        eps = max(eps, max(torch.finfo(t.dtype).eps for t in (base, *ends)))
        most = torch.maximum(most, torch.stack([largest(e).double() for e in ends]).amax(0))
        ahead, behind = (score(e.double(), y) for e in ends)
        seen.append((ahead - behind) / (2 * step))
        told.append((slope.double() * (points[0] - points[1])).flatten(1).sum(1) / (2 * step))
    size = slope.double().flatten(1).norm(dim=1)
    return Slopes(torch.stack(told, 1), torch.stack(seen, 1), size, 8 * eps * most / step)


def score_of(logits: Tensor) -> Score:
    """The margin, or for one output its counterpart; in either case it falls when the prediction gets worse."""
    return _single if logits.ndim == 1 or logits.shape[1] == 1 else margin


def _single(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.reshape(-1) * labels.to(logits)


def not_the_derivative(
    model: Counted, x: Tensor, y: Tensor, logits: Tensor, box: DataBox, seed: int, directions: int = 16
) -> tuple[Tensor, str]:
    """On which examples autograd's gradient is not the derivative, with care.

    Beside each example, the cosine between gradient and central differences over some directions: below 0.8 at each
    of some steps means that the gradient is another function's. In float64 when the model can be copied and moved
    there, else in the coarser precision of x and logits.

    Returns:
        (batch,) bool, and the precision.
    """
    wide, precision = _in_float64(model, x, logits)
    x = x.to(torch.float64) if precision == "float64" else x
    score, streams, tiny = score_of(logits), Streams.of_content(seed, x), steps(precision)
    signs = [streams.child(k).sign(x) for k in range(directions)]
    width = data_width(x, box)
    most = torch.full((len(x),), max(tiny) * width, dtype=torch.float64, device=x.device)
    base = beside(x, most, box, streams.child(directions))
    (slope,) = wide.gradients(base, y, (score,))[1]
    wrong = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for step in tiny:
        at = wrong.nonzero().squeeze(1)  # the best of the steps: rounding spoils small ones, kinks large ones
        if not len(at):
            break
        h = torch.full((len(at),), step * width, dtype=torch.float64, device=x.device)
        found = slopes(wide, base[at], y[at], score, slope[at], h, [u[at] for u in signs], box)
        wrong[at] = found.cosine < 0.8
    model.add(wide.cost)
    return wrong, precision


def misleads(
    model: Counted, x: Tensor, y: Tensor, logits: Tensor, ball: Ball, box: DataBox, seed: int, directions: int = 16
) -> Tensor:
    """(batch,) bool: where the gradient does not foretell the margin over half the radius, and is no way up either.

    Foretell: a cosine of at least 0.5 with central differences. A network that is merely curved within a large ball
    fails there, too; but the margin rises when one follows its gradient that far, as an attack does: by more than a
    tenth of what the gradient promises.
    """
    score, streams = score_of(logits), Streams.of_content(seed, x)
    step = coordinate_step(ball, x)
    base = beside(x, torch.zeros_like(step), box, streams.child(directions + 1))
    said, (slope,) = model.gradients(base, y, (score,))
    signs = [streams.child(k).sign(x) for k in range(directions)]
    curved = slopes(model, base, y, score, slope, step, signs, box).cosine < 0.5
    half, box = 0.5 * rowwise(torch.as_tensor(radius_of(ball)).reshape(-1), x), box_for(box, x)
    ahead = base + half * ball.steepest(slope)
    ahead = ahead if box is None else ahead.clamp(*box)
    promised = (slope * (ahead - base)).flatten(1).sum(1)
    return curved & (score(model.logits(ahead), y) - score(said, y) <= 0.1 * promised)


def _in_float64(model: Counted, x: Tensor, logits: Tensor) -> tuple[Counted, str]:
    """A copy of the model in float64, or the model itself where that does not work; and which precision it is."""
    coarser = max(x.dtype, logits.dtype, key=lambda t: torch.finfo(t).eps)
    own = Counted(model.model), str(torch.finfo(coarser).dtype)
    if not isinstance(model.model, nn.Module) or x.device.type == "mps":
        return own
    try:
        with torch.inference_mode(False):  # in float64, too, it must be one that can be differentiated
            wide = Counted(copied(model.model).double())
        with as_found(wide.model, "eval", x.device), torch.no_grad():
            again = wide.logits(x[:1].double())
    except (RuntimeError, TypeError, NotImplementedError, AttributeError):  # buffers or casts that stay float32, hooks
        return own
    scale = largest(logits[:1]).amax().clamp_min(1e-6)
    close = (
        again.dtype == torch.float64
        and again.shape == logits[:1].shape
        and bool((apart(again, logits[:1]) <= 0.02 * scale).all())
    )
    return (wide, "float64") if close else own
