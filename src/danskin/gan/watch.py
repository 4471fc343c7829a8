"""Training that goes nowhere, seen while it does: stuck, saturated, collapsed, or a critic that runs away."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What each flag means, and what to do.
MEANINGS = {
    "stuck": "losses have not moved at all; the networks get no gradient: lower the learning rates, or see the "
    "critic's last layer",
    "saturated": "the generator's loss is flat where its samples lie (weight below 0.001): the critic is too sure; "
    "take the non-saturating or relativistic objective, or constrain the critic",
    "collapsed": "generated examples vary by less than a hundredth of what real ones do",
    "running_away": "the critic's gap is above a million: nothing bounds its slope; add a constraint or raise its "
    "weight",
}


@dataclass
class Watch:
    """Looks at what steps report, and says each thing once.

    Args:
        window: reports that must agree.
    """

    window: int = 5
    seen: dict[str, int] = field(default_factory=dict)
    past: deque[dict[str, float]] = field(default_factory=deque)

    def look(self, step: int, told: Mapping[str, float]) -> list[str]:
        """Names of the flags that are new at this step.

        Args:
            step: of the report.
            told: numbers of `GANRun.step`.
        """
        self.past.append(dict(told))
        if len(self.past) > self.window:
            self.past.popleft()
        if len(self.past) < self.window:
            return []
        found = [name for name, is_so in _SIGNS.items() if name not in self.seen and is_so(list(self.past))]
        for name in found:
            self.seen[name] = step
        return found

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"seen": dict(self.seen), "past": list(self.past)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on."""
        self.seen, self.past = dict(state["seen"]), deque(state["past"])


def _stuck(past: list[dict[str, float]]) -> bool:
    return all(_range([p[name] for p in past]) <= 1e-9 for name in ("critic_loss", "generator_loss"))


def _range(values: list[float]) -> float:
    """Relative to their size."""
    return (max(values) - min(values)) / max(1.0, *map(abs, values))


_SIGNS = {
    "stuck": _stuck,
    "saturated": lambda past: all(p["generator_weight"] < 1e-3 for p in past),
    "collapsed": lambda past: all(p["spread"] < 1e-2 for p in past),
    "running_away": lambda past: all(abs(p["gap"]) > 1e6 for p in past),
}
