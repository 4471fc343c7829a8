"""The folder of a lecture row: what may be there before, and what is written at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from danskin.errors import ConfigError, MissingError
from danskin.files import check_folder, write_json, write_text
from danskin.report.page import check_installed
from danskin.report.tables import markdown
from danskin.run import lock
from danskin.run.lock import locked
from danskin.run.recipe import parse_yaml, read_mapping, to_yaml


def check_new_or_resumed(out: Path, resume: bool) -> None:
    """Raise unless the folder is empty or not there, or what is in it is to be gone on with.

    Raises:
        ConfigError: there is content and `resume` is not set. The lock of a run that is starting is none.
    """
    check_folder(out)
    if not resume and out.exists() and (not out.is_dir() or any(p.name != lock.NAME for p in out.iterdir())):
        raise ConfigError(
            f"{out}: expected a new or empty folder, got one with content; choose another --out, or go on with --resume"
        )


def write_result(out: Path, result: dict[str, Any], page: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Write result.json, table.md and, where what it needs is installed, the page.

    Args:
        out: the folder.
        result: what result.json holds; returned.
        page: writes figures and page of a result.
    """
    write_json(out / "result.json", result)
    write_text(out / "table.md", markdown(result))
    try:
        check_installed()
        page(result)
    except MissingError as error:
        print(f"danskin: no report: {error}", file=sys.stderr)
    return result


def command_of(plan: Any) -> str:
    """How a row was asked for, with its scale and seeds."""
    return f"danskin reproduce {plan.row} --scale {plan.scale} --seeds {plan.seeds}"


@contextmanager
def begun(
    plan: Any, out: Path, resume: bool, check: Callable[[dict[str, Any], dict[str, Any], Path], None] | None = None
) -> Iterator[None]:
    """The folder of a plan, locked, with its plan.yaml written.

    Args:
        plan: a row at a scale.
        out: its folder.
        resume: go on with what is there; more seeds than before are welcome.
        check: raises unless the plan that is asked for goes on with the known one; default: `check_same`.

    Raises:
        ConfigError: there is content and `resume` is not set, or it is of another plan.
    """
    check_new_or_resumed(out, resume)
    path, text = out / "plan.yaml", to_yaml(plan.to_plain())
    if path.is_file():
        (check or check_same)(parse_yaml(text, "the plan"), read_mapping(path), out)
    with locked(out):
        write_text(path, text)
        yield


def check_same(asked: Mapping[str, Any], known: Mapping[str, Any], out: Path) -> None:
    """Raise unless everything but the seeds is the same.

    Raises:
        ConfigError: another plan, with the first key that differs.
    """
    for key in asked.keys() | known.keys():
        if key != "seeds" and asked.get(key) != known.get(key):
            raise ConfigError(
                f"{out}: expected what was begun there ({known.get('row')} at scale {known.get('scale')}), got another "
                f"plan ({key} differs); choose another --out"
            )
