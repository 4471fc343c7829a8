"""The table of a row: methods down, columns across, published numbers beside the measured ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Number = Mapping[str, Any]
_HEADS = {"best": "best", "last": "last", "-": ""}


def number_text(found: Number | None) -> str:
    """A measured number with half the width of its interval, and the published one in brackets.

    >>> number_text({"mean": 0.5, "interval": [0.4, 0.6], "unit": "share", "published": 51.2})
    '50.0 ± 10.0 [51.20]'
    >>> number_text({"mean": 0.00062, "interval": None, "unit": "number"})
    '6.2e-04'
    """
    if found is None:
        return "–"
    scale, digits = (100, 1) if found["unit"] == "share" else (1, 3 if abs(found["mean"]) < 10 else 1)
    form = ".1e" if found["unit"] == "number" and 0 < abs(found["mean"]) < 0.01 else f".{digits}f"
    text = f"{scale * found['mean']:{form}}"
    if found["interval"] is not None:
        low, high = found["interval"]
        text += f" ± {scale * (high - low) / 2:{form}}"
    return text + (f" [{found['published']:.2f}]" if found.get("published") is not None else "")


def columns_of(result: Mapping[str, Any], case: str) -> list[tuple[str, str]]:
    """(column, weights) that were measured in a case, in the order of the recipe."""
    found = dict.fromkeys((m["column"], m["weights"]) for m in result["measured"] if m["case"] == case)
    order = {name: i for i, name in enumerate(result["columns"][case])}
    weights = {name: i for i, name in enumerate(("best", "last", "-"))}

    def place(pair: tuple[str, str]) -> tuple[int, int, int]:
        base = pair[0].removesuffix(", worst class")
        return order.get(base, len(order)), int(base != pair[0]), weights[pair[1]]

    return sorted(found, key=place)


def table(result: Mapping[str, Any], case: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a case as text."""
    cells = {(m["method"], m["column"], m["weights"]): m for m in result["measured"] if m["case"] == case}
    columns, cost = columns_of(result, case), result["forward_equivalents"].get(case, {})
    header = ["method", *(f"{name} {_HEADS[weights]}".strip() for name, weights in columns)]
    rows = [
        [title, *(number_text(cells.get((method, *column))) for column in columns)]
        for method, title in result["methods"].items()
        if cost or any((method, *column) in cells for column in columns)
    ]
    if cost:
        header.append("passes per step")
        rows = [[*row, f"{cost.get(method, 0):.1f}"] for method, row in zip(result["methods"], rows, strict=True)]
    return header, rows


def note(result: Mapping[str, Any]) -> str:
    """How to read the table."""
    published = "; [published]" if any(m.get("published") is not None for m in result["measured"]) else ""
    if "note" in result:
        return f"{result['note']}{published}"
    kinds = dict.fromkeys(m["interval_kind"] for m in result["measured"] if m["interval_kind"])
    what = "accuracies in percent, mean over {} seed{}".format(
        len(result["seeds"]), "" if len(result["seeds"]) == 1 else "s"
    )
    spread = f" ± half of a 95 % interval ({', '.join(kinds)})" if kinds else ""
    return f"{what}{spread}{published}; {result['data']['test']} test examples of {result['data']['name']}"


def claim_rows(result: Mapping[str, Any]) -> Iterable[list[str]]:
    """Each claim as text: verdict, what it says, measured, expected."""
    for claim in result["claims"]:
        least, most = claim["bounds"]
        bounds = " and ".join(
            text for text in (least is not None and f"≥ {least:g}", most is not None and f"≤ {most:g}") if text
        )
        value = "not measured" if claim["value"] is None else f"{claim['value']:.2f}"
        tolerance = f" (tolerance {claim['tolerance']:g})" if claim["tolerance"] else ""
        yield [verdict_word(claim), claim["says"], value, bounds + tolerance]


def verdict_word(claim: Mapping[str, Any]) -> str:
    """What became of a claim, in a word or three."""
    if claim["holds"] is None:
        return "not measured"
    word = "holds" if claim["holds"] else "does not hold"
    return word if claim["checked"] else f"{word} (not checked at this scale)"


def markdown(result: Mapping[str, Any]) -> str:
    """Tables and claims in Markdown."""
    lines = [f"# {result['row']}: {result['title']}", "", f"Scale: {result['scale']}. {result['says']}", ""]
    for case in result["cases"]:
        lines += [f"## {case}", ""] if case else []
        header, rows = table(result, case)
        lines += _pipes([header, ["---", *["---:"] * (len(header) - 1)], *rows])
        lines.append("")
    lines += [note(result) + ".", ""]
    claims = list(claim_rows(result))
    if claims:
        head = ["verdict", "claim", "measured", "expected"]
        lines += ["## Claims", "", *_pipes([head, ["---"] * 4, *claims]), ""]
    for source in result["published"]:
        lines.append("Published: " + "; ".join(" ".join(str(v).split()) for v in source.values()) + ".")
    return "\n".join(lines) + "\n"


def _pipes(rows: Iterable[list[str]]) -> list[str]:
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
