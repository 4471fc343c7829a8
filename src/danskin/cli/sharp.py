"""`danskin sharpness`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer


def sharpness(
    sources: list[Path], settings: dict[str, Any], device: str, out: Path | None, as_json: bool, quiet: bool
) -> None:
    """Measure, write the folder, print the table."""
    from danskin.files import check_folder, new_folder
    from danskin.run.runtime import Runtime
    from danskin.run.sharpness import Questions, measured, subjects

    asked = Questions(**settings)
    folder = out or new_folder(Path("runs") / "sharpness")
    check_folder(folder, "choose another with --out")

    def listen(name: str, what: str) -> None:
        if not quiet:
            print(f"{name}: {what}", file=sys.stderr, flush=True)

    found = subjects(sources, asked, Runtime.start(device).device)
    result = measured(found, asked, folder, listen)
    if as_json:
        typer.echo(json.dumps(result | {"folder": str(folder)}))
        return
    _show(result)
    typer.echo(f"written: {folder}")


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from danskin.report.sharpness import note, table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    header, rows = table(result)
    shown = Table(title="Sharpness", title_justify="left")
    for i, name in enumerate(header):
        shown.add_column(name, justify="left" if i == 0 else "right")
    for cells in rows:
        shown.add_row(*(cell.replace("[", r"\[") for cell in cells))
    console.print(shown, highlight=False)
    typer.echo(note(result) + ".")
    for said in result["notes"]:
        print(f"danskin: note: {said}", file=sys.stderr)
