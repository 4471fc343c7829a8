"""Robust accuracy against the time of an epoch, for each radius (row C14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danskin.report.curves import Events, points, scattered
from danskin.report.drawing import Drawn


def draw(result: Mapping[str, Any], events: Events) -> list[Drawn]:
    """A figure per case."""
    out = []
    for case in result["cases"]:
        seconds, robust = points(result, case, "seconds per epoch", "-"), points(result, case, "AutoAttack", "last")
        at = {name: (seconds[m], robust[m]) for m, name in result["methods"].items() if m in robust and m in seconds}
        out += scattered(
            f"time-{case or 'all'}",
            f"Robust accuracy against time, {case}",
            f"Robust accuracy of the last weights against seconds per epoch, radius {case.replace('-', '/')}.",
            at,
            x="seconds per epoch",
            y="robust accuracy",
        )
    return out
