"""`danskin reproduce`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from danskin.cli import EXIT_CLAIM


def reproduce(
    row: str,
    scale: str,
    seeds: int | None,
    jobs: int | None,
    out: Path | None,
    resume: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a lecture row and print its table; exit code 3 when a claim does not hold."""
    from danskin.recipes.rows import OWN, STUDIES

    if row.upper() in STUDIES or row.upper() in OWN:
        _study(row.upper(), scale, seeds, jobs, out, resume, dry_run, as_json, quiet)
        return
    from danskin.recipes.reproduce import reproduce as run
    from danskin.recipes.rows import plan_of

    plan = plan_of(row, scale, seeds)
    if dry_run:
        _dry_run(plan, jobs, as_json)
        return
    folder = out or Path("runs") / "reproduce" / f"{plan.row}-{plan.scale}"
    _carry_out(lambda say: run(plan, folder, jobs=jobs, resume=resume, quiet=quiet, say=say), folder, quiet, as_json)


def _study(
    row: str,
    scale: str,
    seeds: int | None,
    jobs: int | None,
    out: Path | None,
    resume: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """A row of games, or one with a way of its own: one process does all of it."""
    from importlib import import_module

    from danskin.errors import ConfigError
    from danskin.recipes.rows import OWN
    from danskin.run.recipe import to_yaml

    study_of: Any
    run_study: Any
    if row in OWN:
        home = f"danskin.recipes.{row.lower()}"
        study_of, run_study = (
            import_module(f"{home}.plan").plan_of,
            import_module(f"{home}.study").run_study,
        )
        together = "which is carried out in one process"
    else:
        from danskin.recipes.game_plan import study_of
        from danskin.recipes.game_study import run_study

        together = "whose starts are one batch"
    if jobs is not None:
        raise ConfigError(f"--jobs: expected none for {row}, {together}, got {jobs}; leave it out")
    study = study_of(row, scale, seeds)
    if dry_run:
        typer.echo(json.dumps(study.to_plain()) if as_json else to_yaml(study.to_plain()).rstrip())
        estimate = import_module(f"{home}.cost").estimate if row in OWN else None
        work = estimate(study) if estimate else f"{len(list(study.tasks()))} runs, the starts of each in one batch"
        print(work, file=sys.stderr)
        return
    folder = out or Path("runs") / "reproduce" / f"{row}-{scale}"
    _carry_out(lambda say: run_study(study, folder, resume=resume, say=say), folder, quiet, as_json)


def _carry_out(
    run: Callable[[Callable[[str], None]], dict[str, Any]], folder: Path, quiet: bool, as_json: bool
) -> None:
    """Run a row, which is told how to say what comes next, and print what came of it."""

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    try:
        result = run(say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with --resume --out {folder}") from None
    _tell(result, folder, as_json)


def _tell(result: dict[str, Any], folder: Path, as_json: bool) -> None:
    """The table or JSON; exit code 3 when a claim does not hold."""
    outside = [claim["name"] for claim in result["claims"] if claim["outside"]]
    if as_json:
        typer.echo(json.dumps(result | {"run": str(folder)}))
    else:
        _show(result, folder)
    if outside:
        print(f"danskin: claims outside their tolerance: {', '.join(outside)}", file=sys.stderr)
        raise typer.Exit(EXIT_CLAIM)


def _show(result: dict[str, Any], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from danskin.report.tables import claim_rows, note, table

    console = Console()
    if not console.is_terminal:
        console = Console(width=220)
    for case in result["cases"]:
        header, rows = table(result, case)
        shown = Table(title=f"{result['row']} {case}: {result['title']}".replace(" :", ":"), title_justify="left")
        for i, name in enumerate(header):
            shown.add_column(name, justify="left" if i == 0 else "right")
        for cells in rows:
            shown.add_row(*(cell.replace("[", r"\[") for cell in cells))
        console.print(shown, highlight=False)
    typer.echo(f"{note(result)}.\nScale {result['scale']}: {result['says']}")
    for word, says, value, bounds in claim_rows(result):
        typer.echo(f"{word}: {says} Measured {value}, expected {bounds}.")
    typer.echo(f"run:    {folder}\nreport: {folder / 'report.html'}")


def _dry_run(plan: Any, jobs: int | None, as_json: bool) -> None:
    """The resolved plan on stdout, the work it means on stderr."""
    from danskin.recipes.cost import costs, describe, estimate
    from danskin.recipes.work import default_jobs
    from danskin.run.recipe import to_yaml

    described = describe(plan)
    typer.echo(json.dumps(described) if as_json else to_yaml(described).rstrip())
    print(estimate(plan, costs(plan), jobs or default_jobs(plan)), file=sys.stderr)
