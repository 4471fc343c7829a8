"""Figures of two-player dynamics: phase portraits, and curves against steps. Lecture: row G1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from danskin.report.drawing import INK, LINE, MODEL_COLORS, MUTED, WRONG, Array, legend_label, panels

_FIRST, _LAST = 160, 60  # points of a path that are drawn
_AGAIN = (0, (6, 1.5, 1, 1.5))  # of lines whose colour another one has already


def phase_portrait(
    arrows: tuple[Array, Array],
    paths: Mapping[str, Array],
    solutions: Sequence[Sequence[float]],
    cycles: Sequence[Mapping[str, Any]],
    view: tuple[float, float],
) -> str:
    """A panel per solver: where the players are pushed (arrows), where they went (lines), where they should go (star).

    A path is pale where it begins and dark where it ends (what lies between is left out); a ring marks the start, a dot
    the end. Dashed: known cycles that attract; dotted: that repel.

    Args:
        arrows: points (k, 2) and the direction of motion there (k, 2).
        paths: per solver, (times, starts, 2).
        solutions: points (2,).
        cycles: "radius" and "attracts" of circles around the first solution.
        view: bounds of both axes.
    """
    columns = min(len(paths), 3)
    rows = -(-len(paths) // columns)
    room = 0.04 * (view[1] - view[0])
    low, high = view[0] - room, view[1] + room

    def draw(axes: Any, name: str, path: Array) -> None:
        where, push = arrows
        size = np.linalg.norm(push, axis=1, keepdims=True)
        unit = push / np.where(size > 0, size, 1)
        axes.quiver(*where.T, *unit.T, color=LINE, scale=24, width=0.005, headwidth=4.5, pivot="mid", zorder=0)
        for cycle in cycles:
            angle = np.linspace(0, 2 * np.pi, 181)
            ring = np.asarray(solutions[0])[:, None] + cycle["radius"] * np.stack([np.cos(angle), np.sin(angle)])
            style: Any = (0, (4, 2)) if cycle["attracts"] else (0, (1, 1.5))
            axes.plot(*ring, color=MUTED, linewidth=1.2, linestyle=style, zorder=1)
        for k in range(path.shape[1]):
            line = np.where(np.abs(path[:, k]) <= 50 * max(abs(low), abs(high)), path[:, k], np.nan)
            color = MODEL_COLORS[k % len(MODEL_COLORS)]
            axes.plot(*line[:_FIRST].T, color=color, linewidth=0.7, alpha=0.45, zorder=2)
            axes.plot(*line[-_LAST:].T, color=color, linewidth=1.5, zorder=3)
            axes.plot(*line[0], marker="o", markersize=3.6, markerfacecolor="none", color=color, zorder=3)
            axes.plot(*line[-1], marker="o", markersize=4.2, color=color, zorder=5)
        for point in solutions:
            axes.plot(*point, marker="*", markersize=12, color=WRONG, markeredgecolor="white", zorder=6)
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="x (minimises)", ylabel="y (maximises)", aspect="equal")
        axes.grid(visible=False)
        axes.set_title(legend_label(name), fontsize=10, color=INK, loc="left")

    def plot(grid: Any) -> int:
        flat = grid.ravel()
        for axes, (name, path) in zip(flat, paths.items(), strict=False):
            draw(axes, name, path)
        for axes in flat[len(paths) :]:
            axes.set_visible(False)
        return 0

    return panels(plot, rows, columns, size=(0.4 + 3.6 * columns, 0.3 + 3.6 * rows))


def curves(
    lines: Mapping[str, tuple[Array, Array]],
    ylabel: str,
    bounds: Mapping[str, Any] | None = None,
    log_steps: bool = False,
) -> str:
    """A value against steps on a logarithmic axis, a line per solver; dashed: a bound of it.

    Args:
        lines: per solver, steps and values; what is 0, NaN or infinite is left out.
        ylabel: what the values are.
        bounds: per solver, likewise.
        log_steps: steps on a logarithmic axis, too.
    """

    def plot(grid: Any) -> int:
        axes = grid[0][0]
        for k, (name, (steps, values)) in enumerate(lines.items()):
            color = MODEL_COLORS[k % len(MODEL_COLORS)]
            shown = np.isfinite(values) & (values > 0)
            style: Any = "-" if k < len(MODEL_COLORS) else _AGAIN
            axes.plot(steps[shown], values[shown], color=color, linestyle=style, label=legend_label(name))
            if bounds and name in bounds:
                axes.plot(*bounds[name], color=color, linestyle=(0, (4, 2)), linewidth=1.2)
        axes.set(xlabel="steps", ylabel=ylabel, yscale="log")
        if log_steps:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:.0e}")  # the default writes powers of ten in TeX
        return 3 if len(lines) > 2 else 2

    return panels(plot, size=(6.0, 3.1 + 0.16 * (len(lines) // 3)))


def shares(lines: Mapping[str, tuple[Array, Array]], xlabel: str) -> str:
    """Shares in percent against effort, a line per method.

    Args:
        lines: per method, effort and shares in [0, 1].
        xlabel: what effort is counted in.
    """

    def plot(grid: Any) -> int:
        axes = grid[0][0]
        for k, (name, (effort, found)) in enumerate(lines.items()):
            style: Any = "-" if k < len(MODEL_COLORS) else _AGAIN
            color = MODEL_COLORS[k % len(MODEL_COLORS)]
            axes.plot(effort, 100 * found, color=color, linestyle=style, label=legend_label(name))
        axes.set(xlabel=xlabel, ylabel="near the equilibrium, %", ylim=(-3, 103))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        return 3

    return panels(plot, size=(6.4, 3.1 + 0.16 * (len(lines) // 3)))
