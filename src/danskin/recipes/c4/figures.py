"""Robust validation accuracy epoch by epoch (row C4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danskin.report.curves import Events, drawn, line
from danskin.report.drawing import Drawn


def draw(result: Mapping[str, Any], events: Events) -> list[Drawn]:
    """A line per method."""
    robust = {
        name: [line(events, "", method, "epoch", "epoch", "robust")] for method, name in result["methods"].items()
    }
    return drawn(
        "learning-curves",
        "Robust validation accuracy while training",
        "Validation accuracy under PGD-20, mean over seeds; one step of DDi costs as much as ten of PGD training.",
        robust,
        x="epoch",
        y="robust validation accuracy",
    )
