"""Whole data sets: which examples a model gets right, clean or under attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.attacks.attack import Attack
from danskin.attacks.checks import check_logits
from danskin.attacks.guard import as_found, raw_module
from danskin.inputs import check_model, class_numbers, in_box
from danskin.losses import check_labels, get_loss, predict
from danskin.minmax import Cost


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Per example: whether the prediction is right at the attacked point, and what finding out cost.

    Args:
        correct: (n,) bool, on the CPU.
        cost: forwards, backwards, calls, seconds.
    """

    correct: Tensor
    cost: Cost


def outcomes(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    attack: Attack | None = None,
    *,
    batch_size: int = 256,
    seed: int = 0,
    prepare: Callable[[Tensor], Tensor] | None = None,
    among: Tensor | None = None,
) -> Outcomes:
    """Which of the examples (n, ...) the model gets right, clean or at the points that `attack` finds.

    Args:
        model: inputs to logits; used in eval mode and left as found.
        x: (n, ...) inputs, or what `prepare` turns into inputs.
        y: (n,) labels.
        attack: None for clean accuracy.
        batch_size: examples per call; changes nothing but memory and time.
        seed: of the attack.
        prepare: from a slice of x to model inputs on the model's device; default: uint8 images are mapped to the
            attack's box (`danskin.inputs.in_box`).
        among: (n,) bool: look only at these, count the others as wrong, and spend nothing on them. With the
            clean outcomes here, the result is robust accuracy; without, accuracy at the attacked points,
            which for a one-step attack on an overfitted model can be above clean accuracy.
    """
    check_model(model)
    raw, y = raw_module(model), class_numbers(y, len(x))
    box = None if attack is None else attack.box
    correct = torch.ones(len(y), dtype=torch.bool) if among is None else among.clone().cpu()
    cost = Cost()
    for rows in correct.nonzero().flatten().split(batch_size):
        inputs = in_box(x[rows.to(x.device)], box) if prepare is None else prepare(x[rows.to(x.device)])
        labels = y[rows.to(y.device)].to(inputs.device)
        with as_found(raw, "eval", inputs.device):
            if attack is None:
                with torch.no_grad():
                    logits = check_logits(raw(inputs), len(inputs))
                    check_labels(labels, logits, get_loss("zero_one"))
                    right = predict(logits) == labels
                cost += Cost(len(rows), 0, 1)
            else:
                found = attack.rows(rows)(raw, inputs, labels, seed=seed)
                right = ~found.success
                cost += found.cost
        correct[rows] = right.cpu()
    return Outcomes(correct, cost)
