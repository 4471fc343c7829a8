"""What the adversary is paid for the logits it brings about."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from danskin.losses import Loss, check_labels, margin, other_classes, predict


@dataclass(frozen=True, eq=False)
class Goal:
    """Logits -> (loss per example, whether they are adversarial).

    Args:
        y: (batch,) labels.
        targets: (batch,) wanted labels, or None for untargeted.
        loss: what the adversary raises (or lowers towards the targets).
        toward: (batch,) classes the loss is raised towards while any wrong prediction counts; for targeted losses
            of untargeted attacks.
        reference: (batch, classes) log-probabilities at the clean inputs, for a loss relative to them.
    """

    y: Tensor
    targets: Tensor | None
    loss: Loss
    toward: Tensor | None = None
    reference: Tensor | None = None

    def value(self, logits: Tensor) -> Tensor:
        """What the adversary raises, per example."""
        if self.loss.relative:
            return self.loss.function(logits, self.reference)
        if self.loss.targeted:
            aim = self.targets if self.toward is None else self.toward
            if aim is None:  # an attack that aims by itself, judged: the best of all aims
                others = other_classes(logits, self.y)
                best = logits.detach().gather(1, others).argmax(1, keepdim=True)
                aim = others.gather(1, best).squeeze(1)
            return self.loss.function(logits, self.y, aim)
        if self.targets is not None:
            return -self.loss.function(logits, self.targets)
        return self.loss.function(logits, self.y)

    def lead(self, logits: Tensor) -> Tensor:
        """(batch,) by how much the outcome the adversary wants is ahead: > 0 where it is there.

        max_{j != y} z_j - z_y, with a target t z_t - max_{j != t} z_j; one output h stands for two classes, with
        lead -y h or t h.
        """
        if logits.ndim == 1 or logits.shape[1] == 1:
            score = logits.reshape(-1)
            return -score * self.y if self.targets is None else score * self.targets
        return margin(logits, self.y) if self.targets is None else -margin(logits, self.targets)

    def gaps(self, logits: Tensor) -> Tensor:
        """(batch, boundaries) what is 0 on each boundary of the clean decision and rises across it.

        z_j - z_y for all j != y; -y h for one output h; the lead of the target where there is one.
        """
        if self.targets is not None or logits.ndim == 1 or logits.shape[1] == 1:
            return self.lead(logits)[:, None]
        return logits.gather(1, other_classes(logits, self.y)) - logits.gather(1, self.y[:, None])

    def adversarial(self, logits: Tensor) -> Tensor:
        """(batch,) bool: the prediction is wrong, or is the target."""
        guess = predict(logits.detach())
        return guess != self.y if self.targets is None else guess == self.targets

    def check(self, logits: Tensor) -> None:
        """Labels and targets fit these logits and the loss.

        Raises:
            InputError: they do not.
        """
        check_labels(self.y, logits, self.loss)
        if self.targets is not None:
            check_labels(self.targets, logits, self.loss, "targets")

    def rows(self, index: Tensor) -> Goal:
        """The goal of some examples."""
        named = {name: getattr(self, name) for name in ("targets", "toward", "reference")}
        cut = {name: None if each is None else each[index] for name, each in named.items()}
        return replace(self, y=self.y[index], **cut)  # type: ignore[arg-type]
