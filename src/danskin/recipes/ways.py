"""How the rows that are no training runs are carried out: each in one process, in one of three ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from danskin.recipes.rows import CELLS, OWN, STUDIES


@dataclass(frozen=True)
class Way:
    """What a row needs.

    Args:
        plan_of: (row, scale, seeds or None) -> its plan.
        run: (plan, folder, resume=, say=) -> what result.json holds.
        estimate: the work of a plan, in words.
    """

    plan_of: Callable[[str, str, int | None], Any]
    run: Callable[..., dict[str, Any]]
    estimate: Callable[[Any], str]


def way_of(row: str) -> Way | None:
    """Of a row; None where it is one of training runs (`danskin.recipes.reproduce`) or none at all."""
    if row in STUDIES:
        from danskin.recipes import game_plan, game_study

        return Way(game_plan.study_of, game_study.run_study, game_plan.estimate)
    if row in CELLS:
        from danskin.recipes import sampling_study

        return Way(sampling_study.plan_of, sampling_study.run_study, sampling_study.estimate)
    if row in OWN:
        plan, study, cost = (
            import_module(f"danskin.recipes.{row.lower()}.{part}") for part in ("plan", "study", "cost")
        )
        return Way(plan.plan_of, study.run_study, cost.estimate)
    return None
