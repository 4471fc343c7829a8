"""Training on the clean prediction and its stability: TRADES and MART. LECTURE row C8."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from danskin.attacks import Attack
from danskin.attacks.guard import BatchNormMode
from danskin.errors import InputError
from danskin.losses import LOSSES, check_labels, cross_entropy, kl
from danskin.minmax import Template
from danskin.training.objective import Found, Losses, Model, Objective, Step, attacked, judged, logits_at


def _check_beta(name: str, beta: float) -> None:
    if not beta >= 0:
        raise InputError(f"{name}.beta: expected a number >= 0, got {beta}; 0 leaves the stability term out")


@dataclass(frozen=True)
class TRADES(Objective):
    r"""mean_i CE(h(x_i), y_i) + beta * KL(p(x_i) || p(x_i + delta_i)), delta_i moving the prediction most.

    Gradients flow through both arguments of the divergence. The log-probabilities of the clean input are computed once
    for all steps of the attack.

    Args:
        attack: any attack; the paper's is PGD(ball, 10, step, start_noise=0.001, keep="last").
        beta: weight of the divergence, >= 0; 6 as published (1 / lambda).
        inner: what the adversary raises: "kl", or the "attack"'s own loss.
        smoothing: label smoothing of the clean term, in [0, 1) (modern recipes: 0.1).
        batchnorm: what BatchNorm does during the attack.

    Reference: Zhang et al., ICML 2019, eq. (5) and Algorithm 1. Lecture: row C8. At delta = 0 the divergence has no
    gradient: the signs that a run from the clean input follows are those of rounding errors.
    """

    template: ClassVar[Template] = Template("weights", "input shift", "ball and box", "CE + beta * divergence")
    moves: ClassVar[str] = "an attack on the prediction inside, gradient descent outside"

    attack: Attack
    beta: float = 6.0
    inner: Literal["kl", "attack"] = "kl"
    smoothing: float = 0.0
    batchnorm: BatchNormMode = "eval"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_beta("TRADES", self.beta)
        if self.inner not in ("kl", "attack"):
            raise InputError(f"TRADES.inner: expected 'kl' or 'attack', got {self.inner!r}; pick one")
        if not 0 <= self.smoothing < 1:
            raise InputError(f"TRADES.smoothing: expected a share in [0, 1), got {self.smoothing}; 0 is none")

    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """The inputs whose prediction has moved most."""
        attack = replace(self.attack, loss="kl") if self.inner == "kl" else self.attack
        return replace(attacked(attack, model, x, y, step.seed, self.batchnorm), gradient=None)

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """Cross-entropy at the clean input, and the divergence."""
        clean, moved = logits_at(model, found.x), logits_at(model, found.points)
        check_labels(found.y, clean, LOSSES["cross_entropy"])
        natural = cross_entropy(clean, found.y, self.smoothing)
        return judged(moved, found.y, natural + self.beta * kl(moved, clean.log_softmax(1)))


@dataclass(frozen=True)
class MART(Objective):
    r"""mean_i BCE(q_i, y_i) + beta * (1 - p_i[y_i]) KL(p_i || q_i), p and q the predictions at x and x + delta.

    BCE is -log q[y] - log(1 - max of the other q): a boosted cross-entropy. The weight 1 - p[y] makes
    examples count more that the model gets wrong already; gradients flow through all of it.

    Args:
        attack: any attack, on its own loss; the paper's is PGD(ball, 10, step, start_noise=0.001, keep="last").
        beta: weight of the divergence, >= 0; 5 or 6 as published.
        guard: added inside the logarithm of 1 - max q, as the released code does (0.0001).
        batchnorm: what BatchNorm does during the attack.

    Reference: Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", ICLR 2020,
    eqs. (8) to (11). Lecture: row C8. Attack it with margin losses: cross-entropy flatters it.
    """

    template: ClassVar[Template] = Template("weights", "input shift", "ball and box", "BCE + beta * divergence")
    moves: ClassVar[str] = "an attack inside, gradient descent outside"

    attack: Attack
    beta: float = 5.0
    guard: float = 1e-4
    batchnorm: BatchNormMode = "eval"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_beta("MART", self.beta)
        if not self.guard >= 0:
            raise InputError(f"MART.guard: expected a number >= 0, got {self.guard}; the released code has 0.0001")

    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """The attacked inputs."""
        return attacked(self.attack, model, x, y, step.seed, self.batchnorm)

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """Boosted cross-entropy there, and the weighted divergence."""
        y = found.y[:, None]
        clean, moved = logits_at(model, found.x), logits_at(model, found.points)
        check_labels(found.y, clean, LOSSES["cross_entropy"])
        p, log_q = clean.softmax(1), moved.log_softmax(1)
        rival = log_q.exp().scatter(1, y, 0.0).amax(1)
        tiny = torch.finfo(rival.dtype).tiny
        boosted = -log_q.gather(1, y).squeeze(1) - (1 + self.guard - rival).clamp_min(tiny).log()
        unsure = 1 - p.gather(1, y).squeeze(1)
        return judged(moved, found.y, boosted + self.beta * unsure * kl(moved, clean.log_softmax(1)))
