"""The page of a row: its own module draws, `danskin.report` writes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danskin.recipes.folder import command_of
from danskin.recipes.rows import Plan
from danskin.recipes.work import run_folder
from danskin.report.drawing import Drawn
from danskin.report.page import check_installed
from danskin.report.reproduction import write_reproduction
from danskin.report.training import read_events

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


def write_page_of(plan: Plan, out: Path, result: Mapping[str, Any]) -> Path:
    """Write figures/*.svg and report.html; the path of the page.

    Raises:
        MissingError: matplotlib or jinja2 is not installed.
    """
    check_installed()
    return write_reproduction(out, result, drawn_for(plan, out, result), command_of(plan))
