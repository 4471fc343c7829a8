"""What row F6 will cost, before it is started: a few steps of each critic are timed. Lecture: row F6."""

from __future__ import annotations

import time
from dataclasses import replace

from danskin.critics.samples import samples
from danskin.recipes.f6.critics import dual_of, points_of
from danskin.recipes.f6.plan import CriticPlan

_STEPS = 5


def estimate(plan: CriticPlan) -> str:
    """The work of a plan in words."""
    lines, total = [], 0.0
    for case, told in plan.cases.items():
        x, y = points_of(told, 0)
        for method, way in plan.methods.items():
            dual = dual_of(way, told, x.shape[1], 0)
            ascent = replace(dual.ascent, steps=_STEPS)
            ascent(dual.critic, x, y, samples(x, y))  # the first call allocates
            start = time.perf_counter()
            ascent(dual.critic, x, y, samples(x, y))
            seconds = (time.perf_counter() - start) / _STEPS
            total += seconds * told["steps"]
            lines.append(f"{case}, {method}: {told['steps']} steps, {seconds:.4f} s each")
    runs = f"{plan.seeds} seed{'' if plan.seeds == 1 else 's'} of each"
    return "\n".join([*lines, f"{runs}: about {plan.seeds * total / 60:.1f} min, exact distances not counted"])
