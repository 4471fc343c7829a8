"""What `danskin list` tells, collected from the classes themselves: `python -m danskin.cli.collected` writes it.

Listing must not load torch, so it reads `catalog.json`; a test says when that is no longer what the classes say.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "catalog.json"
PAGE = HERE.parents[2] / "docs" / "rows.md"
Row = dict[str, str]


def tables() -> dict[str, dict[str, Any]]:
    """Kind -> name -> the thing itself."""
    from danskin.critics import CRITICS
    from danskin.data import DATASETS
    from danskin.games import GAMES, MEASURE_SOLVERS, MIXED_GAMES
    from danskin.lipschitz.layers import LAYERS
    from danskin.losses import LOSSES
    from danskin.minmax import SOLVERS
    from danskin.models import MODELS
    from danskin.optim.games import GAME_OPTIMIZERS
    from danskin.run.recipe import GAN_RECIPES, RECIPES
    from danskin.run.schema import CHOICES
    from danskin.transport import DISTANCES

    own: dict[str, dict[str, Any]] = {
        "data": dict(DATASETS),
        "distances": dict(sorted((DISTANCES | CRITICS).items())),
        "games": dict(GAMES) | MIXED_GAMES,
        "gan_recipes": dict(GAN_RECIPES),
        "layers": dict(LAYERS),
        "losses": dict(LOSSES),
        "models": dict(MODELS),
        "recipes": dict(RECIPES),
        "solvers": dict(SOLVERS) | MEASURE_SOLVERS,
    }
    found: dict[str, dict[str, Any]] = own | {kind: dict(table) for kind, table in CHOICES.items()}
    found["optimizers"] |= GAME_OPTIMIZERS
    return dict(sorted(found.items()))


def collected() -> dict[str, Any]:
    """All that catalog.json holds: a line for each thing by kind, and who is who."""
    kinds = {
        kind: [{"name": name, "what": _summary(kind, thing)} for name, thing in table.items()]
        for kind, table in tables().items()
    }
    return {"kinds": kinds | {"rows": rows()}, "template": template()}


def template() -> list[Row]:
    """Min over x, max over y in Y of Phi(x, y): who is who, for every class that says so."""
    from danskin.optim import SHARPNESS_AWARE
    from danskin.optim.games import GAME_OPTIMIZERS

    found = []
    for kind, table in (tables() | {"optimizers": SHARPNESS_AWARE | GAME_OPTIMIZERS}).items():
        for name, thing in table.items():
            who = getattr(thing, "template", None)
            if who is not None and hasattr(thing, "moves"):
                row = {"package": kind, "name": name, "x": who.x, "y": who.y, "Y": who.Y, "Phi": who.Phi}
                found.append(row | {"how they move": thing.moves})
    return found


def rows() -> list[Row]:
    """The rows of the lecture: what each shows, the command, and the classes and functions whose docstrings name it."""
    from danskin.recipes.rows import LECTURE
    from danskin.run.recipe import read_mapping

    named = _named_in_docstrings()
    return [
        {"name": row, "what": told["shows"], "command": told["command"], "code": ", ".join(named.get(row, ()))}
        for row, told in read_mapping(LECTURE).items()
    ]


_ROWS = re.compile(r"lecture:?\s+(?:rows?\s+)?([A-G]\d+(?:(?:,| and| to|, and)\s+[A-G]\d+)*)", re.IGNORECASE)


def named_rows(text: str) -> list[str]:
    """The rows that a docstring names behind the word "lecture"; "C11 to C14" names four."""
    out: list[str] = []
    for found in _ROWS.findall(text):
        words = re.findall(r"[A-G]\d+|to", found)
        for k, word in enumerate(words):
            if word == "to":
                first, last = int(words[k - 1][1:]), int(words[k + 1][1:])
                out += [f"{words[k + 1][0]}{i}" for i in range(first + 1, last)]
            else:
                out.append(word)
    return out


def _named_in_docstrings() -> dict[str, list[str]]:
    """Row -> names of classes and functions, and of modules whose own docstring names it."""
    root, out = HERE.parent, {}  # type: tuple[Path, dict[str, list[str]]]
    for file in sorted(root.rglob("*.py")):
        module = ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                name = module if isinstance(node, ast.Module) else node.name
                for row in named_rows(ast.get_docstring(node) or ""):
                    if not name.startswith("_") and name not in out.setdefault(row, []):
                        out[row].append(name)
    return out


def page() -> str:
    """docs/rows.md."""
    lines = ["# The lecture, row by row", "", "Written by `python -m danskin.cli.collected`. Recipes are in "
             "`danskin list recipes`; scales of `danskin reproduce` are smoke, small and full.", "",
             "| row | what it shows | command | in the library |", "|---|---|---|---|"]  # fmt: skip
    for row in rows():
        code = ", ".join(f"`{name}`" for name in row["code"].split(", ") if name)
        lines.append(f"| {row['name']} | {row['what']} | `{row['command']}` | {code or '-'} |")
    return "\n".join(lines) + "\n"


#: Marks of TeX in docstrings, and what a terminal shows in their place.
_MARKS = (
    (r":math:`([^`]*)`", r"\1"),
    (r"\.\. math::", "   "),
    (r"\\\|", "||"),
    (r"\\leq?\b", "<="),
    (r"\\geq?\b", ">="),
    (r"\\(left|right|mathrm|operatorname|q?quad)\b ?", ""),
    (r"\\[,;! ]", " "),
    (r"\\([A-Za-z]+)", r"\1"),
)


def documentation(thing: Any) -> str:
    """The docstring as a terminal shows it: formulas without the marks of TeX."""
    text = inspect.getdoc(thing) or ""
    for mark, plain in _MARKS:
        text = re.sub(mark, plain, text)
    return text


def _first_line(thing: Any) -> str:
    return documentation(thing).split("\n\n", 1)[0].replace("\n", " ")


def _summary(kind: str, thing: Any) -> str:
    if kind in ("data", "models"):
        return str(thing.description)
    if kind == "losses":
        return str(thing.summary)
    if kind in ("recipes", "gan_recipes"):
        lines = thing.read_text(encoding="utf-8").splitlines()
        return lines[0].removeprefix("# ") if lines else ""
    return _first_line(thing)


if __name__ == "__main__":
    FILE.write_text(json.dumps(collected(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
