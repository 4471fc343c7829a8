"""An adversary over classes: class-focused online learning and the conditional value at risk of the class losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import Number, Template, number
from danskin.training.exp3 import chances, check_draws_alone, check_exp3, drawn, uniforms
from danskin.training.objective import Found, Losses, Memory, Model, Step, Wrapper, check_reweightable

_WEIGHTS = "cfol.log_weights"


def class_sums(name: str, values: Tensor, y: Tensor, classes: int) -> Tensor:
    """(classes,) float64 sums of values (batch,) by label.

    Raises:
        InputError: a label outside 0 .. classes - 1.
    """
    if len(y) and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise InputError(
            f"{name}.classes: expected labels 0 to {classes - 1}, got values from {int(y.min())} to {int(y.max())}; "
            "set classes= to the number of classes"
        )
    return torch.zeros(classes, dtype=torch.float64, device=y.device).index_add_(0, y, values.detach().double())


@dataclass(frozen=True)
class CFOL(Wrapper):
    r"""min over weights of max_c L_c, L_c the mean of another objective over class c: a bandit plays the classes.

    p = gamma / C + (1 - gamma) softmax(w), w_0 = 0. The batch is drawn by p: a class, then one of its examples.
    After it w_c grows by eta [wrong_i] / p_c for every example i of class c, with p of the start of the batch (Exp3 on
    the 0-1 loss), so that p moves to the worst class, and gamma keeps all others in.

    Args:
        objective: any whose losses may be weighted, such as `AdversarialTraining`.
        classes: C, >= 2.
        gamma: share of plain uniform classes, in [0, 1]; 0.5 as published.
        eta: learning rate of the bandit, > 0; 5e-6 as published for CIFAR-10 (200 epochs, batches of 128).
        form: "sample", where `draw` picks the examples by p (a loop of one's own must ask it), or "reweight", which
            takes uniform batches of balanced classes and multiplies losses by C p_c. There a class comes with chance
            1 / C, and w_c grows by eta C [wrong_i]: as in the released code.

    Raises:
        InputError: fewer than 2 classes, gamma outside [0, 1], eta <= 0, a label that is no class, or a class of
            which the data have no example.

    Reference: Pethick, Chrysos and Cevher, "Revisiting adversarial training for the worst-performing class", TMLR 2023,
    Algorithm 1. Lecture: row C15. The average loss is at most O(sqrt(C log C / T)) above that of the best fixed p.
    """

    template: ClassVar[Template] = Template("weights", "a class", "simplex with exploration", "0-1 loss, and any below")
    moves: ClassVar[str] = "an objective's adversary, Exp3 over classes, gradient descent outside"

    classes: int
    gamma: float = 0.5
    eta: Number = 5e-6
    form: Literal["sample", "reweight"] = "sample"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reweightable("CFOL", self.objective)
        check_exp3("CFOL", "classes", self.classes, self.gamma, float(number(self.eta)))
        if self.form not in ("sample", "reweight"):
            raise InputError(f"CFOL.form: expected 'sample' or 'reweight', got {self.form!r}; pick one")

    def begin(self) -> Memory:
        """The logarithms of the weights of the classes, and what the objective inside keeps."""
        return super().begin() | {_WEIGHTS: torch.zeros(self.classes, dtype=torch.float64)}

    def probabilities(self, memory: Memory) -> Tensor:
        """(classes,) float64: p."""
        return chances(memory[_WEIGHTS], self.gamma)

    def gauges(self, memory: Memory) -> dict[str, float]:
        """The chance of each class, and what the objective inside shows."""
        return super().gauges(memory) | {
            f"chance of class {c}": p for c, p in enumerate(self.probabilities(memory).tolist())
        }

    def draw(self, memory: Memory, labels: Tensor, n: int, seed: int) -> Tensor | None:
        """Classes by p, then an example of each, with replacement."""
        if self.form == "reweight":
            return super().draw(memory, labels, n, seed)
        check_draws_alone("CFOL", super().draw(memory, labels, n, seed))
        sizes = class_sums("CFOL", torch.ones_like(labels), labels, self.classes).long()
        if int(sizes.min()) == 0:
            raise InputError(
                f"CFOL.classes: expected examples of all {self.classes} classes, got none of class "
                f"{int(sizes.argmin())}; leave out classes that have none"
            )
        u = uniforms(seed, n, 2, labels.device)
        c = drawn(self.probabilities(memory).to(labels.device), u[:, 0])
        place = (u[:, 1] * sizes[c]).long().clamp_max(sizes[c] - 1)
        return labels.argsort(stable=True)[(sizes.cumsum(0) - sizes)[c] + place].cpu()

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses inside, weighted in the form "reweight"; the bandit sees which of them are wrong."""
        losses = self.objective.losses(model, found, step)
        errors = step.processes.sum(class_sums("CFOL", losses.wrong, found.y, self.classes))
        p = self.probabilities(step.memory).to(found.y.device)
        chance = p if self.form == "sample" else torch.full_like(p, 1 / self.classes)
        held = step.memory[_WEIGHTS]
        held += (float(number(self.eta)) * torch.where(errors > 0, errors / chance.clamp_min(1e-30), 0)).to(held)
        if self.form == "sample":
            return losses
        return losses._replace(value=losses.value * (self.classes * p)[found.y].to(losses.value))


def cvar_weights(losses: Tensor, shares: Tensor, alpha: float) -> Tensor:
    """Argmax over q of sum_c q_c losses_c, 0 <= q <= shares / alpha, sum q = 1: fill up from the largest loss.

    Args:
        losses: (classes,).
        shares: (classes,) >= 0, with sum 1.
        alpha: in (0, 1].
    """
    order = losses.argsort(descending=True, stable=True)
    most = shares[order] / alpha
    before = most.cumsum(0) - most
    return torch.empty_like(shares).scatter_(0, order, torch.minimum(most, (1 - before).clamp_min(0)))


@dataclass(frozen=True)
class ClassCVaR(Wrapper):
    r"""max over q of sum_c q_c L_c, 0 <= q_c <= p_c / alpha, sum q = 1: the mean over the worst share of the classes.

    L_c is the mean of another objective over the examples of class c in the batch (of all processes), p_c their share.
    The dual is min over t of t + mean_c (L_c - t)_+ / alpha. q is found exactly, by filling up from the worst class,
    and is constant in the backward pass (Danskin).

    Args:
        objective: any whose losses may be weighted.
        classes: C, >= 2.
        alpha: share of the examples, in (0, 1]; 1 is the plain mean, small values the worst class.

    Raises:
        InputError: fewer than 2 classes, alpha outside (0, 1], or a label that is no class.

    Reference: Xu, Dan, Khim and Ravikumar, "Class-weighted classification: trade-offs and robust approaches", ICML
    2020 (label CVaR). Lecture: row C15. Their released code takes another threshold, which makes it the plain mean
    divided by alpha.
    """

    template: ClassVar[Template] = Template(
        "weights", "class weights", "simplex capped at p / alpha", "any objective's"
    )
    moves: ClassVar[str] = "an objective's adversary, the exact worst class weights, gradient descent outside"

    classes: int
    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reweightable("ClassCVaR", self.objective)
        if self.classes < 2:
            raise InputError(
                f"ClassCVaR.classes: expected at least 2, got {self.classes}; one class has nothing to weigh"
            )
        if not 0 < self.alpha <= 1:
            raise InputError(f"ClassCVaR.alpha: expected a share in (0, 1], got {self.alpha}; 1 is the plain mean")

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses inside, times q_c / p_c."""
        losses = self.objective.losses(model, found, step)
        ones = torch.ones_like(found.y)
        sums = torch.stack([class_sums("ClassCVaR", v, found.y, self.classes) for v in (losses.value, ones)])
        total, counts = step.processes.sum(sums)
        shares = counts / counts.sum()
        means = torch.where(counts > 0, total / counts.clamp_min(1), -torch.inf)
        weights = cvar_weights(means, shares, self.alpha) / shares.clamp_min(torch.finfo(shares.dtype).tiny)
        return losses._replace(value=losses.value * weights[found.y].to(losses.value))
