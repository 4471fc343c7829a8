"""What the pages of runs and of verdicts share: reading a folder with gaps, numbers as text, writing."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from danskin.errors import MissingError
from danskin.files import make_folder, write_text
from danskin.report.drawing import MODEL_COLORS, NORMS, Drawn


@dataclass
class Run:
    """What could be read of a run folder; `gaps` says why the rest could not."""

    folder: Path
    status: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    examples: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    command: str = ""
    gaps: dict[str, str] = field(default_factory=dict)

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Results by model."""
        return self.result.get("models") or {}

    @property
    def labels(self) -> list[str]:
        """All models there is something about, in the order they were trained."""
        pictured = [key.split("/", 1)[1].rsplit("/", 1)[0] for key in self.examples if key.startswith("adv/")]
        return list(dict.fromkeys([*self.models, *(e["model"] for e in self.events), *pictured]))


def read_text(path: Path, run: Run) -> str:
    """The text of a file; empty, with a gap noted, where it cannot be read."""
    try:
        # the last line of the metrics may be torn inside a character
        return path.read_text(encoding="utf-8", errors="replace" if path.suffix == ".jsonl" else "strict")
    except FileNotFoundError:
        run.gaps[path.name] = f"{path.name} is not there"
    except (OSError, UnicodeDecodeError) as error:
        run.gaps[path.name] = f"{path.name} cannot be read ({type(error).__name__})"
    return ""


def read_json(path: Path, run: Run) -> dict[str, Any]:
    """The mapping in a JSON file; empty, with a gap noted, where there is none."""
    text = read_text(path, run)
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        run.gaps[path.name] = f"{path.name} is not complete JSON"
        return {}
    return value


def percent_text(share: Mapping[str, Any] | None) -> str:
    """A share as text; a dash where unknown."""
    value = (share or {}).get("value")
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.2f} %"


def share_cell(share: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A share for the HTML table: texts, and where its bar and interval lie in percent of the width."""
    text = percent_text(share)
    if share is None or text == "–":
        return None
    low, high = (100 * v for v in share["interval"])
    return {
        "value": text,
        "count": f"{share['hits']} of {share['n']}",
        "interval": f"{low:.1f}–{high:.1f} %",
        "bar": f"{100 * share['value']:.2f}",
        "left": f"{low:.2f}",
        "width": f"{high - low:.2f}",
    }


def parse_number(text: Any) -> float | None:
    """A number or a fraction such as 8/255; None for anything else."""
    try:
        return float(Fraction(str(text)))
    except (ValueError, ZeroDivisionError):
        return None


def when(status: Mapping[str, Any]) -> tuple[str, str]:
    """When the run started, and how long it took, as text; empty where unknown."""
    try:
        started = datetime.fromisoformat(status["started"])
    except (KeyError, TypeError, ValueError):
        return "", ""
    date = f"{started:%Y-%m-%d %H:%M} {started.tzname() or ''}".strip()
    try:
        return date, duration_text((datetime.fromisoformat(status["ended"]) - started).total_seconds())
    except (KeyError, TypeError, ValueError):
        return date, ""


def duration_text(seconds: Any) -> str:
    """Seconds as text."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return "–"
    if seconds < 120:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def count_text(value: Any) -> str:
    """A whole number with thin spaces."""
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else "–"


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader)


def render(template: str, run: Run, context: Mapping[str, Any]) -> str:
    """A template filled in."""
    palette = list(enumerate(MODEL_COLORS))
    return str(_environment().get_template(template).render(run=run, palette=palette, norms=NORMS, **context))


def check_installed() -> None:
    """Pages need matplotlib and jinja2.

    Raises:
        MissingError: one of them is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingError("report: matplotlib and jinja2 are needed", "pip install 'danskin[report]'") from error


def write_page(template: str, run: Run, drawn: Iterable[Drawn], context: Mapping[str, Any]) -> Path:
    """Write figures/*.svg and report.html in the folder of `run`; the path of the page."""
    make_folder(run.folder / "figures", "see who owns the folder of the run")
    for figure in drawn:
        write_text(run.folder / "figures" / f"{figure.name}.svg", figure.svg)
    path = run.folder / "report.html"
    write_text(path, render(template, run, context))
    return path
