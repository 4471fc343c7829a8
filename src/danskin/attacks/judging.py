"""The outcome of an attack: what the plain model says of the points found, and whether they are where they may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from danskin.attacks import checks
from danskin.attacks.bounds import in_bounds
from danskin.attacks.guard import BatchNormMode, as_found
from danskin.attacks.payoff import ShiftPayoff
from danskin.minmax import Cost, Maximum, Status

if TYPE_CHECKING:
    from danskin.attacks.attack import Attack

#: Fresh passes that judge an attack on a random model.
JUDGE_DRAWS = 20


class Batch(NamedTuple):
    """Examples as an attack works on them: x in float32 or float64, labels int64."""

    x: Tensor
    y: Tensor
    targets: Tensor | None
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Attacked:
    """The outcome of an attack, per example.

    Args:
        x: (batch, ...) the perturbed inputs, in the dtype of the inputs.
        delta: x - clean x, float32 or float64.
        success: (batch,) bool: the model, in full precision, errs on x (or predicts the target), and x
            passed the audit: finite, in the ball, in the box.
        loss: (batch,) what the adversary raised, at x.
        cost: examples passed forward and backward, sequential calls, seconds.
        status: how the run ended.
        probability: (batch,) the share of fresh draws in which the model errs on x; for a model that is not random
            (draws=1) 1 where it errs and 0 elsewhere. A success has more than one half.
    """

    x: Tensor
    delta: Tensor
    success: Tensor
    loss: Tensor
    cost: Cost
    status: Status
    probability: Tensor

    def __repr__(self) -> str:
        hits, n = int(self.success.sum()), len(self.success)
        shape = ", ".join(str(k) for k in self.x.shape)
        passes = f"{self.cost.forwards} forwards, {self.cost.backwards} backwards, {self.cost.seconds:.2f} s"
        return f"<Attacked ({shape}): {hits} of {n} adversarial; {passes}; {self.status}>"


def judged(attack: Attack, payoff: ShiftPayoff, batch: Batch, found: Maximum, model: Any) -> Attacked:
    """What the plain model says of the points found, and whether they are where they may be.

    The search's own last word is believed only when it was spoken in full precision on these very
    inputs; otherwise there is one more forward pass.
    """
    x = payoff.inputs(found.y)
    tally = payoff.asking.tally
    cost = found.cost + Cost(tally.forwards, tally.backwards)
    value, success = found.value, found.settled
    other = payoff.asking.cheap(x.device.type) or batch.dtype != batch.x.dtype or attack.draws > 1
    other |= attack.batchnorm in ("batch_frozen", "train_update")  # the search saw another function
    if value is None or success is None or other:
        draws, size = (
            max(JUDGE_DRAWS, attack.draws) if attack.draws > 1 else 1,
            getattr(attack, "width", None) or len(x),
        )
        mode: BatchNormMode = "eval" if attack.batchnorm == "eval" else "as_is"  # the model's own outcome
        with as_found(model, mode, x.device, warn=False):
            parts = [part.asking.judge(point, part.goal, draws) for part, point in _pieces(payoff, x, size)]
        value, probability = (torch.cat(each) for each in zip(*parts, strict=True))
        cost += Cost(draws * len(x), 0, draws * len(parts))
        success = 2 * probability > 1
    else:
        probability = success.to(value.dtype)
    checks.check_finite(value)
    delta = x.to(batch.x.dtype) - batch.x
    audited = in_bounds(attack.ball, attack.box, delta, x)
    return Attacked(x, delta, success & audited, value, cost, found.status, probability)


def _pieces(payoff: ShiftPayoff, x: Tensor, size: int) -> Iterator[tuple[ShiftPayoff, Tensor]]:
    """Payoff and inputs, `size` rows at a time; without a copy where that is all of them."""
    if size >= len(x):
        yield payoff, x
        return
    for at in torch.arange(len(x), device=x.device).split(size):
        yield payoff.rows(at), x[at]
