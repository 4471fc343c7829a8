"""What the figures of reports are drawn with: colours, axes, lines, and the SVG text of a figure.

A figure is a whole SVG file on white; `Drawn.inline` makes of it what may stand in an HTML page among
others: no clashing ids, colours as CSS variables (so that the page's dark mode reaches them), a title and a
description. The same data give the same bytes. Needs numpy and matplotlib (imported late), never torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Event = Mapping[str, Any]

INK, MUTED, LINE, PAPER, WRONG = "#1f2328", "#646c76", "#e2e5e9", "#ffffff", "#b4232a"
MODEL_COLORS = ("#1f6fb2", "#d9730d", "#0f8a6d", "#8e5ba6", "#6f7d1a", "#a8452f", "#2b7f94", "#6b5a45")
#: The colours, as the names of the page's CSS variables.
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", PAPER: "card", WRONG: "wrong"} | {
    color: f"model{i}" for i, color in enumerate(MODEL_COLORS)
}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}
MARKERS = "os^Dv"
_HALF_PAGE = 500.0  # points
RC: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "danskin", "text.parse_math": False, "font.family": "DejaVu Sans",
    "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": LINE, "grid.linewidth": 0.8, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "lines.linewidth": 1.8, "lines.markersize": 4.5,
    "legend.frameon": False, "legend.handlelength": 2.4, "figure.facecolor": PAPER, "axes.facecolor": "none",
}  # fmt: skip


def colors(models: Iterable[str]) -> dict[str, str]:
    """A colour for each model; "adversarial" is always blue and "standard" always orange."""
    fixed = {"adversarial": MODEL_COLORS[0], "standard": MODEL_COLORS[1]}
    out: dict[str, str] = {}
    for model in models:
        free = [c for c in MODEL_COLORS if c not in out.values() and c not in fixed.values()]
        out[model] = fixed.get(model) or (free or MODEL_COLORS)[0]
    return out


def draw_axes(plot: Callable[[Any], int], height: float = 3.1) -> str:
    """The SVG of one pair of axes that `plot` fills; it returns the number of legend columns, 0 for none."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the reader's own matplotlibrc
        matplotlib.rcParams.update(RC)
        figure = Figure((4.7, height), layout="constrained")
        columns = plot(figure.add_subplot())
        if columns:
            figure.legend(loc="outside upper left", ncols=columns, fontsize=9, columnspacing=1.4)
        return to_svg(figure)


def panels(
    plot: Callable[[Any], int], rows: int = 1, columns: int = 1, size: tuple[float, float] = (4.7, 3.1), **options: Any
) -> str:
    """The SVG of a grid of axes that `plot` fills; it returns the number of legend columns, 0 for none.

    Args:
        plot: gets the axes as a (rows, columns) array; the legend is that of the first ones.
        rows: of the grid.
        columns: of the grid.
        size: in inches.
        options: of `Figure.subplots`, such as sharey.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the reader's own matplotlibrc
        matplotlib.rcParams.update(RC)
        figure = Figure(size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        if legend := plot(axes):
            handles, labels = axes[0][0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper left", ncols=legend, fontsize=9, columnspacing=1.4)
        return to_svg(figure)


def to_svg(figure: Any) -> str:
    """The figure as SVG without date, version, unused ids, outside references or a page-wide style sheet."""
    from io import StringIO

    stream = StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = re.sub(r"<!DOCTYPE[^>]*>\s*|<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", stream.getvalue(), flags=re.S)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.S)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;?\s*", "", text).replace("xlink:href", "href")
    text = re.sub(r'(<g clip-path="[^"]+")>\s*((?:<use [^>]*/>\s*)+)</g>', _points, text)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    root = f'<svg style="font-family: {FONTS}; stroke-linejoin: round; stroke-linecap: butt" '
    return text.replace("<svg ", root, 1).replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "", 1)


def _points(group: re.Match[str]) -> str:
    """Many points of one style: it is said once, and places in tenths of a point."""
    styles = set(re.findall(r' style="[^"]*"', group[2]))
    if len(styles) > 1:
        return group[0]
    style = "".join(styles)
    places = re.sub(r'(x|y)="([-\d.]+)"', lambda m: f'{m[1]}="{float(m[2]):.1f}"', group[2].replace(style, ""))
    return f"{group[1]}{style}>" + re.sub(r"\n\s+", "\n", places) + "</g>"


@dataclass(frozen=True)
class Drawn:
    """A figure of the report.

    Args:
        name: of its file, and put before every id; different for each figure of a page.
        svg: a whole SVG file of this module.
        title: what a screen reader calls it.
        description: what it shows, in words.
        caption: the words under it.
    """

    name: str
    svg: str
    title: str
    description: str
    caption: str

    @property
    def wide(self) -> bool:
        """Whether it is too wide for half of a page: panels side by side."""
        width = re.search(r'<svg [^>]*width="([\d.]+)pt"', self.svg)
        return width is not None and float(width[1]) > _HALF_PAGE

    def inline(self) -> str:
        """The SVG for use inside an HTML page."""

        def variables(match: re.Match[str]) -> str:
            return re.sub(
                "#[0-9a-f]{6}", lambda m: f"var(--{VARIABLES[m[0]]})" if m[0] in VARIABLES else m[0], match[0]
            )

        text = re.sub(r"<\?xml.*?\?>\s*", "", self.svg, flags=re.S)
        text = re.sub(r'( id="|url\(#| href="#)', rf"\g<1>{self.name}-", text)
        text = re.sub(r'style="[^"]*"', variables, text)
        text = re.sub(r' xmlns="[^"]*"', "", text, count=1)
        title, desc = f"{self.name}-title", f"{self.name}-desc"
        words = f'<title id="{title}">{escape(self.title)}</title><desc id="{desc}">{escape(self.description)}</desc>'
        text = text.replace("<svg ", f'<svg role="img" aria-labelledby="{title} {desc}" ', 1)
        return re.sub(r"(<svg [^>]*>)", lambda m: m[1] + words, text, count=1)


def legend_label(text: str) -> str:
    """A legend entry: short, and not hidden by a leading underscore."""
    text = text if len(text) <= 24 else text[:23] + "…"
    return f" {text}" if text.startswith("_") else text


def share_axis(axes: Any) -> None:
    """The y axis shows shares from 0 to 100 %."""
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def whole_axis(axes: Any) -> None:
    """The x axis counts something."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def draw_line(axes: Any, points: Sequence[tuple[Any, Any]], **style: Any) -> bool:
    """A line through the points whose y is known and finite; with markers when they are few."""
    known = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
    if len(known) > 20:
        style.pop("marker", None)
    if known:
        axes.plot(*zip(*known, strict=True), **style)
    return bool(known)


def of_kind(events: Iterable[Event], kind: str, model: str) -> list[Event]:
    """One model's events of a kind, by step."""
    return sorted((e for e in events if e["event"] == kind and e["model"] == model), key=lambda e: e.get("step", 0))
