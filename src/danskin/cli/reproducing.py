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
    from danskin.errors import ConfigError
    from danskin.recipes.ways import way_of

    way = way_of(row.upper())
    if way is None:
        _trained(row, scale, seeds, jobs, out, resume, dry_run, as_json, quiet)
        return
    if jobs is not None:
        raise ConfigError(
            f"--jobs: expected none for {row}, which is carried out in one process, got {jobs}; leave it out"
        )
    plan = way.plan_of(row.upper(), scale, seeds)
    if dry_run:
        _print_plan(plan.to_plain(), as_json)
        print(way.estimate(plan), file=sys.stderr)
        return
    folder = out or _folder(plan)
    _carry_out(lambda say: way.run(plan, folder, resume=resume, say=say), folder, quiet, as_json)


def _trained(
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
    """A row of training runs, several at a time."""
    from danskin.recipes.reproduce import reproduce as run
    from danskin.recipes.rows import plan_of

    plan = plan_of(row, scale, seeds)
    if dry_run:
        from danskin.recipes.cost import costs, describe, estimate
        from danskin.recipes.work import default_jobs

        _print_plan(describe(plan), as_json)
        print(estimate(plan, costs(plan), jobs or default_jobs(plan)), file=sys.stderr)
        return
    folder = out or _folder(plan)
    _carry_out(lambda say: run(plan, folder, jobs=jobs, resume=resume, quiet=quiet, say=say), folder, quiet, as_json)


def _folder(plan: Any) -> Path:
    return Path("runs") / "reproduce" / f"{plan.row}-{plan.scale}"


def _print_plan(plain: dict[str, Any], as_json: bool) -> None:
    from danskin.run.recipe import to_yaml

    typer.echo(json.dumps(plain) if as_json else to_yaml(plain).rstrip())


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
