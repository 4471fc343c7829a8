"""The report of a GAN run: one HTML file that opens offline, and its figures. It reads the run's folder only.

A run that is still going on gets a report of what is there. Lecture: row F7.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from danskin.errors import MissingError
from danskin.report import gan_figures as figures
from danskin.report.drawing import Array, Drawn
from danskin.report.page import Run, check_installed, duration_text, read_json, read_text, when, write_page
from danskin.report.training import read_events

_SHOWN = 4  # looks whose samples are shown


def read_gan_run(folder: Path) -> Run:
    """Read what is there.

    Raises:
        MissingError: no such folder.
    """
    if not (folder / "config.yaml").is_file():
        raise MissingError(f"{folder}: expected the folder of a run, got no config.yaml there", "ls runs/*")
    run = Run(folder)
    run.status, run.result = read_json(folder / "status.json", run), read_json(folder / "result.json", run)
    run.environment = read_json(folder / "environment.json", run)
    run.events = read_events(read_text(folder / "metrics.jsonl", run))
    run.config, run.command = read_text(folder / "config.yaml", run), read_text(folder / "command.txt", run).strip()
    return run


def number(value: Any) -> str:
    """A number for a table; a dash where there is none.

    >>> number(0.10467), number(None), number(2.5e-7)
    ('0.105', '–', '2.5e-07')
    """
    if not isinstance(value, int | float):
        return "–"
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def percent(value: Any) -> str:
    """A share."""
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "–"


def result_rows(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, value, beside what) of a finished run."""
    found = result.get("judged") or {}
    n = found.get("n")
    low, high = (number(v) for v in found.get("w1_floor_range") or (None, None))
    rows = [
        ("W1 to held-out examples", number(found.get("w1")),
         f"floor {number(found.get('w1_floor'))} ({low} to {high} in three draws): held-out against "
            f"{found.get('floor_of')}, {n} each"),
        ("W2 to held-out examples", number(found.get("w2")), f"floor {number(found.get('w2_floor'))}"),
        ("the critic proves W1 at least", number(found.get("certified")),
         f"gap {number(found.get('gap'))} over L ≤ {number(found.get('lipschitz'))}" if found.get("lipschitz")
         else f"no certificate: {(found.get('refused') or {}).get('certified', 'L is not known')}"),
    ]  # fmt: skip
    if covered := found.get("coverage"):
        rows.append(("modes covered", f"{covered['covered']} of {covered['modes']}", "at least a fifth of their share"))
        rows.append(("high-quality samples", percent(covered["high_quality"]), "within 3 σ of the support"))
        rows.append(("samples near the support", percent(covered["near"]), "within 0.2"))
    real = found.get("manifold_of_real") or {}
    for name, value in (found.get("manifold") or {}).items():
        rows.append((name, number(value), f"real examples themselves: {number(real.get(name))}"))
    for name, other in (found.get("frechet") or {}).items():
        rows.append((f"Fréchet distance, {name}", number(other["value"]), f"floor {number(other['floor'])}; not FID"))
    if classes := found.get("classes"):
        told = (
            f"at least a fifth of their share, as {classes['by']} sees them; total variation to real shares "
            f"{number(classes['variation'])}"
        )
        rows.append(("classes that appear", f"{classes['covered']} of {classes['classes']}", told))
    if copied := found.get("copying"):
        told = "closer than chance: copies?" if copied["copied"] else "50 % for a fresh sample, less for unlike ones"
        rows.append(("nearer to training data than held-out ones", percent(copied["closer"]), told))
    return rows


def result_lines(result: Mapping[str, Any]) -> list[str]:
    """The same as lines of text, with flags."""
    rows = result_rows(result)
    width = max(len(row[0]) for row in rows)
    lines = [f"{what:<{width}}  {value:>9}   ({beside})" for what, value, beside in rows]
    return lines + [f"! {f['flag']} at step {f['step']}: {f['text']}" for f in result.get("flags") or ()]


def _of(run: Run, kind: str) -> list[Mapping[str, Any]]:
    return sorted((e for e in run.events if e["event"] == kind), key=lambda e: e["step"])


