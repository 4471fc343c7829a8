"""The report of a run: one HTML file that opens offline, and its figures as SVG files.

It reads a run folder only; no torch, so that `danskin report RUN` is quick. A run that is still going on or
was interrupted gets a report of what is there; what is not there is left out with a sentence saying why.
The same folder gives the same bytes. LECTURE row C9.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from danskin.errors import MissingError
from danskin.report import training_figures as figures
from danskin.report.drawing import NORMS, VARIABLES, Drawn, colors
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
from danskin.report.pictures import attack_pictures

_FILES = ("status.json", "config.yaml", "metrics.jsonl", "result.json")


# --- reading --------------------------------------------------------------------------------------------


def read_events(text: str) -> list[dict[str, Any]]:
    """The events of a metrics file, in order; of repeated ones (after a resume) the last, torn lines left out."""
    events: dict[tuple[str, str, int], dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            event = json.loads(line)
            events[event["model"], event["event"], int(event["step"])] = event
        except (ValueError, KeyError, TypeError):
            continue
    return list(events.values())


def _examples(path: Path, run: Run) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
        x, _ = found["x"], found["y"]
    except FileNotFoundError:
        run.gaps[path.name] = f"{path.name} is not there"
        return {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        run.gaps[path.name] = f"{path.name} cannot be read ({type(error).__name__})"
        return {}
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not len(x):
        run.gaps[path.name] = f"examples of shape {x.shape} are not images with one or three channels"
        return {}
    return found


def read_run(folder: Path) -> Run:
    """Read what is there.

    Raises:
        MissingError: the folder is not there, or is not a run's.
    """
    if not folder.is_dir() or not any((folder / name).exists() for name in _FILES):
        raise MissingError(
            f"report: expected a run folder (with {', '.join(_FILES)}), got {str(folder)!r}",
            "give the folder that `danskin train` printed",
        )
    run = Run(folder)
    run.status = read_json(folder / "status.json", run)
    run.result = read_json(folder / "result.json", run)
    run.environment = read_json(folder / "environment.json", run)
    run.events = read_events(read_text(folder / "metrics.jsonl", run))
    run.examples = _examples(folder / "examples.npz", run)
    run.config = read_text(folder / "config.yaml", run)
    run.command = read_text(folder / "command.txt", run).strip()
    return run


# --- numbers as text ------------------------------------------------------------------------------------


def _columns(result: Mapping[str, Any]) -> list[str]:
    """The attacks of all models, each once."""
    return list(dict.fromkeys(a for m in (result.get("models") or {}).values() for a in m.get("attacks") or {}))


def _shares(model: Mapping[str, Any], attacks: Sequence[str]) -> list[Any]:
    """Clean, each attack, worst case."""
    by_attack = model.get("attacks") or {}
    return [model.get("clean"), *(by_attack.get(a, {}).get("accuracy") for a in attacks), model.get("worst_case")]


def table_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The main table as text: accuracy of each model on clean inputs, under each attack, in the worst case.

    Args:
        result: the contents of `result.json`.

    Returns:
        The header, and a row per model with cells such as "91.94 % (331/360)"; "–" where there is no number.
    """
    attacks = _columns(result)

    def cell(share: Any) -> str:
        text = percent_text(share)
        return text if text == "–" else f"{text} ({share['hits']}/{share['n']})"

    models = result.get("models") or {}
    rows = [[label, *map(cell, _shares(model, attacks))] for label, model in models.items()]
    return ["model", "clean", *attacks, "worst case"], rows


def markdown_table(result: Mapping[str, Any]) -> str:
    """The main table in Markdown, for a README or an issue."""
    header, rows = table_rows(result)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _described(models: Mapping[str, Any]) -> dict[str, str]:
    """Every attack that was made, in full."""
    return {name: str(a.get("attack", "")) for m in models.values() for name, a in (m.get("attacks") or {}).items()}


