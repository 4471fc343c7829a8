"""Training for certified margins: cross-entropy with a temperature, which asks for a lead of the right class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from danskin.errors import InputError
from danskin.losses import check_labels, get_loss
from danskin.minmax import Template
from danskin.training.objective import Found, Losses, Model, Objective, Step, judged, logits_at


@dataclass(frozen=True)
class LipschitzMargin(Objective):
    r"""mean_i tau CE((f(x_i) - offset e_{y_i}) / tau): the constant of the network stands for the worst case.

    A network of constant 1 whose last layer has orthonormal rows is certified at radius r where its margin exceeds
    sqrt(2) r. It cannot enlarge its logits, so plain cross-entropy (tau = 1, offset = 0) never ends with the easy
    examples; a small tau does, and the offset is the margin that still counts as an error.

    Args:
        temperature: tau, positive; small ones attend to the examples near the decision only.
        offset: taken from the logit of the right class, 0 or more; about sqrt(2) times the radius in mind.

    Reference: Prach and Lampert, "Almost-orthogonal layers", ECCV 2022, section 5. Lecture: E6.
    """

    template: ClassVar[Template] = Template("weights", "input shift", "l2 ball", "CE of logits, offset")
    moves: ClassVar[str] = "a Lipschitz constant inside, gradient descent outside"

    temperature: float = 0.1
    offset: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise InputError(f"LipschitzMargin.temperature: expected a positive number, got {self.temperature}")
        if not self.offset >= 0:
            raise InputError(f"LipschitzMargin.offset: expected a number of 0 or more, got {self.offset}")

    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """The clean inputs: the constant bounds every shift."""
        return Found(x, y, x)

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses there; wrong is what is misclassified, whatever the margin."""
        logits = logits_at(model, found.points)
        check_labels(found.y, logits, get_loss("cross_entropy"))
        handicap = self.offset * F.one_hot(found.y, logits.shape[1]).to(logits)
        value = F.cross_entropy((logits - handicap) / self.temperature, found.y, reduction="none")
        return judged(logits, found.y, self.temperature * value)
