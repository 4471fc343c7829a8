"""Copy what is small and worth keeping of a finished run into docs/results: python docs/collect.py RUN NAME."""

import json
import shutil
import sys
from pathlib import Path

from danskin.run.report import markdown_table, write_report


def main(run: Path, name: str) -> None:
    """config.yaml, result.json, the figures, and the table as Markdown."""
    write_report(run)
    target = Path(__file__).parent / "results" / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in ("config.yaml", "result.json"):
        shutil.copy(run / file, target)
    for figure in sorted((run / "figures").glob("*.svg")):
        shutil.copy(figure, target)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    (target / "table.md").write_text(markdown_table(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