def _balls(models: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(norm, radius as it was written) of every evaluated attack, each once."""
    found = [re.search(r"\b(Linf|L2|L1)\(radius='?([\d./e+-]+)'?\)", d) for d in _described(models).values()]
    return list(dict.fromkeys((m[1].lower(), m[2]) for m in found if m))


def _mark(run: Run, norm: str) -> tuple[float, str] | None:
    """The radius to mark on the curve: the one trained with, else the one evaluated."""
    try:
        from ruamel.yaml import YAML

        ball = YAML(typ="safe", pure=True).load(run.config)["attack"]["ball"]
        radius = parse_number(ball["radius"]) if ball["name"] == norm and "adversarial" in run.labels else None
    except Exception:  # not installed, or not a recipe: then there is just no such mark
        radius = None
    if radius is not None:
        return radius, f"trained with ε = {ball['radius']}"
    evaluated = [r for n, r in _balls(run.models) if n == norm]
    radius = parse_number(evaluated[0]) if len(evaluated) == 1 else None
    return None if radius is None else (radius, f"evaluated at ε = {evaluated[0]}")


# --- sections -------------------------------------------------------------------------------------------


def _overfitted(run: Run) -> list[dict[str, Any]]:
    """Per model with catastrophic overfitting: its label, the step, and accuracy under FGSM and PGD where known."""
    steps = {label: model.get("overfitted") for label, model in run.models.items()}
    seen: dict[str, dict[str, Any]] = {m: {"model": m, "step": s} for m, s in steps.items() if s is not None}
    for event in run.events:
        if event["event"] == "catastrophic_overfitting" and "fgsm" not in seen.get(event["model"], {}):
            seen[event["model"]] = event  # the first moment
    return list(seen.values())


def _numbers(run: Run, color: Mapping[str, str]) -> dict[str, Any]:
    """Tiles, main table and cost tables."""
    attacks = _columns(run.result)
    models, costs = [], []
    for label, model in run.models.items():
        cells = [share_cell(share) for share in _shares(model, attacks)]
        row = {"label": label, "css": VARIABLES[color[label]], "cells": cells, "clean": cells[0]}
        row |= {key: count_text(model.get(key)) for key in ("epochs", "best_epoch", "parameters")}
        models.append(row | {"worst": cells[-1], "train_seconds": duration_text(model.get("train_seconds"))})
        for name, attack in (model.get("attacks") or {}).items():
            cost = attack.get("cost") or {}
            counts = [count_text(cost.get(k)) for k in ("forwards", "backwards", "calls")]
            costs.append([label, name, *counts, duration_text(cost.get("seconds"))])
    described = _described(run.models)
    unit_box = all("box=(0, 1)" in d for d in described.values())
    return {"models": models, "attacks": attacks, "costs": costs, "described": described, "unit_box": unit_box}


# --- figures --------------------------------------------------------------------------------------------


def _learning(run: Run, color: Mapping[str, str]) -> list[Drawn]:
    last = {e["model"]: e for e in run.events if e["event"] == "epoch"}
    losses = "; ".join(f"{m}: {e['train_loss']:.3g}" for m, e in last.items() if "train_loss" in e)
    accuracy = "; ".join(
        f"{m}: " + ", ".join(f"{k} {100 * e[k]:.1f} %" for k in ("clean", "robust") if e.get(k) is not None)
        for m, e in last.items()
    )
    sizes = sorted({e["validation_examples"] for e in last.values() if e.get("validation_examples")})
    held = f" on {' or '.join(map(str, sizes))} held-out examples" if sizes else ""
    out = []
    if svg := figures.training_loss(run.events, color):
        caption = "Training loss: what the weights minimise (for adversarial training, at the attacked inputs)."
        out.append(Drawn("training-loss", svg, "Training loss", f"Last values: {losses or 'none yet'}.", caption))
    if svg := figures.validation_accuracy(run.events, color):
        caption = f"Validation accuracy{held}: clean (dashed) and under the monitoring attack (solid)."
        out.append(Drawn("validation-accuracy", svg, "Validation accuracy", f"Last values: {accuracy}.", caption))
    return out + _watches(run, color) + _live(run, color, last)


def _live(run: Run, color: Mapping[str, str], last: Mapping[str, Mapping[str, Any]]) -> list[Drawn]:
    """The worst class, and what objectives steer by themselves."""
    out = []
    if svg := figures.worst_class(run.events, color):
        words = "; ".join(
            f"{m}: average {100 * e['robust']:.1f} %, worst class {100 * e['worst_class']:.1f} %"
            for m, e in last.items()
            if e.get("worst_class") is not None and e.get("robust") is not None
        )
        caption = "Robust validation accuracy: the average over classes' examples (dashed) and the worst class (solid)."
        out.append(Drawn("worst-class", svg, "Average and worst class", f"Last values: {words}.", caption))
    names = figures.gauge_names(run.events)
    kinds = list(dict.fromkeys(name.rpartition(" ")[0] if name[-1].isdigit() else name for name in names))
    for i, kind in enumerate(kinds):
        group = [n for n in names if n == kind or (n.rpartition(" ")[0] == kind and n[-1].isdigit())]
        if svg := figures.gauge(run.events, color, group):
            caption = f"{kind[0].upper()}{kind[1:]}, as the objective steered it."
            out.append(Drawn(f"gauge-{i}", svg, kind, caption, caption))
    return out


def _watches(run: Run, color: Mapping[str, str]) -> list[Drawn]:
    out = []
    moments = {e["model"]: e["step"] for e in _overfitted(run)}
    for i, model in enumerate(run.labels):
        moment = moments.get(model)
        svg = figures.overfitting_watch(run.events, model, color[model], moment)
        if svg is None:
            continue
        seen = "No catastrophic overfitting seen." if moment is None else f"Catastrophic overfitting, step {moment}."
        caption = f"Model {model}: accuracy under FGSM and under PGD while training. {seen}"
        out.append(Drawn(f"watch-{i}", svg, f"FGSM against PGD, model {model}", seen, caption))
    return out


def _curve(run: Run, color: Mapping[str, str]) -> list[Drawn]:
    norm = next((m["curve_norm"] for m in run.models.values() if m.get("curve") and m.get("curve_norm")), "linf")
    curves = {label: m["curve"] for label, m in run.models.items() if m.get("curve")}
    svg = figures.accuracy_against_radius(curves, norm, color, _mark(run, norm))
    if svg is None:
        return []
    words = "; ".join(
        f"{label}: " + ", ".join(f"{percent_text(p['accuracy'])} at {p['radius']:.3g}" for p in curve)
        for label, curve in curves.items()
    )
    sizes = sorted({p["accuracy"]["n"] for curve in curves.values() for p in curve})
    kinds = sorted({str(m["curve_attack"]).split("(")[0] for m in run.models.values() if m.get("curve_attack")})
    under = f"Share right under {' or '.join(kinds)} at each radius. " if kinds else ""
    caption = f"{under}Bands: 95 % Wilson intervals ({' or '.join(map(str, sizes))} test examples)."
    return [Drawn("accuracy-radius", svg, "Robust accuracy against radius", f"{words}.", caption)]


def _pictures(run: Run, color: Mapping[str, str]) -> list[Drawn]:
    classes = [str(c) for c in (run.result.get("data") or {}).get("classes") or []]
    out = []
    for norm, symbol in NORMS.items():
        svg = attack_pictures(run.examples, norm, color, classes) if run.examples else None
        if svg is None:
            continue
        radius = run.examples.get(f"radius/{norm}")
        size = "" if radius is None else f", ε = {float(radius):.4g}"
        said = {m: run.examples[f"pred/{m}/{norm}"] for m in color if f"pred/{m}/{norm}" in run.examples}
        words = "; ".join(f"{m} errs on {(p != run.examples['y']).sum()} of {len(p)}" for m, p in said.items())
        title = f"Attacks in the {symbol} ball{size}"
        out.append(Drawn(f"pictures-{norm}", svg, title, f"{words}.", f"{words} pictures."))
    return out


# --- writing --------------------------------------------------------------------------------------------


def write_report(run: Path) -> Path:
    """Write `run/report.html` and `run/figures/*.svg`, replacing earlier ones.

    Args:
        run: a run folder; it may be unfinished.

    Returns:
        The path of the report.

    Raises:
        MissingError: matplotlib or jinja2 is not installed, or there is no such run.
    """
    check_installed()
    read = read_run(Path(run))
    color = colors(read.labels)
    drawn = {"learning": _learning(read, color), "curve": _curve(read, color), "pictures": _pictures(read, color)}
    date, took = when(read.status)
    context = drawn | _numbers(read, color) | {
        "data": read.result.get("data") or {}, "date": date, "took": took, "balls": _balls(read.models),
        "progress": {e["model"]: e for e in read.events if e["event"] == "step"},
        "overfitted": _overfitted(read),
    }  # fmt: skip
    return write_page("training.html.j2", read, (f for group in drawn.values() for f in group), context)
