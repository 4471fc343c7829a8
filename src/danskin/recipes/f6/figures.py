"""Gaps of the critics while they train, as shares of W1 (row F6)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from danskin.recipes.f6.plan import CriticPlan
from danskin.report.curves import drawn
from danskin.report.drawing import Drawn


def draw(plan: CriticPlan, cells: Sequence[Mapping[str, Any]]) -> list[Drawn]:
    """A figure for each problem, of seed 0; a gap is a bound only where the constant is 1."""
    figures: list[Drawn] = []
    for case in plan.cases:
        lines = {
            plan.names[c["method"]]: [[(float(step), float(gap)) for step, gap in c["history"]]]
            for c in cells
            if c["case"] == case and c["seed"] == 0
        }
        name = re.sub("[^a-z0-9]+", "-", case.lower()).strip("-")
        told = f"{case}: the critic's gap divided by exact W1 while training, seed 0; above 1 it is no bound."
        figures += drawn(f"gap-{name}", f"Gap, {case}", told, lines, x="steps", y="gap / W1", shares=False)
    return figures
