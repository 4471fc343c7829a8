"""The worst class beside the average while training (row C15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danskin.report.curves import Events, drawn, line
from danskin.report.drawing import Drawn


def draw(result: Mapping[str, Any], events: Events) -> list[Drawn]:
    """A line per method for each."""
    both = {
        name: [line(events, "", method, "epoch", "epoch", key) for key in ("worst_class", "robust")]
        for method, name in result["methods"].items()
    }
    return drawn(
        "worst-class",
        "Average and worst class while training",
        "Robust validation accuracy of the worst class (solid) and the average (dashed), mean over seeds.",
        both,
        x="epoch",
        y="robust validation accuracy",
    )
