"""`danskin evaluate` and `danskin attack`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer


def _open(source: Path, overrides: list[str], device: str, only: str | None) -> Any:
    """(config with overrides, split, models, runtime) of a run folder or a weights file."""
    from danskin.errors import ConfigError
    from danskin.run.runtime import Runtime
    from danskin.run.source import open_source

    runtime = Runtime.start(device)
    config, split, models = open_source(source, overrides, runtime.device)
    if only is not None and only not in models:
        raise ConfigError(f"--model: expected one of {', '.join(models)}, got {only!r}; leave it out for all")
    return config, split, models if only is None else {only: models[only]}, runtime


def evaluate(
    source: Path, overrides: list[str], only: str | None, device: str, out: Path | None, as_json: bool, quiet: bool
) -> None:
    """Judge models and print the table."""
    from danskin.cli.progress import Progress, results_table
    from danskin.files import check_file, write_json

    if out is not None:
        check_file(out)
    config, split, models, _ = _open(source, overrides, device, only)
    from danskin.run.train import evaluate_all

    with Progress(lambda label: config.trainer_of(label).epochs, quiet) as progress:
        result = evaluate_all(config, split, models, progress.event)
    if out is not None:
        write_json(out, result)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        results_table(result)


def verdict(
    source: Path | None,
    overrides: list[str],
    spec: str | None,
    weights: Path | None,
    arguments: list[str],
    statistics: tuple[str | None, str | None],
    data: str | None,
    settings: dict[str, Any],
    ball: str | None,
    device: str,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """A full verdict of one model, or of each model of a run; prints it and where the report is."""
    from danskin.cli.progress import JudgingProgress
    from danskin.files import check_folder, read_json
    from danskin.run.asking import questions
    from danskin.run.runtime import Runtime
    from danskin.run.verdict import judge, place

    runtime = Runtime.start(device)
    try:
        runtime.on_main(lambda: check_folder(out or Path("verdicts")))
        asked = questions(source, overrides, spec, weights, arguments, statistics, data, ball, settings, runtime.device)
        results = []
        for question in asked:
            if out is None:
                folder = place(question, Path("verdicts"), runtime)
            else:
                folder = out if len(asked) == 1 else out / question.opened.name
            if runtime.main:
                _tell_fewer("--examples", question.n, len(question.data.y_test))
            with JudgingProgress(quiet or not runtime.main) as progress:
                try:
                    found = judge(question, folder, runtime, progress.event)
                except KeyboardInterrupt:
                    raise KeyboardInterrupt(f"go on with the same command; what was found is in {folder}") from None
            if found is None:
                continue
            if as_json:
                results.append(read_json(folder / "verdict.json") | {"folder": str(folder)})
            else:
                typer.echo(f"{question.opened.name} on {question.data.name}, {question.ball}, {len(found.y)} examples")
                if question.opened.note:
                    typer.echo(f"model: {question.opened.note}", err=True)
                typer.echo(f"{found}\nreport: {folder / 'report.html'}\n")
        if as_json and runtime.main:
            typer.echo(json.dumps(results[0] if len(results) == 1 else results))
    finally:
        runtime.close()


def _tell_fewer(option: str, wanted: int | None, there: int) -> None:
    """Say so where fewer examples are there than were asked for."""
    if wanted is not None and there < wanted:
        typer.echo(f"danskin: {option}: {wanted} asked for, {there} there: all of them are used", err=True)


def attack(
    source: Path,
    overrides: list[str],
    only: str | None,
    n: int,
    seed: int,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Attack test examples and say what came of it."""
    from danskin.files import check_file, write_atomically

    if out is not None:
        check_file(out)
    config, split, models, _ = _open(source, overrides, device, only)
    from danskin.run.evaluation import attack_examples
    from danskin.run.train import npz_bytes

    label, model = list(models.items())[-1]
    x, y = split.test[0][:n], split.test[1][:n]
    _tell_fewer("--n", n, len(split.test[1]))
    attacked, arrays = attack_examples(model, x, y, config.attack, seed)
    if out is not None:
        write_atomically(out, lambda stream: stream.write(npz_bytes(arrays)))
    cost = asdict(attacked.cost)
    wrong = int((arrays["clean_prediction"] != arrays["y"]).sum())
    hits = int(attacked.success.sum())
    if as_json:
        summary = {"model": label, "attack": repr(config.attack), "n": len(y), "wrong_before": wrong, "success": hits}
        typer.echo(json.dumps(summary | {"cost": cost, "status": str(attacked.status)}))
        return
    typer.echo(f"model:        {label}")
    typer.echo(f"attack:       {config.attack!r}")
    typer.echo(f"wrong before: {wrong} of {len(y)}")
    typer.echo(f"wrong after:  {hits} of {len(y)}")
    typer.echo(f"cost:         {cost['forwards']} forwards, {cost['backwards']} backwards, {cost['seconds']:.2f} s")
    typer.echo(f"status:       {attacked.status}")
    if out is not None:
        typer.echo(f"written:      {out}")


def report(folder: Path) -> Path:
    """Write the page of a run or of a verdict."""
    from danskin.errors import MissingError

    if (folder / "verdict.json").is_file() or (folder / "journal").is_dir():
        from danskin.report.verdict import write_verdict_report

        return write_verdict_report(folder)
    from danskin.report.training import write_report

    if not (folder / "config.yaml").is_file():
        raise MissingError(f"{folder}: expected the folder of a run, got no config.yaml there", "ls runs/* verdicts/*")
    if "kind: gan" in (folder / "config.yaml").read_text(encoding="utf-8").splitlines():
        from danskin.report.gan import write_gan_report

        return write_gan_report(folder)
    return write_report(folder)
