"""What a maximisation reports: the point, its value, how it ended and what it cost."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from torch import Tensor


class Status(enum.Enum):
    """How a run ended. The value is the sentence to show."""

    DONE = "all steps were made"
    SETTLED = "every example was settled before the last step"
    EMPTY = "there were no examples"
    ZERO_GRADIENT = (
        "the first gradient was exactly zero for some examples: the payoff is saturated or masked there; "
        "try the margin loss, or an attack without gradients"
    )

    BAD_GRADIENT = (
        "some partial derivatives were NaN or infinite and counted as 0; keep the model away from roots, logarithms "
        "and norms at 0"
    )

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Cost:
    """Work done.

    Args:
        forwards: examples passed forward (an example passed twice counts twice).
        backwards: examples passed backward to the input.
        calls: calls of the payoff one after the other, whatever their batch.
        seconds: wall time.
    """

    forwards: int = 0
    backwards: int = 0
    calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.forwards + other.forwards,
            self.backwards + other.backwards,
            self.calls + other.calls,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, eq=False)
class Maximum:
    """What a maximiser found.

    Args:
        y: (batch, ...) the point, detached, inside the set.
        value: (batch,) the payoff there; None when the last point was not evaluated (keep="last").
        settled: (batch,) bool, where the payoff said that the row's question is answered at y; None
            when the payoff does not say, or was not evaluated.
        cost: forwards, backwards, calls and seconds.
        status: how the run ended.
        gradient: (batch, ...) of the payoff at y0, where the run took it there and nothing else; None otherwise.
    """

    y: Tensor
    value: Tensor | None
    settled: Tensor | None
    cost: Cost
    status: Status
    gradient: Tensor | None = None
