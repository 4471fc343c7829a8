"""Loss and accuracy while training, beside which sharpness is read (row D5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danskin.report.curves import Events, drawn, line
from danskin.report.drawing import Drawn


def draw(result: Mapping[str, Any], events: Events) -> list[Drawn]:
    """A figure for each."""
    out: list[Drawn] = []
    for name, key, label, shares in (
        ("loss", "train_loss", "training loss", False),
        ("accuracy", "clean", "validation accuracy", True),
    ):
        out += drawn(
            name,
            f"{label.capitalize()} of SGD and SAM",
            f"{label.capitalize()} by epoch, mean over seeds; 40 % of the training labels are wrong.",
            {title: [line(events, "", method, "epoch", "epoch", key)] for method, title in result["methods"].items()},
            x="epoch",
            y=label,
            shares=shares,
        )
    return out
