"""The page of a reproduction: one HTML file that opens offline, and its figures as SVG files."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danskin.recipes.rows import Plan
from danskin.recipes.tables import claim_rows, note, table
from danskin.recipes.work import run_folder
from danskin.run.figures import Drawn
from danskin.run.pages import Run, check_installed, write_page
from danskin.run.report import read_events

Events = dict[tuple[str, int], list[dict[str, Any]]]


def events_of(plan: Plan, out: Path) -> Events:
    """The events of every run, by case and seed."""
    found = {}
    for case, seed in plan.tasks():
        path = run_folder(out, case, seed) / "metrics.jsonl"
        found[case, seed] = read_events(path.read_text(encoding="utf-8", errors="replace"))
    return found


def drawn_for(plan: Plan, out: Path, result: Mapping[str, Any]) -> list[Drawn]:
    """The figures of the row: its own module draws them."""
    module = importlib.import_module(f"danskin.recipes.{plan.folder.name}.figures")
    figures: list[Drawn] = module.draw(result, events_of(plan, out))
    return figures


def write_reproduction(plan: Plan, out: Path, result: Mapping[str, Any]) -> Path:
    """Write figures/*.svg and report.html; the path of the page.

    Raises:
        MissingError: matplotlib or jinja2 is not installed.
    """
    check_installed()
    drawn = drawn_for(plan, out, result)
    context = {
        "result": result,
        "tables": [(case, *table(result, case)) for case in result["cases"]],
        "note": note(result),
        "claims": [
            (row, "wrong" if claim["outside"] else "", claim["source"])
            for row, claim in zip(claim_rows(result), result["claims"], strict=True)
        ],
        "drawn": drawn,
        "command": f"danskin reproduce {plan.row} --scale {plan.scale} --seeds {plan.seeds}",
        "configs": json.dumps(result["configs"], indent=1, ensure_ascii=False),
    }
    return write_page("reproduction.html.j2", Run(out, result=dict(result)), drawn, context)
