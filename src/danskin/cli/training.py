"""`danskin train`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import typer

from danskin.errors import ConfigError


def train(
    words: list[str], resume: Path | None, out: Path | None, runs: Path, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Start or go on with a run; print its table and the path of its report."""
    recipe, overrides = split(words)
    from danskin.cli.progress import Progress, results_table
    from danskin.files import check_folder
    from danskin.run.config import TrainConfig, load_config
    from danskin.run.record import read_config
    from danskin.run.runtime import Runtime
    from danskin.run.train import train as run_training

    if resume is not None:
        if words or out is not None:
            raise ConfigError(
                "train: expected --resume alone, got it with a recipe, settings or --out; a run goes on as it began: "
                "drop them, or start a new run"
            )
        config = read_config(resume, TrainConfig)
    else:
        config = load_config(recipe or "digits", overrides)
        if dry_run:
            _dry_run(config, as_json)
            return
        check_folder(out or runs, "choose another with --out or --runs")
    runtime = Runtime.start(config.device, config.threads, config.deterministic)
    with contextlib.ExitStack() as held:
        held.callback(runtime.close)
        record = begun(config, resume, out, runs, runtime, held)
        with Progress(lambda label: config.trainer_of(label).epochs, quiet or not runtime.main) as progress:
            try:
                result = run_training(config, record, runtime, progress.event)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"go on with danskin train --resume {record.folder}") from None
        if not runtime.main:
            return
        path = _report(record.folder)
    if as_json:
        typer.echo(json.dumps({"run": str(record.folder), "report": path, **result}))
    else:
        results_table(result)
        typer.echo(f"run:    {record.folder}")
        typer.echo(f"report: {path or 'not written'}")


def begun(
    config: Any, resume: Path | None, out: Path | None, runs: Path, runtime: Any, held: contextlib.ExitStack
) -> Any:
    """The record of the run, new or as it was left; its folder is this run's alone until `held` ends."""
    from danskin.run.lock import locked
    from danskin.run.record import Record

    def begin() -> Path:
        if resume is not None:
            held.enter_context(locked(resume))
            return Record.open(resume, type(config))[0].folder
        if out is not None:
            held.enter_context(locked(out))
            return Record.create(config, runs, out).folder
        folder = Record.create(config, runs).folder
        held.enter_context(locked(folder))
        return folder

    return Record(Path(runtime.share(runtime.on_main(begin))))


def split(words: list[str]) -> tuple[str | None, list[str]]:
    """The recipe, if the first word is one, and the overrides."""
    if words and "=" not in words[0]:
        return words[0], words[1:]
    return None, words


def _report(folder: Path) -> str | None:
    from danskin.errors import MissingError
    from danskin.report.training import write_report

    try:
        return str(write_report(folder))
    except MissingError as error:
        print(f"danskin: no report: {error}", file=sys.stderr)
        return None


def _dry_run(config: Any, as_json: bool) -> None:
    """The resolved config on stdout, the work it means on stderr."""
    from danskin.run.plan import plan
    from danskin.run.recipe import to_yaml
    from danskin.run.schema import plain

    typer.echo(json.dumps(plain(config)) if as_json else to_yaml(config).rstrip())
    print(plan(config), file=sys.stderr)
