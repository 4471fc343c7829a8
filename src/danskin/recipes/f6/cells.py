"""Row F6: critics whose only difference is the activation, and its width. Lecture: row F6."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from danskin.files import slug
from danskin.recipes.critic_cells import estimate, exact, fitted, proved
from danskin.report.curves import drawn
from danskin.report.drawing import Drawn

__all__ = ["cell", "draw", "estimate"]


def cell(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What a critic proves of a problem."""
    truth = exact(settings["problem"], settings["n"], seed).bracket.value
    start = time.process_time()
    found = proved(fitted(settings, seed), truth)
    found["numbers"]["CPU s"] = time.process_time() - start
    return found


def draw(result: Mapping[str, Any]) -> list[Drawn]:
    """Gaps while training; every critic here has constant 1, so each is a bound of its own samples."""
    figures: list[Drawn] = []
    for case, curves in result["curves"].items():
        lines = {result["methods"][m]: [[(float(step), float(gap)) for step, gap in c]] for m, c in curves.items()}
        told = f"{case}: the critic's gap divided by exact W1 while training, mean of the seeds."
        figures += drawn(f"gap-{slug(case)}", f"Gap, {case}", told, lines, x="steps", y="gap / W1", shares=False)
    return figures