def _learning(run: Run) -> list[Drawn]:
    steps, judged = _of(run, "step"), _of(run, "judged")
    out = []
    distance = {"w1": "W1", "w1_floor": "its floor", "certified": "proved by the critic"}
    if svg := figures.lines(judged, distance, "W1", zero=True, dashed=("w1_floor",)):
        n = judged[-1].get("n")
        caption = (
            f"Exact W1 of {n} samples to {n} held-out examples. Dashed: of real examples to real examples; no "
            "generator is expected below it. What the critic proves is never above W1."
        )
        words = f"Last: W1 {number(judged[-1].get('w1'))}, floor {number(judged[-1].get('w1_floor'))}."
        out.append(Drawn("distance", svg, "Distance to held-out data", words, caption))
    losses = {"critic_loss": "critic", "generator_loss": "generator"}
    if svg := figures.lines(steps, losses, "loss", zero=True):
        caption = (
            "What each player minimises, without the penalty. For a Wasserstein critic this is minus the gap: below 0, "
            "rising towards 0."
        )
        out.append(Drawn("losses", svg, "Losses", caption, caption))
    if svg := figures.lines(steps, {"gap": "gap", "penalty": "penalty"}, "score", zero=True):
        caption = "Gap E s(x) − E s(z) of the critic, and its penalty. The gap alone is no distance."
        out.append(Drawn("gap", svg, "Gap and penalty", caption, caption))
    if svg := figures.lines(steps, {"slope": "mean", "slope_max": "largest"}, "slope of the critic"):
        caption = "Norm of the critic's gradient where the penalty looked, in each batch."
        out.append(Drawn("slope", svg, "Slope of the critic", caption, caption))
    health = {"generator_weight": "weight", "spread": "spread"}
    if svg := figures.lines(steps, health, "ratio", zero=True):
        caption = "Weight: how much a sample still moves the generator. Spread: of samples over that of real examples."
        out.append(Drawn("health", svg, "Health", caption, caption))
    return out


def _samples(run: Run) -> tuple[dict[int, Array], Array | None]:
    """Samples by step, and real examples."""
    found = {}
    for path in sorted((run.folder / "samples").glob("[0-9]*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:
                found[int(path.stem)] = file["samples"]
        except (OSError, ValueError, KeyError, EOFError) as error:
            run.gaps[path.name] = f"{path.name} cannot be read ({type(error).__name__})"
    try:
        with np.load(run.folder / "samples" / "real.npz", allow_pickle=False) as file:
            return found, file["samples"]
    except (OSError, ValueError, KeyError, EOFError):
        return found, None


def _pictures(run: Run) -> list[Drawn]:
    found, real = _samples(run)
    if not found:
        return []
    steps = sorted(found)
    picked = sorted({steps[round(i * (len(steps) - 1) / max(_SHOWN - 1, 1))] for i in range(_SHOWN)})
    looks = {f"step {t}": found[t] for t in picked}
    shape = found[steps[-1]].shape
    if len(shape) == 2 and shape[1] == 2 and real is not None:
        caption = "Samples of the same latents at several steps; grey: real examples."
        return [Drawn("samples", figures.scatter(looks, real), "Samples", caption, caption)]
    if len(shape) != 4 or shape[1] not in (1, 3):
        run.gaps["samples"] = f"samples of shape {shape[1:]} are neither points in the plane nor images"
        return []
    last = {f"step {steps[-1]}": found[steps[-1]]} | ({} if real is None else {"real, held out": real})
    caption = "Samples at the end beside real examples."
    before = "The same latents at several steps."
    return [
        Drawn("samples", figures.grids(last), "Samples", caption, caption),
        Drawn("samples-steps", figures.grids(looks), "Samples while training", before, before),
    ]


def write_gan_report(folder: Path) -> Path:
    """Write `report.html` and `figures/*.svg` into the folder of a run, finished or not.

    Returns:
        The path of the page.

    Raises:
        MissingError: matplotlib or jinja2 is not installed, or there is no such run.
    """
    check_installed()
    run = read_gan_run(Path(folder))
    learning, pictures = _learning(run), _pictures(run)
    date, took = when(run.status)
    steps = _of(run, "step")
    context = {
        "rows": result_rows(run.result) if run.result.get("judged") else [],
        "flags": run.result.get("flags") or _of(run, "flag"),
        "learning": learning,
        "pictures": pictures,
        "date": date,
        "took": took,
        "progress": steps[-1] if steps else None,
        "seconds": duration_text(run.result.get("seconds")),
        "refused": (run.result.get("judged") or {}).get("refused") or {},
    }
    return write_page("gan.html.j2", run, [*learning, *pictures], context)
