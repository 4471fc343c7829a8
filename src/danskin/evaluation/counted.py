"""A model that is asked in eval mode and left as found, and what asking it has cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from danskin.attacks.attack import Attack
from danskin.attacks.checks import check_logits
from danskin.attacks.guard import as_found
from danskin.attacks.outcomes import outcomes
from danskin.minmax import Cost
from danskin.minmax.gradients import finite, gradient_at
from danskin.minmax.precision import at_least_float32

CHUNK = 64  # examples per pass


class Counted:
    """Asks a model and counts.

    Args:
        model: inputs to logits.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.cost = model, Cost()

    def add(self, cost: Cost) -> None:
        """Somebody else has asked on our account."""
        self.cost += cost

    def logits(self, x: Tensor) -> Tensor:
        """(n, classes) without gradient."""
        with as_found(self.model, "eval", x.device), torch.no_grad():
            return torch.cat([check_logits(self.passes(part), len(part)) for part in x.split(CHUNK)])

    def passes(self, x: Tensor) -> Tensor:
        """One plain pass, of a copy, in whatever mode the caller has put the model."""
        self.add(Cost(len(x), 0, 1))
        found: Tensor = self.model(x.clone())
        return found

    def draws(self, x: Tensor, repeats: int) -> list[Tensor]:
        """The logits several times, each with the random numbers that follow."""
        with as_found(self.model, "eval", x.device), torch.no_grad():
            return [check_logits(self.passes(x), len(x)) for _ in range(repeats)]

    def gradients(
        self, x: Tensor, y: Tensor, losses: Sequence[Callable[[Tensor, Tensor], Tensor]]
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits, and gradients of several losses from one forward pass; partial derivatives that are not finite are 0.

        Raises:
            ModelError: the outputs do not depend differentiably on the inputs.
        """
        said: list[Tensor] = []
        told: list[list[Tensor]] = [[] for _ in losses]
        for part, labels in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
            with as_found(self.model, "eval", x.device):
                leaf = part.detach().clone().requires_grad_()
                logits = at_least_float32(self.model(leaf.clone()))  # a copy: it may write into its input
                for k, (found, loss) in enumerate(zip(told, losses, strict=True), 1):
                    value = loss(logits, labels)
                    found.append(finite(gradient_at(value, leaf, retain=k < len(losses)), value)[0])
            said.append(logits.detach())
            self.add(Cost(len(part), len(losses) * len(part), 1))
        return torch.cat(said), [torch.cat(found) for found in told]

    def right(self, x: Tensor, y: Tensor, attack: Attack, seed: int, among: Tensor) -> Tensor:
        """(n,) bool on the CPU: among those, right under the attack."""
        found = outcomes(self.model, x, y, attack, batch_size=CHUNK, seed=seed, among=among)
        self.add(found.cost)
        return found.correct
