"""What `danskin train` and `danskin gan` share: begin a run or go on with one, and say where its report is."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import typer

from danskin.errors import ConfigError, MissingError


class Command(NamedTuple):
    """What such a command has of its own: its name, the recipe taken where none is given, and the rest by functions."""

    name: str
    recipe: str
    config: type
    load: Callable[[str, list[str]], Any]  # recipe, settings -> config
    plan: Callable[[Any], str]  # config -> the work it means
    run: Callable[..., dict[str, Any]]  # config, record, runtime, listener -> result
    progress: Callable[[Any, bool], AbstractContextManager[Any]]  # config, quiet -> what shows events
    show: Callable[[dict[str, Any]], None]  # prints a result
    report: Callable[[Path], Path]  # run folder -> page


def carry_out(
    command: Command,
    words: list[str],
    resume: Path | None,
    out: Path | None,
    runs: Path,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Start or go on with a run; print its table and the path of its report."""
    from danskin.files import check_folder
    from danskin.run.recipe import to_yaml
    from danskin.run.record import read_config
    from danskin.run.runtime import Runtime
    from danskin.run.schema import plain

    config: Any
    if resume is not None:
        if words or out is not None:
            raise ConfigError(
                f"{command.name}: expected --resume alone, got it with a recipe, settings or --out; a run goes on as "
                "it began: drop them, or start a new run"
            )
        config = read_config(resume, command.config)
    else:
        config = command.load(*_split(words, command.recipe))
        if dry_run:  # the config on stdout, the work it means on stderr
            typer.echo(json.dumps(plain(config)) if as_json else to_yaml(config).rstrip())
            print(command.plan(config), file=sys.stderr)
            return
        check_folder(out or runs, "choose another with --out or --runs")
    runtime = Runtime.start(config.device, config.threads, config.deterministic)
    with contextlib.ExitStack() as held:
        held.callback(runtime.close)
        record = _begun(config, resume, out, runs, runtime, held)
        with command.progress(config, quiet or not runtime.main) as progress:
            try:
                result = command.run(config, record, runtime, progress.event)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"go on with danskin {command.name} --resume {record.folder}") from None
        if not runtime.main:
            return
        path: str | None = None
        try:
            path = str(command.report(record.folder))
        except MissingError as error:
            print(f"danskin: no report: {error}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps({"run": str(record.folder), "report": path, **result}))
    else:
        command.show(result)
        typer.echo(f"run:    {record.folder}\nreport: {path or 'not written'}")


def _split(words: list[str], recipe: str) -> tuple[str, list[str]]:
    """The recipe, the first word if that is one, and the overrides."""
    if words and "=" not in words[0]:
        return words[0], words[1:]
    return recipe, words


def _begun(
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
