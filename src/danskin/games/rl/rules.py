"""Who acts: the action-robust rules by which agent and adversary share one body.

Reference: C. Tessler, Y. Efroni and S. Mannor, "Action robust reinforcement learning and applications in continuous
control", ICML 2019, definitions 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from danskin.errors import InputError, suggest

#: Who the adversary is: a player that learns; or a control that plays actions uniform in the range, each drawn anew.
Adversary = Literal["learned", "random"]
ADVERSARIES = ("learned", "random")

#: From actions (..., a) to values (...); the states are fixed in it.
Values = Callable[[Tensor], Tensor]


def _check(who: str, what: str, value: float, adversary: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InputError(f"{who}: expected {what} in [0, 1], got {value!r}; 0.1 is usual, 0 is no adversary")
    if adversary not in ADVERSARIES:
        known = suggest(str(adversary), ADVERSARIES)
        raise InputError(f"{who}: expected the adversary learned or random, got {adversary!r}; {known}")


@dataclass(frozen=True)
class NoisyAction:
    r"""NR-MDP: the body executes :math:`a = (1-\delta) u + \delta v`, a blend of agent's and adversary's actions.

    Args:
        delta: the adversary's share, in [0, 1]; 0 is no adversary.
        adversary: "learned"; or "random", the control that tells whether a learned one does more than noise.

    Raises:
        InputError: delta outside [0, 1], or another adversary.

    Lecture: G3.

    >>> import torch
    >>> NoisyAction(0.25).executed(torch.tensor([[1.0]]), torch.tensor([[-1.0]]), torch.zeros(1))
    tensor([[0.5000]])
    """

    delta: float = 0.1
    adversary: Adversary = "learned"

    def __post_init__(self) -> None:
        _check("NoisyAction", "delta", self.delta, self.adversary)

    @property
    def adversarial(self) -> bool:
        """Whether the adversary has any say."""
        return self.delta > 0

    @property
    def learned(self) -> bool:
        """Whether the adversary has any say, and learns what to do with it."""
        return self.adversarial and self.adversary == "learned"

    def executed(self, agent: Tensor, adversary: Tensor, draw: Tensor) -> Tensor:
        """The executed actions.

        Args:
            agent: (..., a) its actions.
            adversary: (..., a) its actions.
            draw: (...) uniform in (0, 1); not used by this rule, whose blend is no chance.
        """
        return torch.lerp(agent, adversary, self.delta)

    def value(self, values: Values, agent: Tensor, adversary: Tensor) -> Tensor:
        """Expected value of the executed action, (...)."""
        return values(torch.lerp(agent, adversary, self.delta))


@dataclass(frozen=True)
class ProbabilisticAction:
    r"""PR-MDP: with probability :math:`\alpha` the adversary's action is executed in place of the agent's.

    Args:
        alpha: the probability, in [0, 1]; 0 is no adversary.
        adversary: "learned"; or "random", the control that tells whether a learned one does more than noise.

    Raises:
        InputError: alpha outside [0, 1], or another adversary.

    Lecture: G3.

    >>> import torch
    >>> rule = ProbabilisticAction(0.25)
    >>> rule.executed(torch.ones(2, 1), -torch.ones(2, 1), torch.tensor([0.2, 0.3]))
    tensor([[-1.],
            [ 1.]])
    """

    alpha: float = 0.1
    adversary: Adversary = "learned"

    def __post_init__(self) -> None:
        _check("ProbabilisticAction", "alpha", self.alpha, self.adversary)

    @property
    def adversarial(self) -> bool:
        """Whether the adversary has any say."""
        return self.alpha > 0

    @property
    def learned(self) -> bool:
        """Whether the adversary has any say, and learns what to do with it."""
        return self.adversarial and self.adversary == "learned"

    def executed(self, agent: Tensor, adversary: Tensor, draw: Tensor) -> Tensor:
        """The executed actions.

        Args:
            agent: (..., a) its actions.
            adversary: (..., a) its actions.
            draw: (...) uniform in (0, 1), one for each action.
        """
        return torch.where((draw < self.alpha)[..., None], adversary, agent)

    def value(self, values: Values, agent: Tensor, adversary: Tensor) -> Tensor:
        """Expected value of the executed action, (...)."""
        return torch.lerp(values(agent), values(adversary), self.alpha)


Rule = NoisyAction | ProbabilisticAction

#: By the name they go by in recipes.
RULES: dict[str, type] = {"noisy_action": NoisyAction, "probabilistic_action": ProbabilisticAction}
