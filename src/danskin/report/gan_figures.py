"""Figures of a GAN run: curves against steps, and samples as grids of images or as points in the plane."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from danskin.report.drawing import (
    FONTS,
    INK,
    MODEL_COLORS,
    MUTED,
    PAPER,
    Array,
    Event,
    draw_axes,
    draw_line,
    legend_label,
    panels,
    whole_axis,
)
from danskin.report.pictures import png

_COLUMNS = 8  # of images in a grid
_POINTS = 150  # of a sample in a small panel


def lines(
    events: Sequence[Event], names: Mapping[str, str], y: str, *, zero: bool = False, dashed: Sequence[str] = ()
) -> str | None:
    """Numbers of events against steps; None where there are none.

    Args:
        events: of one kind.
        names: label of each number that is drawn.
        y: name of the axis.
        zero: mark 0.
        dashed: numbers that are drawn dashed.
    """
    points = {name: [(e["step"], e.get(name)) for e in events] for name in names}
    if not any(v is not None for found in points.values() for _, v in found):
        return None

    def plot(axes: Any) -> int:
        shown = 0
        if zero:
            axes.axhline(0, color=MUTED, linewidth=0.8)
        for k, (name, label) in enumerate(names.items()):
            style: Any = {"linestyle": (0, (4, 2))} if name in dashed else {}
            color = MUTED if name in dashed else MODEL_COLORS[k % len(MODEL_COLORS)]
            shown += draw_line(axes, points[name], color=color, label=legend_label(label), marker="o", **style)
        axes.set(xlabel="generator steps", ylabel=y)
        whole_axis(axes)
        return min(shown, 3)

    return draw_axes(plot)


def scatter(looks: Mapping[str, Array], real: Array) -> str:
    """Points in the plane: a panel for each look; real ones grey behind.

    Args:
        looks: (n, 2) by title.
        real: (n, 2).
    """
    both = np.concatenate([real, *looks.values()])
    both = both[np.isfinite(both).all(1)]
    low, high = np.quantile(both, 0.002), np.quantile(both, 0.998)
    room = 0.08 * (high - low)

    def plot(grid: Any) -> int:
        for axes, (title, points) in zip(grid.ravel(), looks.items(), strict=True):
            axes.scatter(*real.T, s=5, color=MUTED, alpha=0.35, linewidths=0)
            axes.scatter(*points.T, s=7, color=MODEL_COLORS[0], alpha=0.8, linewidths=0)
            axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room), aspect="equal")
            axes.set_title(title, fontsize=10, color=INK, loc="left")
        return 0

    return panels(plot, 1, len(looks), size=(0.3 + 2.9 * len(looks), 3.1))


def scatter_of(looks: Mapping[str, Array], real: Array, columns: int = 5) -> str:
    """The same in rows of a few panels: for many looks; titles are names of methods."""
    both = real[np.isfinite(real).all(1)]
    low, high = float(both.min()), float(both.max())
    room = 0.15 * (high - low)
    columns = min(columns, len(looks))
    rows = math.ceil(len(looks) / columns)

    def plot(grid: Any) -> int:
        flat = grid.ravel()
        for axes, (title, points) in zip(flat, looks.items(), strict=False):
            axes.scatter(*real[:_POINTS].T, s=4, color=MUTED, alpha=0.35, linewidths=0)
            axes.scatter(*points[:_POINTS].T, s=4, color=MODEL_COLORS[0], alpha=0.8, linewidths=0)
            axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room), aspect="equal")
            axes.set(xticks=[], yticks=[])
            axes.set_title(legend_label(title), fontsize=9, color=INK, loc="left")
        for axes in flat[len(looks) :]:
            axes.set_visible(False)
        return 0

    return panels(plot, rows, columns, size=(0.2 + 2.1 * columns, 0.2 + 2.35 * rows))


def grids(looks: Mapping[str, Array], columns: int = 4) -> str:
    """Images in squares side by side, a square for each look, as SVG.

    Args:
        looks: (n, C, H, W) in [0, 1] by title.
        columns: squares in a row.
    """
    sides = []
    x, top, height, width = 0, 0, 0, 0
    for k, (title, images) in enumerate(looks.items()):
        if k and k % columns == 0:
            x, top = 0, height + 14
        sheet = grid(images)
        scale = 2 if sheet.shape[2] < 200 else 1
        w, h = scale * sheet.shape[2], scale * sheet.shape[1]
        style = f"font-size: 13px; fill: {INK}"
        sides.append(f'<text x="{x}" y="{top + 14}" style="{style}">{escape(title)}</text>')
        sides.append(
            f'<image x="{x}" y="{top + 22}" width="{w}" height="{h}" href="{png(sheet)}" '
            'style="image-rendering: pixelated"/>'
        )
        x, height = x + w + 20, max(height, top + h + 26)
        width = max(width, x)
    paper = f'<rect width="{width}" height="{height}" style="fill: {PAPER}"/>'
    root = (
        f'<svg style="font-family: {FONTS}" xmlns="http://www.w3.org/2000/svg" width="{0.75 * width}pt" '
        f'height="{0.75 * height}pt" '
        f'viewBox="0 0 {width} {height}">'
    )
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', root, paper, *sides, "</svg>\n"])


def grid(images: Array) -> Array:
    """Images (n, C, H, W) as one, (C, rows * (H + 1) + 1, columns * (W + 1) + 1), with lines between them."""
    n, c, h, w = images.shape
    columns = min(_COLUMNS, n)
    rows = math.ceil(n / columns)
    sheet = np.full((c, rows * (h + 1) + 1, columns * (w + 1) + 1), 0.5, dtype=np.float32)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + 1) + 1, (i % columns) * (w + 1) + 1
        sheet[:, top : top + h, left : left + w] = image
    return sheet
