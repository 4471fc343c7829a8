"""What row F2 will cost, before it is started: a few steps of each kind of run are timed. Lecture: row F2."""

from __future__ import annotations

from danskin.errors import MissingError
from danskin.recipes.f2.plan import GANPlan
from danskin.run.gan_plan import timed


def estimate(plan: GANPlan) -> str:
    """The work of a plan in words; a problem whose data are missing is not timed."""
    lines, total = [], 0.0
    for (case, method), config in plan.configs.items():
        line = f"{case}, {method}: {config.trainer.steps} steps"
        try:
            seconds = timed(config)
        except MissingError as error:
            lines.append(f"{line}; not timed: {error}")
            continue
        total += seconds * config.trainer.steps
        lines.append(f"{line}, {seconds:.4f} s each")
    whole = f"{plan.seeds * total / 60:.1f} min"
    runs = f"{plan.seeds} seed{'' if plan.seeds == 1 else 's'} of each"
    return "\n".join([*lines, f"{runs}: about {whole} of training, one run after the other, judging not counted"])
