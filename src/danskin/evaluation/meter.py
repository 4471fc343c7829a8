"""How far an evaluation is: passes of the model that were made or are no longer needed, of those that may be needed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from danskin.attacks.attack import Attack

Listener = Callable[[dict[str, Any]], None]
_OFTEN = 0.2  # seconds between two events


def silent(event: dict[str, Any]) -> None:
    """Nobody listens."""


def most_passes(attack: Attack) -> int:
    """About how many passes the attack makes for an example that withstands it.

    (steps + queries + hops x climb) x restarts x searches x classes x chains x draws, of those settings that it has.

    >>> from danskin.attacks import APGD, Square
    >>> from danskin.minmax import Linf
    >>> most_passes(APGD(Linf(0.1), steps=50, restarts=2)), most_passes(Square(Linf(0.1), queries=700))
    (100, 700)
    """
    climbs = getattr(attack, "hops", 0) * getattr(attack, "climb", 0)
    passes = max(1, getattr(attack, "steps", 0) + getattr(attack, "queries", 0) + climbs)
    for name in ("restarts", "searches", "classes", "chains", "draws"):
        passes *= max(1, getattr(attack, name, None) or 1)
    return passes


class Meter:
    """Tells a listener of progress as {"work", "stage", "done", "total"}, in passes, a few times a second.

    What an example would still have cost counts as done once it is broken, so `done` comes to `total` at the end.

    Args:
        attacks: the stages in their order.
        examples: how many there are; None where nobody knows beforehand, and then "total" is None.
        tell: the listener.
    """

    def __init__(self, attacks: dict[str, Attack], examples: int | None, tell: Listener) -> None:
        self.passes = [most_passes(attack) for attack in attacks.values()]
        self.total = None if examples is None else examples * sum(self.passes)
        self.tell, self.told = tell, 0.0
        self.finished = 0  # passes of the chunks that are over
        self.before, self.made, self.most, self.stage = 0, 0, 0, "clean"

    def begin(self, name: str, number: int, chunk: int, todo: int) -> None:
        """A stage (from 1) of a chunk begins for `todo` of its examples."""
        self.stage, self.made, self.most = name, 0, todo * self.passes[number - 1]
        self.before = chunk * sum(self.passes[:number]) - self.most
        self._say()

    def end_chunk(self, chunk: int) -> None:
        """All stages of a chunk are over."""
        self.finished += chunk * sum(self.passes)
        self.before, self.made, self.most = 0, 0, 0
        self._say()

    @contextlib.contextmanager
    def counting(self, model: Any) -> Iterator[None]:
        """Count the passes of a module; of another callable only whole stages are seen."""
        if self.tell is silent or not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
            yield
            return
        hook = model.register_forward_hook(self._passed)
        try:
            yield
        finally:
            hook.remove()

    def _passed(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.made += len(inputs[0]) if inputs else 0
        if time.monotonic() - self.told > _OFTEN:
            self._say()

    def _say(self) -> None:
        self.told = time.monotonic()
        done = self.finished + self.before + min(self.made, self.most)
        self.tell({"work": "attacks", "stage": self.stage, "done": done, "total": self.total})
