"""Payoffs per example: what an adversary raises and a trainer lowers.

Every loss takes logits and labels and returns one value per example; means are taken once, elsewhere.
Two kinds of labels exist and are never mixed silently: classes 0..C-1 with logits (batch, C), and -1/+1
with one output per example, (batch,) or (batch, 1). A class whose logit is -inf is not there (a masked class): it has
probability 0, 0 log 0 = 0, and no loss or gradient depends on it. LECTURE row A2; the margin losses are rows C6 and C7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from danskin.errors import InputError

LossName = Literal["cross_entropy", "margin", "targeted_margin", "dlr", "targeted_dlr", "zero_one", "logistic",
                   "squared", "hinge", "kl"]  # fmt: skip


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """-log softmax(z)_y, (batch,); with label smoothing s, (1 - s) of it and s of its mean over the classes there."""
    if not smoothing:
        return F.cross_entropy(logits, labels, reduction="none")
    log_p = logits.log_softmax(1)
    there = logits.detach() > -torch.inf
    spread = torch.where(there, log_p, 0).sum(1) / there.sum(1).clamp_min(1)
    return -(1 - smoothing) * _at(log_p, labels) - smoothing * spread


def usable(logits: Tensor) -> Tensor:
    """(batch,) bool: no NaN, nothing infinitely large, and some class is there: a decision can be read off."""
    flat = logits.detach().reshape(len(logits), -1)
    return (flat < torch.inf).all(1) & (flat > -torch.inf).any(1)


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit of a class that is not the label."""
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def apart(logits: Tensor, others: Tensor) -> Tensor:
    """|z - z'| entry by entry; 0 where both are -inf."""
    return torch.where(logits == others, 0.0, (logits - others).abs())


def largest(logits: Tensor) -> Tensor:
    """(batch,) the largest |z| of the classes that are there."""
    return torch.where(logits > -torch.inf, logits.abs(), 0.0).reshape(len(logits), -1).amax(1)


def other_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """(batch, C - 1) int64: all classes but the label, in order."""
    classes = torch.arange(logits.shape[1] - 1, device=logits.device)
    return classes + (classes >= labels[:, None]).to(classes.dtype)


