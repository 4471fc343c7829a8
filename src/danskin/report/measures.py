"""Measures that move: positions of particles against steps, as thick as they weigh. Lecture: row G2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from danskin.report.drawing import INK, MODEL_COLORS, Array, panels

_WIDEST = 7.0  # points, of a particle that has all of the weight
_LEAST = 1e-3  # lighter particles are not drawn


def particles(paths: Mapping[str, Array], views: Sequence[tuple[float, float]]) -> str:
    """A panel for each player: where its particles were at each look; the thicker the heavier.

    Steps are logarithmic but for those before the first look. Dots at the right are the measure at the end. Jumps
    across more than half of the view (from one end of a circle to the other) are not drawn.

    Args:
        paths: "steps" (k,), and for players x and y "x.points" and "x.weights" (k, particles).
        views: bounds of the positions of x and of y.
    """

    def draw(axes: Any, player: str, view: tuple[float, float], color: str) -> None:
        steps, points, weights = paths["steps"], paths[f"{player}.points"], paths[f"{player}.weights"]
        length = view[1] - view[0]
        for points_of, weights_of in zip(points.T, weights.T, strict=True):
            for first, last, width in _runs(points_of, weights_of, length):
                axes.plot(
                    steps[first : last + 1], points_of[first : last + 1], linewidth=width, color=color, alpha=0.55,
                    solid_capstyle="butt",
                )  # fmt: skip
        shown = weights[-1] > _LEAST
        axes.scatter(
            np.full(shown.sum(), steps[-1]), points[-1][shown], s=8 + 130 * weights[-1][shown], color=color, zorder=4,
            clip_on=False,
        )  # fmt: skip
        axes.set_xscale("symlog", linthresh=max(float(steps[1]), 1.0))  # most of it happens early
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlim=(0, steps[-1]), ylim=(view[0] - 0.04 * length, view[1] + 0.04 * length), xlabel="steps")

    def plot(grid: Any) -> int:
        heads = ("x (minimises)", "y (maximises)")
        for k, (player, head) in enumerate(zip("xy", heads, strict=True)):
            axes = grid[0][k]
            draw(axes, player, views[k], MODEL_COLORS[k])
            axes.set_ylabel("position")
            axes.set_title(head, fontsize=10, color=INK, loc="left")
        return 0

    return panels(plot, 1, 2, size=(7.6, 3.3))


def _runs(points: Array, weights: Array, length: float) -> Iterator[tuple[int, int, float]]:
    """(first, last, width) of pieces of a path that have one width, in steps of a quarter of a point, and no jump."""
    weight = (weights[:-1] + weights[1:]) / 2
    shown = (weight > _LEAST) & (np.abs(np.diff(points)) < length / 2)
    widths = np.where(shown, np.round(4 * (0.5 + _WIDEST * weight)) / 4, 0.0)
    ends = np.flatnonzero(np.diff(widths)) + 1
    for first, last in zip([0, *ends], [*ends, len(widths)], strict=True):
        if widths[first] > 0:
            yield int(first), int(last), float(widths[first])
