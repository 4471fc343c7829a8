"""Validation accuracy while training, over the seconds it took (row D3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danskin.report.curves import Events, Line, drawn, line
from danskin.report.drawing import Drawn


def draw(result: Mapping[str, Any], events: Events) -> list[Drawn]:
    """A figure for each case: accuracy against the CPU seconds that training took so far."""
    out: list[Drawn] = []
    for case in result["cases"]:
        out += drawn(
            f"time-{case or 'all'}",
            f"Accuracy over time, {case.replace('_', ' ') or 'all'}",
            "Validation accuracy against CPU seconds of training, mean over seeds at each epoch; SGD with twice the "
            "epochs has the gradients of SAM.",
            {name: [_over_time(events, case, method)] for method, name in result["methods"].items()},
            x="CPU seconds of training",
            y="validation accuracy",
        )
    return out


def _over_time(events: Events, case: str, method: str) -> Line:
    seconds = line(events, case, method, "epoch", "epoch", "cpu_seconds")
    spent, out = 0.0, []
    for (_, took), (_, accuracy) in zip(seconds, line(events, case, method, "epoch", "epoch", "clean"), strict=True):
        spent += took
        out.append((spent, accuracy))
    return out
