"""Measures that move: positions of particles against steps, as thick as they weigh. Lecture: row G2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from danskin.report.drawing import INK, MODEL_COLORS, Array, panels

_WIDEST = 7.0  # points, of a particle that has all of the weight


def particles(paths: Mapping[str, Array], views: Sequence[tuple[float, float]]) -> str:
    """A panel for each player: where its particles were at each look; the thicker the heavier.

    Steps are logarithmic but for those before the first look. Dots at the right are the measure at the end. Jumps
    across more than half of the view (from one end of a circle to the other) are not drawn.

    Args:
        paths: "steps" (k,), and for players x and y "x.points" and "x.weights" (k, particles).
        views: bounds of the positions of x and of y.
    """

    def draw(axes: Any, player: str, view: tuple[float, float], color: str) -> None:
        from matplotlib.collections import LineCollection

        steps, points, weights = paths["steps"], paths[f"{player}.points"], paths[f"{player}.weights"]
        length = view[1] - view[0]
        for points_of, weights_of in zip(points.T, weights.T, strict=True):
            at = np.stack([steps, points_of], 1)
            parts = np.stack([at[:-1], at[1:]], 1)
            mean = (weights_of[:-1] + weights_of[1:]) / 2
            whole = np.abs(np.diff(points_of)) < length / 2
            lines = LineCollection(
                list(parts[whole]), linewidths=0.4 + _WIDEST * mean[whole], colors=color, alpha=0.55, capstyle="butt"
            )
            axes.add_collection(lines)
        shown = weights[-1] > 1e-3
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
