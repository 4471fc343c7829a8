"""The report of a robustness verdict: one HTML file that opens offline, and its figures as SVG files.

It reads the folder that `danskin.run.verdict.judge` leaves; no torch, so that writing it again is quick. What is
missing or torn is left out with a sentence saying why. The same folder gives the same bytes.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from danskin.errors import MissingError
from danskin.report import verdict_figures, verdict_words
from danskin.report.drawing import MODEL_COLORS, Array, Drawn
from danskin.report.page import (
    Run,
    check_installed,
    count_text,
    duration_text,
    parse_number,
    percent_text,
    read_json,
    read_text,
    share_cell,
    when,
    write_page,
)
from danskin.report.pictures import png

_FILES = ("verdict.json", "status.json", "examples.npz")
_COLOR = MODEL_COLORS[0]
_MANY = 20  # classes; of more, tables and figures show the ends
_BYTES = 4_000_000  # of pixels on the page
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError, OverflowError)


# --- reading --------------------------------------------------------------------------------------------


def read_verdict(folder: Path) -> Run:
    """Read what is there; `result` is the content of verdict.json.

    Raises:
        MissingError: the folder is not there, or is not a verdict's.
    """
    if not folder.is_dir() or not any((folder / name).exists() for name in _FILES):
        raise MissingError(
            f"report: expected a verdict's folder (with {', '.join(_FILES)}), got {str(folder)!r}",
            "give the folder that `danskin evaluate --suite` printed",
        )
    run = Run(folder)
    run.result = read_json(folder / "verdict.json", run)
    run.status = read_json(folder / "status.json", run)
    run.environment = read_json(folder / "environment.json", run)
    run.command = read_text(folder / "command.txt", run).strip()
    run.examples = _arrays(folder / "examples.npz", run)
    return run


def _arrays(path: Path, run: Run) -> dict[str, Array]:
    """Inputs that broke the model, with what they were and what they were taken for."""
    names = ("index", "x", "adversarial", "y", "prediction", "broken_by")
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            found = {name: file[name] for name in names}
    except FileNotFoundError:
        run.gaps[path.name] = f"{path.name} is not there"
        return {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        run.gaps[path.name] = f"{path.name} cannot be read ({type(error).__name__})"
        return {}
    n, shape = len(np.atleast_1d(found["y"])), found["x"].shape
    short = [name for name, a in found.items() if a.shape != (shape if name in ("x", "adversarial") else (n,))]
    if short or shape[:1] != (n,) or any(found[k].dtype.kind not in "iu" for k in names if found[k].ndim == 1):
        run.gaps[path.name] = f"{path.name} holds arrays that do not belong together"
        return {}
    return found


def _name(run: Run, label: int) -> str:
    """A class by its name; by its number where it has none."""
    classes = (run.result.get("data") or {}).get("classes") or []
    return str(classes[label]) if 0 <= label < len(classes) else str(label)


def _stage(run: Run, number: int) -> str:
    """The stage that broke an example."""
    stages = run.result.get("stages") or []
    return str(stages[number - 1]["name"]) if 0 < number <= len(stages) else f"stage {number}"


def _share(share: Mapping[str, Any]) -> dict[str, Any]:
    """A share for the page; fails where it is not one."""
    made = share_cell(share)
    if made is None:
        raise ValueError("a share of nothing")
    hits, n = int(share["hits"]), int(share["n"])
    return made | {"hits": hits, "n": n, "count": f"{count_text(hits)} of {count_text(n)}"}


# --- the number, the question, the doubts ---------------------------------------------------------------


def _bracket(run: Run) -> dict[str, Any]:
    """Certified <= robust <= clean, and the four kinds of examples that they cut the bar into."""
    found = run.result
    clean, robust = _share(found["clean"]), _share(found["robust"])
    certified = _share(found["certified"]) if found["certified"] else None
    n, proven = clean["n"], certified["hits"] if certified else 0
    counts = {
        "proven": (proven, "proven: no perturbation breaks them"),
        "standing": (robust["hits"] - proven, "withstood every attack" + (", not proven" if certified else "")),
        "broken": (clean["hits"] - robust["hits"], "broken by an attack"),
        "wrong": (n - clean["hits"], "wrong without attack"),
    }
    parts = [
        {"kind": kind, "count": count, "words": count_text(count), "text": text, "width": f"{100 * count / n:.4g}"}
        for kind, (count, text) in counts.items()
        if kind != "proven" or certified
    ]
    return {
        "clean": clean, "robust": robust, "certified": certified, "parts": parts, "n": n,
        "count": count_text(n),
        "method": (found["certified"] or {}).get("method", ""),
        "expected": verdict_words.expected(found),
        "doubtful": verdict_words.doubtful(found),
    }  # fmt: skip


# --- attacks, classes, radii ----------------------------------------------------------------------------


def _work(cost: Mapping[str, Any]) -> int:
    """Passes, a backward counted as two."""
    return int(cost["forwards"]) + 2 * int(cost["backwards"])


def _stages(run: Run) -> dict[str, Any]:
    """The table of attacks, and its figure."""
    found = run.result
    clean, all_work = found["clean"], _work(found["cost"])
    rows = []
    for stage in found["stages"]:
        cost, share = stage["cost"], _work(stage["cost"]) / all_work if all_work else 0.0
        rows.append({
            "name": str(stage["name"]), "attack": str(stage["attack"]), "left_out": str(stage["left_out"]),
            "seen": count_text(stage["seen"]), "broken": count_text(stage["broken"]),
            "after": _share(stage["robust_after"]),
            "costs": [count_text(cost[k]) for k in ("forwards", "backwards", "calls")],
            "seconds": duration_text(cost["seconds"]), "work": f"{100 * share:.1f}",
        })  # fmt: skip
    run_ones = [s for s in found["stages"] if not s["left_out"]]
    series = [("clean", clean), *((str(s["name"]), s["robust_after"]) for s in run_ones)]
    drawn, label = [], str(found["model"]["name"])
    if any(s["broken"] for s in run_ones) and (svg := verdict_figures.broken_by({label: series}, {label: _COLOR})):
        words = ", ".join(f"{percent_text(share)} after {name}" for name, share in series[1:])
        caption = "Accuracy left after each attack in turn; the pale end of a bar is what that attack took away."
        drawn.append(
            Drawn("broken-by", svg, "What each attack broke", f"Clean {percent_text(clean)}; {words}.", caption)
        )
    wrong = int(clean["n"]) - int(clean["hits"])
    return {
        "rows": rows,
        "clean": _share(clean),
        "seen": count_text(int(clean["n"])),
        "wrong": count_text(wrong),
        "drawn": drawn,
    }


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _classes(run: Run) -> dict[str, Any]:
    """Class by class, in the order of labels; of many classes the ones at the ends, by robust accuracy."""
    rows: list[dict[str, Any]] = [
        {"name": _name(run, int(row["class"])), "clean": _share(row["clean"]), "robust": _share(row["robust"]),
         "value": float(row["robust"]["value"]), "raw": row, "worst": False, "number": int(row["class"])}
        for row in run.result["per_class"]
    ]  # fmt: skip
    by_value = sorted(rows, key=lambda row: row["value"])
    worst, best = by_value[0], by_value[-1]
    ties = sum(row["value"] == worst["value"] for row in rows)
    worst["worst"] = len(rows) > 1 and worst["value"] < best["value"]
    many = len(rows) > _MANY
    drawn = []
    pictured = [row for row in by_value[:12] if many] or rows
    shares = {which: [row["raw"][which] for row in pictured] for which in ("clean", "robust")}
    # the figure shortens names to ten characters
    numbered = len({row["name"][:9] for row in pictured}) < len(pictured)
    names = [str(row["raw"]["class"]) if numbered else _short(row["name"]) for row in pictured]
    if worst["worst"] and (svg := verdict_figures.per_class({"robust": shares}, names, {"robust": _COLOR})):
        what = f"The {len(pictured)} classes with the least robust accuracy" if many else "Class by class"
        what += ", by number" if numbered else ""
        caption = f"{what}: robust accuracy (filled) with its 95 % interval, clean accuracy (outline)."
        words = "; ".join(f"{row['name']}: {row['robust']['value']}" for row in pictured)
        drawn.append(Drawn("per-class", svg, "Accuracy by class", f"{words}.", caption))
    return {
        "rows": rows, "ends": [*by_value[:10], *by_value[-3:]] if many else rows, "many": many, "worst": worst,
        "best": best, "ties": ties, "mean": f"{100 * sum(r['value'] for r in rows) / len(rows):.2f} %",
        "median": f"{100 * float(np.median([r['value'] for r in rows])):.2f} %", "drawn": drawn,
        "numbered": numbered, "least": min(r["robust"]["n"] for r in rows),
        "counts": len({r["robust"]["n"] for r in rows}),
    }  # fmt: skip


def _curve(run: Run) -> dict[str, Any] | None:
    """Robust accuracy against radius; None where it was not asked for."""
    curve = run.result.get("curve")
    if not curve:
        return None
    points = sorted(
        ({"radius": float(p["radius"]), "accuracy": p["accuracy"]} for p in curve), key=lambda p: p["radius"]
    )
    cells: list[dict[str, Any]] = [{"radius": f"{p['radius']:.4g}", "accuracy": _share(p["accuracy"])} for p in points]
    label, norm, asked = str(run.result["model"]["name"]), str(run.result["norm"]), run.result["radius"]
    radius = None if isinstance(asked, list) else parse_number(asked)
    mark = None if radius is None else (radius, f"asked: ε = {asked}")
    svg = verdict_figures.verdict_curve({label: points}, norm, {label: _COLOR}, mark=mark)
    if svg is None:
        return None
    words = ", ".join(f"{c['accuracy']['value']} at {c['radius']}" for c in cells)
    n, whole = cells[0]["accuracy"]["n"], int(run.result["n"])
    of = count_text(n) if n == whole else f"{count_text(n)} of the {count_text(whole)}"
    caption = (
        f"Share right under attack at each radius, on {of} examples; band: 95 % interval. It shows how accuracy falls; "
        "the number to quote is the one above."
    )
    return {"rows": cells, "drawn": [Drawn("curve", svg, "Robust accuracy against radius", f"{words}.", caption)]}


# --- examples -------------------------------------------------------------------------------------------


def _size(delta: Array, norm: str) -> float:
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    return float(np.linalg.norm(delta.ravel(), order))


def _examples(run: Run) -> dict[str, Any]:
    """Inputs before and after: pictures, or a table where they are not images."""
    arrays, norm = run.examples, str(run.result.get("norm", "linf"))
    x, adversarial = arrays["x"].astype(np.float64), arrays["adversarial"].astype(np.float64)
    images = x.ndim == 4 and x.shape[1] in (1, 3)
    most = max(2, _BYTES // max(1, 3 * x[0].size)) if images else len(x)
    rows = []
    for i in range(min(len(x), most)):
        delta = adversarial[i] - x[i]
        peak = float(np.abs(delta).max(initial=0.0))
        factor = 0.5 / peak if 0 < peak < math.inf else 0.0
        at = int(np.abs(delta).argmax())
        row = {
            "number": int(arrays["index"][i]), "before": _name(run, int(arrays["y"][i])),
            "after": _name(run, int(arrays["prediction"][i])), "stage": _stage(run, int(arrays["broken_by"][i])),
            "size": f"{_size(delta, norm):.4g}", "factor": f"{factor:.3g}" if factor else "",
            "changed": f"{int((delta != 0).sum())} of {delta.size}",
            "largest": f"no. {at}: {x[i].flat[at]:.4g} to {adversarial[i].flat[at]:.4g}",
        }  # fmt: skip
        if images:
            shown = (x[i], 0.5 + delta * factor, adversarial[i])
            row["pictures"] = [png(picture) for picture in shown]
        rows.append(row)
    shape = "×".join(map(str, x.shape[1:]))
    return {"rows": rows, "images": images, "shape": shape, "small": images and x.shape[-1] <= 64, "held": len(x)}


def _no_examples(run: Run) -> str:
    """Why there is none to show."""
    broken = sum(int(stage["broken"]) for stage in run.result["stages"])
    if broken:
        return f"Left out: {run.gaps.get('examples.npz', 'examples.npz has no example in it')}"
    right = int(run.result["clean"]["hits"])
    why = "no attack broke anything" if right else "nothing was right without attack, so nothing was attacked"
    return f"Nothing to show: {why}"


# --- cost and setup -------------------------------------------------------------------------------------


def _cost(run: Run) -> dict[str, Any]:
    """Totals and per example."""
    cost, n = run.result["cost"], int(run.result["n"])
    counts = [int(cost[k]) for k in ("forwards", "backwards", "calls")]
    seconds = float(cost["seconds"])
    each = [f"{c / n:,.1f}".replace(",", "\u202f") for c in counts[:2]]
    per = f"{1000 * seconds / n:.3g} ms" if seconds < n else duration_text(seconds / n)
    device = (run.result.get("settings") or {}).get("device")
    found = run.environment
    graphics = found.get("cuda") if device is None or str(device).startswith("cuda") else None
    machine = graphics or found.get("processor") or found.get("platform")
    threads = found.get("threads") if machine and not graphics else None
    return {
        "total": [count_text(c) for c in counts], "seconds": duration_text(seconds), "each": each, "per": per,
        "machine": str(machine) if machine else "", "threads": threads,
        "rate": f"{counts[0] / seconds:,.0f}".replace(",", "\u202f") if seconds > 0 else "",
    }  # fmt: skip


def _word(value: Any) -> Any:
    return ("no", "yes")[value] if isinstance(value, bool) else value


def _setup(run: Run) -> dict[str, Any]:
    """What was judged, on what, how."""
    found = run.result
    model, data, asked = found["model"], found["data"], found.get("asked") or {}
    settings = (found.get("settings") or {}) | {k: asked[k] for k in ("certificate", "grid") if asked.get(k)}
    return {
        "model": str(model["name"]), "model_hash": str(model.get("hash") or ""), "note": str(model.get("note") or ""),
        "data": str(data["name"]), "data_hash": str(data.get("hash") or ""),
        "settings": {str(k).replace("_", " "): _word(v) for k, v in settings.items()},
        "grid": asked.get("grid"),
        "attacks": [(str(s["name"]), str(s["attack"])) for s in found["stages"]],
        "ball": "" if "set" in found else str(found["norm"]).capitalize(),
        "radius": found["radius"] if isinstance(found["radius"], str) else "",
    }  # fmt: skip


_SECTIONS: dict[str, tuple[str, Callable[[Run], Any]]] = {
    "bracket": ("accuracies", _bracket),
    "asked": ("question", lambda run: verdict_words.asked(run.result)),
    "flags": ("flags", lambda run: verdict_words.flags(run.result)),
    "diagnosis": ("diagnosis", lambda run: verdict_words.diagnosis(run.result)),
    "limits": ("whole verdict", lambda run: verdict_words.limits(run.result)),
    "stages": ("attacks", _stages),
    "certifying": ("certificates", lambda run: verdict_words.certifying(run.result)),
    "classes": ("classes", _classes),
    "curve": ("curve", _curve),
    "cost": ("cost", _cost),
    "setup": ("setup", _setup),
}


def _views(run: Run) -> dict[str, Any]:
    """What each section shows; None, and a sentence in `run.gaps`, where the file does not hold it."""
    views: dict[str, Any] = {}
    for name, (what, build) in _SECTIONS.items():
        try:
            views[name] = build(run)
        except _UNREADABLE as error:
            views[name] = None
            why = f"verdict.json does not hold the {what} in a form that can be read ({type(error).__name__})"
            run.gaps[name] = run.gaps.get("verdict.json", why)
    views["examples"] = None
    try:
        if run.examples and len(run.examples["x"]):
            views["examples"] = _examples(run)
        else:
            run.gaps["examples"] = _no_examples(run)
    except _UNREADABLE:
        why = run.gaps.get("examples.npz", "examples.npz does not fit verdict.json")
        run.gaps["examples"] = f"Left out: {why}"
    return views


def write_verdict_report(folder: Path) -> Path:
    """Write `folder/report.html` and `folder/figures/*.svg`, replacing earlier ones.

    Args:
        folder: of a verdict; it may be unfinished.

    Returns:
        The path of the report.

    Raises:
        MissingError: matplotlib or jinja2 is not installed, or there is no such folder.
    """
    check_installed()
    run = read_verdict(Path(folder))
    views = _views(run)
    drawn = (figure for name in ("stages", "classes", "curve") for figure in (views[name] or {}).get("drawn", ()))
    date, _ = when({"started": run.status.get("started") or run.status.get("ended")})
    return write_page("verdict.html.j2", run, drawn, views | {"date": date})
