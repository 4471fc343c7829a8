"""Lines over epochs or steps, averaged over seeds: what the figures of the rows are made of."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from danskin.report.drawing import MODEL_COLORS, Drawn, draw_axes, draw_line, legend_label, whole_axis

Events = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]
Line = list[tuple[float, float]]
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
_SHORT = 16  # letters of labels of which three stand side by side
_AGAIN = (0, (6, 1.5, 1, 1.5))  # of labels whose colour another one has already


def line(events: Events, case: str, method: str, kind: str, x: str, y: str) -> Line:
    """The mean over seeds of a number of one method's events, at every x that all seeds have."""
    seeds = [found for (c, _), found in events.items() if c == case]
    values: dict[float, list[float]] = defaultdict(list)
    for found in seeds:
        for event in found:
            if event["event"] == kind and event["model"] == method and event.get(y) is not None:
                values[event[x]].append(event[y])
    return [(at, statistics.fmean(v)) for at, v in sorted(values.items()) if len(v) == len(seeds)]


def drawn(
    name: str,
    title: str,
    caption: str,
    lines: Mapping[str, Sequence[Line]],
    *,
    x: str,
    y: str,
    shares: bool = True,
    marks: Mapping[str, tuple[float, float]] | None = None,
) -> list[Drawn]:
    """A figure of lines, none where there is nothing to draw.

    Args:
        name: of its file.
        title: what a screen reader calls it.
        caption: the words under it.
        lines: by label; further lines of a label are dashed, dotted.
        x: name of the axis.
        y: name of the axis.
        shares: the y axis is in percent, from 0 to a little above the highest point.
        marks: a point to mark on the line of a label.
    """
    if not any(any(group) for group in lines.values()):
        return []

    columns = 3 if max(map(len, lines)) <= _SHORT else 2

    def plot(axes: Any) -> int:
        for i, (label, group) in enumerate(lines.items()):
            color = MODEL_COLORS[i % len(MODEL_COLORS)]
            for points, dash in zip(group, _DASHES, strict=False):
                first = dash == _DASHES[0]
                style = _AGAIN if first and i >= len(MODEL_COLORS) else dash
                draw_line(axes, points, color=color, linestyle=style, label=legend_label(label) if first else None)
            if marks and label in marks:
                axes.plot(*marks[label], marker="o", color=color, markersize=6)
        axes.set(xlabel=x, ylabel=y)
        if shares:
            _percent(axes, max(v for group in lines.values() for points in group for _, v in points))
        whole_axis(axes)
        return columns

    height = 3.1 + 0.17 * max(0, math.ceil(len(lines) / columns) - 3)  # inches: a long legend takes no room of the axes
    last = "; ".join(f"{label}: {group[0][-1][1]:.3g}" for label, group in lines.items() if group and group[0])
    return [Drawn(name, draw_axes(plot, height), title, f"Last values: {last}.", caption)]


def _percent(axes: Any, highest: float) -> None:
    """The y axis shows shares from 0 to a little above the highest one."""
    top = min(1.02, 1.15 * highest + 0.01)
    axes.set_ylim(-0.02 * top, top)
    axes.yaxis.set_major_formatter(lambda value, position: f"{100 * value:.0f} %")


def points(result: Mapping[str, Any], case: str, column: str, weights: str) -> dict[str, float]:
    """The mean of a column by method."""
    return {
        m["method"]: m["mean"]
        for m in result["measured"]
        if (m["case"], m["column"], m["weights"]) == (case, column, weights)
    }


def scattered(
    name: str, title: str, caption: str, at: Mapping[str, tuple[float, float]], *, x: str, y: str
) -> list[Drawn]:
    """A named point for each method, shares on the y axis; none where there is nothing to draw."""
    if not at:
        return []

    def plot(axes: Any) -> int:
        for i, (label, (u, v)) in enumerate(at.items()):
            axes.plot(
                u, v, marker="o", linestyle="", color=MODEL_COLORS[i % len(MODEL_COLORS)], label=legend_label(label)
            )
        axes.set(xlabel=x, ylabel=y)
        axes.set_xlim(left=0)
        _percent(axes, max(v for _, v in at.values()))
        return 3

    words = "; ".join(f"{label}: {u:.3g}, {100 * v:.1f} %" for label, (u, v) in at.items())
    return [Drawn(name, draw_axes(plot), title, words, caption)]
