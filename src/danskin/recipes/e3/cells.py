"""Row E3: W_1 between samples against their size and dimension, and the triangle bound on the plug-in value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from danskin.recipes.sampling_study import number_of
from danskin.report.drawing import Drawn
from danskin.report.rates import rate_figure
from danskin.transport import wasserstein
from danskin.transport.rates import expected_line_distance, fitted_slope, theory, uniform_distance


def cell(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The numbers of one seed."""
    generator = torch.Generator().manual_seed(1000 * seed + settings["p"])
    if settings["kind"] == "shift":
        return {"numbers": _shift(settings, generator)}
    return {"numbers": _rate(settings, generator)}


def _rate(settings: Mapping[str, Any], generator: torch.Generator) -> dict[str, float]:
    """The mean of W_1 between two uniform samples for each size, the slope through them, and that of theory."""
    p, sizes, work = settings["p"], settings["sizes"], settings["work"] * (20 if settings["p"] == 1 else 1)
    means = []
    for n in sizes:
        repeats = max(1, round(work * sizes[-1] / n))
        found = [uniform_distance(settings["space"], p, n, generator) for _ in range(repeats)]
        means.append(sum(found) / repeats)
    numbers = {f"n = {n}": mean for n, mean in zip(sizes, means, strict=True)}
    numbers["slope"] = fitted_slope(sizes, means)
    numbers["theory's slope"] = fitted_slope(sizes, [theory(p, n) for n in sizes])
    if p == 1 and settings["space"] == "cube":
        numbers["one sample, exact slope"] = fitted_slope(sizes, [expected_line_distance(n) for n in sizes])
    return numbers


def _shift(settings: Mapping[str, Any], generator: torch.Generator) -> dict[str, float]:
    """Two normal laws a unit apart: W_1 is 1. What two samples say, and by how much they may be wrong.

    |W_1(sample, other sample) - 1| <= W_1(mu, its sample) + W_1(nu, its sample), and a sample is on average at most as
    far from its law as from a second sample.
    """
    p, n = settings["p"], settings["sizes"][-1]
    draw = [torch.randn(n, p, generator=generator, dtype=torch.float64) for _ in range(4)]
    shift = torch.zeros(p, dtype=torch.float64)
    shift[0] = 1
    plug_in = wasserstein(draw[0], draw[1] + shift).bracket.value
    bound = sum(wasserstein(x, y).bracket.value for x, y in (draw[::2], draw[1::2]))
    return {"W1 of two samples": plug_in, "error": abs(plug_in - 1), "triangle bound": bound}


def draw(result: Mapping[str, Any]) -> list[Drawn]:
    """A panel for each space: means against sizes, with the slopes."""
    spaces: dict[str, dict[str, Any]] = {}
    for case in result["cases"]:
        sizes = [int(c.removeprefix("n = ")) for c in result["columns"][case] if c.startswith("n = ")]
        if not sizes:
            continue
        lines = {}
        for method, settings in result["configs"][case].items():
            means = [number_of(result, case, method, f"n = {n}") for n in sizes]
            slope = number_of(result, case, method, "slope")
            if slope is not None:
                curve = [theory(settings["p"], n) for n in sizes]
                values = [m["mean"] for m in means if m is not None]
                lines[f"p = {settings['p']}"] = (sizes, values, curve, slope["mean"])
        spaces[case] = lines
    return rate_figure(spaces)
