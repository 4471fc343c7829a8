"""Robust validation accuracy while training, the best epoch marked (rows C7 and C8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danskin.report.curves import Events, drawn, line
from danskin.report.drawing import Drawn


def draw(result: Mapping[str, Any], events: Events) -> list[Drawn]:
    """One curve per method, and training loss beside it."""
    names = result["methods"]
    robust = {name: [line(events, "", method, "epoch", "epoch", "robust")] for method, name in names.items()}
    best = {name: max(group[0], key=lambda p: p[1]) for name, group in robust.items() if group[0]}
    loss = {name: [line(events, "", method, "epoch", "epoch", "train_loss")] for method, name in names.items()}
    note = "mean over seeds; a dot marks the best epoch of that mean."
    return [
        *drawn(
            "learning-curves",
            "Robust validation accuracy while training",
            f"Validation accuracy under the monitoring attack, {note}",
            robust,
            x="epoch",
            y="robust validation accuracy",
            marks=best,
        ),
        *drawn(
            "training-loss",
            "Training loss",
            "What the weights minimise, at the points trained on; the scales of different objectives differ.",
            loss,
            x="epoch",
            y="training loss",
            shares=False,
        ),
    ]
