"""How far the loss is from linear within the ball: the numbers that LLR and ELLE keep small.

Values only, per example, with the model as it is; `danskin.regularizers` holds the training terms. LECTURE
rows C12 and C13.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.inputs import check_model, class_numbers
from danskin.losses import LossName, check_labels, get_loss
from danskin.metrics.misalignment import shifts
from danskin.metrics.saliency import Model, finished, logits_of, loss_gradient
from danskin.minmax import Set, Streams
from danskin.minmax.reading import read_ball
from danskin.minmax.sets import rowwise

Endpoints = Literal["both_random", "clean_random"]


def _losses(model: Model, x: Tensor, y: Tensor, loss: LossName) -> Tensor:
    chosen = get_loss(loss)
    check_model(model)
    y = class_numbers(y, len(x)).to(x.device)
    with finished(model, x.device), torch.no_grad():
        logits = logits_of(model, x)
        check_labels(y, logits, chosen)
        return chosen.function(logits, y)


def taylor_error(
    model: Model,
    x: Tensor,
    y: Tensor,
    delta: Tensor | Set,
    *,
    seed: int = 0,
    loss: LossName = "cross_entropy",
) -> Tensor:
    r"""(batch,): \|L(x + delta) - L(x) - <delta, grad L(x)>\|, what the first-order expansion misses at delta.

    At the delta in the ball that maximises it, this is the gamma of LLR (find it with an attack of your own, or
    take the delta of PGD for a lower bound). On a quadratic loss it is \|delta' H delta\| / 2.

    Args:
        model: inputs to logits; looked at in eval mode and left as found.
        x: (batch, ...) inputs.
        y: (batch,) labels.
        delta: (batch, ...) perturbations, or a ball to draw uniformly from.
        seed: of the draw.
        loss: by name.

    Reference: Qin et al., "Adversarial robustness through local linearization", NeurIPS 2019. Lecture: row C13.
    """
    shift = shifts(x, delta, seed)
    at_x, slope = loss_gradient(model, x, y, loss)
    moved = _losses(model, x + shift, y, loss)
    predicted = (shift * slope).flatten(1).sum(1, dtype=torch.float64).to(at_x)
    return (moved - at_x - predicted).abs()


class Triplet(NamedTuple):
    """Two perturbations (batch, ...) and where between them to look, (batch,) in [0, 1]."""

    first: Tensor
    second: Tensor
    t: Tensor


def draw_triplet(x: Tensor, ball: Set, endpoints: Endpoints = "both_random", seed: int = 0) -> Triplet:
    """End points and place for `three_point_error`, uniform, keyed by seed and content of each example.

    Args:
        x: (batch, ...) inputs.
        ball: where the end points lie.
        endpoints: "both_random" draws two points of the ball (ELLE as published); "clean_random" takes x itself
            and one random point (eq. (21) as the lecture prints it).
        seed: of the draws.
    """
    if endpoints not in ("both_random", "clean_random"):
        raise InputError(f"endpoints: expected 'both_random' or 'clean_random', got {endpoints!r}; pick one")
    ball, streams = read_ball(ball), Streams.of_content(seed, x)
    first = ball.sample(x, streams.child(0)) if endpoints == "both_random" else torch.zeros_like(x)
    t = streams.child(2).uniform(x.new_empty(len(x), 1)).view(-1)
    return Triplet(first, ball.sample(x, streams.child(1)), t)


def three_point_error(
    model: Model, x: Tensor, y: Tensor, points: Triplet, *, loss: LossName = "cross_entropy"
) -> Tensor:
    """(batch,): L(x + (1 - t) a + t b) - (1 - t) L(x + a) - t L(x + b), signed; ELLE's value is its square.

    Zero for an affine loss; -t (1 - t) (a - b)' H (a - b) / 2 on a quadratic one. No gradient is needed.

    Args:
        model: inputs to logits; looked at in eval mode and left as found.
        x: (batch, ...) inputs.
        y: (batch,) labels.
        points: a, b and t, given or from `draw_triplet`.
        loss: by name.

    Reference: Abad Rocamora et al., "Efficient local linearity regularization", ICLR 2024. Lecture: row C12.
    """
    a, b, t = points
    if a.shape != x.shape or b.shape != x.shape or t.shape != (len(x),):
        raise InputError(
            f"points: expected two perturbations of shape {tuple(x.shape)} and ({len(x)},) places between them, got "
            f"{tuple(a.shape)}, {tuple(b.shape)} and {tuple(t.shape)}; use draw_triplet"
        )
    s = rowwise(t, x)
    first, second, middle = (_losses(model, x + p, y, loss) for p in (a, b, (1 - s) * a + s * b))
    t = t.to(middle)
    return middle - (1 - t) * first - t * second
