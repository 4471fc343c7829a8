"""`danskin reproduce ROW`: every seed, then the numbers, the claims, the table, the figures and the page.

A folder OUT holds plan.yaml, a run folder for each seed (OUT/seed-N, or OUT/CASE/seed-N), result.json, table.md,
figures/ and report.html. Everything but the seeds is made anew from them each time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from danskin.data import load
from danskin.errors import ConfigError
from danskin.files import read_json, write_json
from danskin.recipes.cost import costs
from danskin.recipes.folder import begun, check_same, write_result
from danskin.recipes.gather import gathered
from danskin.recipes.page import write_page_of
from danskin.recipes.rows import Plan
from danskin.recipes.work import default_jobs, tasks_of, work
from danskin.run.config import TrainConfig
from danskin.run.schema import build, plain


def reproduce(
    plan: Plan,
    out: Path,
    *,
    jobs: int | None = None,
    resume: bool = False,
    quiet: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run a plan and write what came of it.

    Args:
        plan: a row at a scale.
        out: its folder.
        jobs: runs at a time; default: one for each core, and one on a GPU.
        resume: go on with what is in `out`; more seeds than before are welcome.
        quiet: no progress of the runs.
        say: is told what comes next.

    Returns:
        What result.json holds.

    Raises:
        ConfigError: `out` has content and `resume` is not set, or holds another plan.
        MissingError: the data are not there.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs: expected at least 1, got {jobs}; leave it out for one per core")
    for config in plan.cases.values():
        load(config.data.name, config.data.folder, download=config.data.download)  # before anything is written
    with begun(plan, out, resume, lambda asked, known, out: check_same(asked, _as_of_now(known), out)):
        tasks = tasks_of(plan, out, quiet)
        left, jobs = sum(not t.finished for t in tasks), jobs or default_jobs(plan)
        say(f"{plan.row} at scale {plan.scale}: {plan.says}")
        say(f"{len(tasks)} runs, {left} of them to do, {min(jobs, max(left, 1))} at a time, in {out}")
        work(tasks, jobs)
        result = gathered(plan, out, _costs(plan, out))
        return write_result(out, result, lambda told: write_page_of(plan, out, told))


def _as_of_now(known: dict[str, Any]) -> dict[str, Any]:
    """A plan on disk with the settings that have been added since then, at their defaults."""
    try:
        cases = {label: plain(build(TrainConfig, node)) for label, node in known["cases"].items()}
    except (ConfigError, KeyError, AttributeError):  # settings that are no more: another plan, which is said elsewhere
        return known
    return known | {"cases": cases}


def _costs(plan: Plan, out: Path) -> dict[str, dict[str, float]]:
    path = out / "cost.json"
    if not path.is_file():
        write_json(path, costs(plan))
    return read_json(path)
