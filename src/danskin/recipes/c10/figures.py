"""Accuracy under FGSM and PGD, and misalignment of gradients, over the steps of training (rows C10 and C11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danskin.report.curves import Events, drawn, line
from danskin.report.drawing import Drawn


def draw(result: Mapping[str, Any], events: Events) -> list[Drawn]:
    """Two figures with a line per method."""
    names = result["methods"]

    def watched(key: str) -> dict[str, list[Any]]:
        return {name: [line(events, "", method, "watch", "step", key)] for method, name in names.items()}

    fgsm, pgd = watched("fgsm"), watched("pgd")
    both = {name: [pgd[name][0], fgsm[name][0]] for name in fgsm}
    return [
        *drawn(
            "overfitting",
            "Accuracy under FGSM and PGD while training",
            "Held-out accuracy under PGD (solid) and FGSM (dashed), mean over seeds. Where they part, the network has "
            "learned to resist FGSM and nothing else.",
            both,
            x="step",
            y="accuracy",
        ),
        *drawn(
            "misalignment",
            "Misalignment of gradients while training",
            "1 - cos of the loss gradients at the input and at a random point of the ball, mean over held-out examples "
            "and seeds.",
            watched("misalignment"),
            x="step",
            y="misalignment",
            shares=False,
        ),
    ]
