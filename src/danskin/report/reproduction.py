"""The page of a reproduction: one HTML file that opens offline, and its figures as SVG files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danskin.report.drawing import Drawn
from danskin.report.page import Run, write_page
from danskin.report.tables import claim_rows, note, table

_LINE = 95  # characters that a line of a table has room for at the usual size


def _is_long(header: list[str], rows: list[list[str]]) -> bool:
    """Whether a table needs smaller letters to show all of its columns."""
    return sum(max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)) > _LINE


def write_reproduction(folder: Path, result: Mapping[str, Any], drawn: Sequence[Drawn], command: str) -> Path:
    """Write figures/*.svg and report.html into the folder; the path of the page.

    Args:
        folder: of the reproduction.
        result: the contents of its `result.json`.
        drawn: the figures of its row.
        command: what makes it again.
    """
    context = {
        "result": result,
        "tables": [(case, *found, _is_long(*found)) for case in result["cases"] if (found := table(result, case))],
        "note": note(result),
        "claims": [
            (row, "wrong" if claim["outside"] else "", claim["source"])
            for row, claim in zip(claim_rows(result), result["claims"], strict=True)
        ],
        "drawn": drawn,
        "command": command,
        "configs": json.dumps(result["configs"], indent=1, ensure_ascii=False),
    }
    return write_page("reproduction.html.j2", Run(folder, result=dict(result)), drawn, context)
