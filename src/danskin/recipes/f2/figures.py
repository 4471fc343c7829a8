"""Samples of every method beside real ones, and W1 while training (row F2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from danskin.files import slug
from danskin.recipes.f2.plan import GANPlan, place
from danskin.report.curves import drawn
from danskin.report.drawing import Array, Drawn
from danskin.report.gan_figures import grids, scatter_of


def draw(plan: GANPlan, out: Path) -> list[Drawn]:
    """Two figures for each problem, of seed 0."""
    figures = []
    for case in plan.cases:
        methods = [m for c, m in plan.configs if c == case]
        name = slug(case)
        looks, real = _looks(plan, out, case, methods)
        caption = f"{case}: samples of seed 0 after training."
        if looks and real is not None:
            if real.ndim == 2:
                svg = scatter_of(looks, real)
            else:
                svg = grids({"real, held out": real} | looks)
            figures.append(Drawn(f"samples-{name}", svg, f"Samples, {case}", caption, caption))
        lines = {plan.names[m]: [_distances(out / place(case, m, 0))] for m in methods}
        told = f"{case}: exact W1 of a few hundred samples to held-out examples while training, seed 0."
        title = f"W1, {case}"
        figures += drawn(f"w1-{name}", title, told, lines, x="generator steps", y="W1", shares=False)
    return figures


def _looks(plan: GANPlan, out: Path, case: str, methods: list[str]) -> tuple[dict[str, Array], Array | None]:
    looks: dict[str, Array] = {}
    real: Array | None = None
    for method in methods:
        folder = out / place(case, method, 0) / "samples"
        last = max(folder.glob("[0-9]*.npz"), default=None)
        if last is not None and (folder / "real.npz").is_file():
            looks[plan.names[method]] = _array(last)
            real = _array(folder / "real.npz")
    return looks, real


def _array(path: Path) -> Array:
    with np.load(path, allow_pickle=False) as file:
        found: Array = file["samples"]
    return found


def _distances(folder: Path) -> list[tuple[float, float]]:
    path, found = folder / "metrics.jsonl", {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "judged":
            found[event["step"]] = event["w1"]
    return sorted(found.items())
