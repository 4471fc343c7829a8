"""Copy what is small and worth keeping of a finished run or reproduction into docs/results.

python docs/collect.py RUN NAME
"""

import json
import shutil
import sys
from pathlib import Path

from danskin.report.training import markdown_table, write_report


def main(run: Path, name: str) -> None:
    """Config or plan, result.json, the figures, and the table as Markdown."""
    target = Path(__file__).parent / "results" / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    if "row" in result:  # a reproduction brings its table
        files = ("plan.yaml", "result.json", "table.md")
    else:
        write_report(run)
        files = ("config.yaml", "result.json")
        (target / "table.md").write_text(markdown_table(result), encoding="utf-8")
    for file in files:
        shutil.copy(run / file, target)
    for figure in sorted((run / "figures").glob("*.svg")):
        shutil.copy(figure, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
