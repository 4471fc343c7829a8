"""Figures of functions in the plane that tell two samples apart. Lecture: row E4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from danskin.report.drawing import INK, MODEL_COLORS, Array, legend_label, panels


def witness_maps(fields: Mapping[str, Array], view: float, x: Array, y: Array) -> str:
    """A panel per function: its level lines 0.2 apart, with the mean of the field at 0, over both samples.

    Args:
        fields: per name, (rows, columns) values on a grid over the square [-view, view]^2; rows go up.
        view: half of the side of the square.
        x: (n, 2) points of the sample where functions should be high, dots.
        y: (m, 2) points where they should be low, crosses.
    """
    columns = min(len(fields), 3)
    rows = math.ceil(len(fields) / columns)

    def draw(axes: Any, name: str, field: Array) -> None:
        line = np.linspace(-view, view, field.shape[1])
        centred = field - np.median(field)
        size = max(0.2 * math.ceil(float(np.abs(centred).max()) / 0.2), 0.2)
        levels = np.arange(-size, size + 0.1, 0.2)
        axes.contour(line, line, centred, levels=levels, cmap="coolwarm", linewidths=1.0, zorder=1)
        axes.scatter(*x.T, s=5, color=MODEL_COLORS[1], linewidths=0, zorder=2)
        axes.scatter(*y.T, s=7, color=MODEL_COLORS[0], marker="x", linewidths=0.6, zorder=2)
        axes.set(xlim=(-view, view), ylim=(-view, view), aspect="equal")
        axes.grid(visible=False)
        axes.set_title(legend_label(name), fontsize=10, color=INK, loc="left")

    def plot(grid: Any) -> int:
        flat = grid.ravel()
        for axes, (name, field) in zip(flat, fields.items(), strict=False):
            draw(axes, name, field)
        for axes in flat[len(fields) :]:
            axes.set_visible(False)
        return 0

    return panels(plot, rows, columns, size=(0.3 + 3.3 * columns, 0.3 + 3.3 * rows))
