"""What row G3 will cost, before it is started: a few steps of each method are timed. Lecture: row G3."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from danskin.errors import MissingError
from danskin.recipes.g3.plan import RLPlan
from danskin.run.robust_rl import RobustRLConfig

_BEFORE, _TIMED = 4, 8  # even: TD3's players move in every second step


def seconds_per_step(config: RobustRLConfig) -> float:
    """The mean over eight steps of all seeds, with learning, after some to warm up; on a learner that is thrown away.

    Raises:
        MissingError: gymnasium or mujoco is needed and not installed.
    """
    torch.set_num_threads(config.threads)
    schedule = replace(config.schedule, steps=_BEFORE + _TIMED, warmup=_BEFORE // 2, capacity=None)
    learner = replace(config, schedule=schedule).learner()
    for _ in range(_BEFORE):
        learner.step()
    started = time.perf_counter()
    learner.run()
    return (time.perf_counter() - started) / _TIMED


def estimate(plan: RLPlan) -> str:
    """The work of a plan in words: steps, seconds of one and time of all; not timed where something is missing."""
    lines, total = [], 0.0
    for label, config in plan.methods.items():
        schedule = config.schedule
        line = f"{label}: {schedule.steps} steps of {config.seeds} seeds in {config.environment}"
        try:
            seconds = seconds_per_step(config)
        except MissingError as error:
            lines += [line, f"not timed: {error}"]
            return "\n".join(lines)
        total += seconds * (schedule.steps - schedule.warmup)
        lines.append(f"{line}, {schedule.warmup} of them without learning, {seconds:.4f} s each of the others")
    whole = f"{total / 60:.1f} min" if total < 36000 else f"{total / 3600:.0f} h"
    return "\n".join([*lines, f"about {whole} of training, one method after the other, evaluation not counted"])
