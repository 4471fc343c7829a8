"""Histograms of samples under densities. Lecture: row E1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danskin.report.drawing import INK, LINE, MODEL_COLORS, Array, Drawn, panels


def density_figure(shown: Mapping[str, tuple[Array, Array, Array, Array]], words: str = "") -> list[Drawn]:
    """A panel for each law.

    Args:
        shown: title -> (points, density there, edges of the bins, heights of the bins).
        words: put behind the description.
    """

    def plot(grid: Any) -> int:
        for k, (axes, (title, (at, density, edges, heights))) in enumerate(
            zip(grid.ravel(), shown.items(), strict=False)
        ):
            axes.stairs(heights, edges, fill=True, color=LINE)
            axes.plot(at, density, color=MODEL_COLORS[k % len(MODEL_COLORS)])
            axes.set(ylim=(0, min(1.25 * max(heights), 1.1 * max(density.max(), max(heights)))))
            axes.set_title(title, fontsize=10, color=INK, loc="left")
        return 0

    columns = 2
    rows = -(-len(shown) // columns)
    caption = "Samples of push-forwards (grey) and their densities by change of variables, summed over all branches."
    svg = panels(plot, rows, columns, size=(7.0, 0.3 + 2.4 * rows))
    return [Drawn("densities", svg, "Push-forwards: samples and densities", caption + words, caption)]
