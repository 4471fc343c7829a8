"""`danskin distance`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer


def distance(
    sources: tuple[str, str], weights: list[Path], settings: dict[str, Any], as_json: bool, quiet: bool
) -> None:
    """Read both samples, print the bracket and the sampling floor."""
    from danskin.errors import ConfigError
    from danskin.run.distance import Asked, measured, read_sample

    if len(weights) > 2:
        raise ConfigError(f"--weights: expected one file for A and one for B, got {len(weights)}; leave some out")
    asked = Asked(**settings)
    files = [*weights, None, None][:2]
    first, second = (
        read_sample(source, file, asked.points, asked.seed + k)
        for k, (source, file) in enumerate(zip(sources, files, strict=True))
    )
    if not quiet:
        for sample in (first, second):
            if len(sample.measure) < sample.size:
                print(
                    f"{sample.source}: {len(sample.measure)} of {sample.size} points, drawn with the seed; --points "
                    "takes more",
                    file=sys.stderr,
                )
    result = measured(first, second, asked)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    from danskin.run.distance import sentence

    n, m = (sample["points"] for sample in result["samples"])
    name = f"W_{result['q']:g}"
    proof = "exact" if result["closed"] else "certified"
    typer.echo(f"{name}, l{result['p']} norm: {sentence(result)} ({proof}, {result['method']})")
    typer.echo(f"samples: {n} and {m} points of {result['dimension']} numbers")
    floor = result["floor"]
    if floor is None:
        typer.echo("sampling floor: none, A has too few points to be halved")
    else:
        typer.echo(f"sampling floor: {sentence(floor)} (two halves of A, {floor['points']} points each)")
    if "sliced" in result:
        found = result["sliced"]
        spread = "" if found["standard_error"] is None else f" ± {found['standard_error']:.2g}"
        typer.echo(
            f"sliced: {found['mean']:.6g}{spread} (an estimate, {found['directions']} directions); along the best line "
            f"{found['max']:.6g} (a lower bound of {name} in l2)"
        )
