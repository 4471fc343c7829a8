"""`danskin gan`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import typer

from danskin.errors import ConfigError


def gan(
    words: list[str], resume: Path | None, out: Path | None, runs: Path, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Start or go on with a run; print its table and the path of its report."""
    from danskin.cli.progress import GANProgress
    from danskin.cli.training import begun, split
    from danskin.files import check_folder
    from danskin.run.gan import GANConfig, load_gan_config, train_gan
    from danskin.run.record import read_config
    from danskin.run.runtime import Runtime

    recipe, overrides = split(words)
    if resume is not None:
        if words or out is not None:
            raise ConfigError(
                "gan: expected --resume alone, got it with a recipe, settings or --out; a run goes on as it began: "
                "drop them, or start a new run"
            )
        config = read_config(resume, GANConfig)
    else:
        config = load_gan_config(recipe or "gan_8_gaussians", overrides)
        if dry_run:
            _dry_run(config, as_json)
            return
        check_folder(out or runs, "choose another with --out or --runs")
    runtime = Runtime.start(config.device, config.threads, config.deterministic)
    with contextlib.ExitStack() as held:
        held.callback(runtime.close)
        record = begun(config, resume, out, runs, runtime, held)
        with GANProgress(quiet or not runtime.main) as progress:
            try:
                result = train_gan(config, record, runtime, progress.event)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"go on with danskin gan --resume {record.folder}") from None
        if not runtime.main:
            return
        path = _report(record.folder)
    if as_json:
        typer.echo(json.dumps({"run": str(record.folder), "report": path, **result}))
        return
    from danskin.report.gan import result_lines

    for line in result_lines(result):
        typer.echo(line)
    typer.echo(f"run:    {record.folder}\nreport: {path or 'not written'}")


def _report(folder: Path) -> str | None:
    from danskin.errors import MissingError
    from danskin.report.gan import write_gan_report

    try:
        return str(write_gan_report(folder))
    except MissingError as error:
        print(f"danskin: no report: {error}", file=sys.stderr)
        return None


def _dry_run(config: Any, as_json: bool) -> None:
    """The resolved config on stdout, the work it means on stderr."""
    from danskin.run.gan_plan import plan
    from danskin.run.recipe import to_yaml
    from danskin.run.schema import plain

    typer.echo(json.dumps(plain(config)) if as_json else to_yaml(config).rstrip())
    print(plan(config), file=sys.stderr)