def _at(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]).squeeze(1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y: above 0 exactly where the example is misclassified (Carlini-Wagner)."""
    return _others(logits, labels) - _at(logits, labels)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """z_t - z_y; -inf towards a class that is not there."""
    wanted = _at(logits, targets)
    # -inf - -inf is no number: where both are absent, the target is what cannot be reached
    return wanted - torch.where(wanted.detach() == -torch.inf, 0.0, _at(logits, labels))


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The difference of logits ratio: margin / (z_(1) - z_(3)), with z_(1) >= z_(2) >= ...

    Undefined for two classes, where it is the plain margin, as it is where it is infinite. Reference: Croce and Hein,
    ICML 2020, eq. (6).
    """
    ahead = margin(logits, labels)
    if logits.shape[1] < 3:
        return ahead
    top = logits.topk(3, dim=1).values
    return ahead / _divisor(ahead, top[:, 0], top[:, 2])


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2).

    With three classes the divisor is z_(1) - z_(3), with two it is 1. Reference: Croce and Hein, eq. (7).
    """
    ahead = targeted_margin(logits, labels, targets)
    if logits.shape[1] < 3:
        return ahead
    top = logits.topk(min(4, logits.shape[1]), dim=1).values
    third, last = top[:, 2:3], top[:, 3:]
    low = torch.cat([third, torch.where(last > -torch.inf, last, third)], 1).mean(1)
    return ahead / _divisor(ahead, top[:, 0], low)


def _divisor(ahead: Tensor, top: Tensor, low: Tensor) -> Tensor:
    """Top - low, and 1 where there is no low class or the numerator is infinite."""
    plain = (low.detach() == -torch.inf) | ahead.detach().isinf()
    return torch.where(plain, 1.0, top - low + 1e-12)


def kl(logits: Tensor, reference: Tensor) -> Tensor:
    r"""KL(p || q) = sum_k p_k (log p_k - log q_k): how far the prediction q has moved from a reference p.

    Args:
        logits: (batch, classes); q = softmax(logits).
        reference: (batch, classes) log p, such as the log-probabilities at the clean input.
    """
    apart = torch.where(reference.detach() > -torch.inf, reference - logits.log_softmax(1), 0.0)
    return (reference.exp() * apart).sum(1)


def predict(logits: Tensor) -> Tensor:
    """The predicted label: the first class with the largest logit, or -1/+1 for one output (+1 at 0)."""
    if logits.ndim == 2 and logits.shape[1] > 1:
        return logits.argmax(1)
    return torch.where(logits.reshape(-1) >= 0, 1, -1)


def zero_one(logits: Tensor, labels: Tensor) -> Tensor:
    """1 where the prediction is wrong, else 0."""
    return (predict(logits) != labels).to(logits)


def _signed(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.reshape(-1) * labels.to(logits)


def logistic(logits: Tensor, labels: Tensor) -> Tensor:
    """log(1 + exp(-b h)) for labels b = -1/+1."""
    return F.softplus(-_signed(logits, labels))


def squared(logits: Tensor, labels: Tensor) -> Tensor:
    """(b - h)^2 for labels b = -1/+1."""
    return (labels.to(logits) - logits.reshape(-1)) ** 2


def hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """max(0, 1 - b h) for labels b = -1/+1."""
    return (1 - _signed(logits, labels)).clamp_min(0)


@dataclass(frozen=True)
class Loss:
    """A loss by name, with what it needs.

    Args:
        name: its name in configurations.
        function: (logits, labels[, targets]) -> (batch,).
        binary: labels are -1/+1 and there is one output.
        targeted: it takes targets, and is raised towards them.
        relative: (logits, log-probabilities at the clean input) instead of labels.
    """

    name: str
    function: Callable[..., Tensor]
    binary: bool = False
    targeted: bool = False
    relative: bool = False

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("cross_entropy", cross_entropy),
        Loss("margin", margin),
        Loss("targeted_margin", targeted_margin, targeted=True),
        Loss("dlr", dlr),
        Loss("targeted_dlr", targeted_dlr, targeted=True),
        Loss("zero_one", zero_one),
        Loss("logistic", logistic, binary=True),
        Loss("squared", squared, binary=True),
        Loss("hinge", hinge, binary=True),
        Loss("kl", kl, relative=True),
    )
}


def get_loss(name: str) -> Loss:
    """The loss called `name`."""
    if name not in LOSSES:
        raise InputError(f"loss: expected one of {', '.join(LOSSES)}, got {name!r}; pick one of these")
    return LOSSES[name]


def labelled_loss(name: LossName) -> LossName:
    """The loss itself, or cross-entropy in place of one that needs targets or a clean prediction."""
    loss = get_loss(name)
    return "cross_entropy" if loss.targeted or loss.relative else name


def check_labels(labels: Tensor, outputs: Tensor, loss: Loss, what: str = "labels") -> None:
    """Refuse labels that do not fit the outputs and the loss.

    Raises:
        InputError: wrong shape of outputs for the loss, labels outside 0..C-1 or other than -1/+1.
    """
    single = outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)
    if outputs.ndim not in (1, 2):
        raise InputError(f"logits: expected shape (batch, classes), got {tuple(outputs.shape)}; pool or flatten them")
    if loss.binary and not single:
        raise InputError(
            f"{loss.name}: expected one output per example for labels -1/+1, got {outputs.shape[1]} outputs; "
            "use loss='cross_entropy' or 'margin' with labels 0..C-1"
        )
    if not loss.binary and single and loss.name != "zero_one":
        raise InputError(
            f"{loss.name}: expected logits of shape (batch, classes) with at least 2 classes, got "
            f"{tuple(outputs.shape)}; for one output and labels -1/+1 use loss='logistic', 'hinge' or 'squared'"
        )
    if labels.numel() == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if single:
        if not bool(((labels == 1) | (labels == -1)).all()):
            raise InputError(
                f"{what}: expected -1 and +1 for a model with one output, got values from {low} to {high}; "
                "map 0/1 labels with 2 * y - 1"
            )
    elif low < 0 or high >= outputs.shape[1]:
        hint = "map -1/+1 labels with (y + 1) // 2" if low == -1 and high <= 1 else "check the data and the model"
        raise InputError(
            f"{what}: expected classes 0 to {outputs.shape[1] - 1}, got values from {low} to {high}; {hint}"
        )
