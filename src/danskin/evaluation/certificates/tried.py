"""What each method of a certificate was asked, and what it proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Tried:
    """One method over all examples.

    Args:
        method: "lipschitz", "ibp", "crown-ibp", "crown" or "alpha-crown".
        tried: examples that are right, that it was let loose on.
        proved: how many of them it proved, that no method before it had.
        over: how many were left out, or given up on the way, as they exceed the budget.
        broken: how many were left out, as an attack had broken them.
        seconds: wall time.
    """

    method: str
    tried: int = 0
    proved: int = 0
    over: int = 0
    broken: int = 0
    seconds: float = 0.0

    def __add__(self, more: Tried) -> Tried:
        """The same method over the examples of both."""
        mine, theirs = asdict(self), asdict(more)
        return Tried(**{k: v if k == "method" else v + theirs[k] for k, v in mine.items()})

    def __str__(self) -> str:
        left = f"; {self.over} over the budget" if self.over else ""
        left += f"; {self.broken} broken by attacks and not tried" if self.broken else ""
        return f"{self.method} proved {self.proved} of {self.tried}{left}"


def dearest(steps: Sequence[Tried]) -> str:
    """The names to put under a number: the product bound, and the dearest of the others that was tried."""
    names = [step.method for step in steps if step.tried] or [step.method for step in steps[:1]]
    apart = [name for name in names if name == "lipschitz"]
    return " and ".join(apart + [name for name in names if name != "lipschitz"][-1:])
