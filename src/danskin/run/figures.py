"""Figures of a run's report, as SVG text: learning curves, accuracy against radius, pictures of attacks.

Every function returns a whole SVG file on white; `Drawn.inline` makes of it what may stand in an HTML page among
others: no clashing ids, colours as CSS variables (so that the page's dark mode reaches them), a title and a
description. The same data give the same bytes. Needs numpy and matplotlib (imported late), never torch.
"""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
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
_MARKERS = "os^Dv"
_RC: dict[Any, Any] = {
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


def _draw(plot: Callable[[Any], int]) -> str:
    """The SVG of one pair of axes that `plot` fills; it returns the number of legend columns, 0 for none."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the reader's own matplotlibrc
        matplotlib.rcParams.update(_RC)
        figure = Figure((4.7, 3.1), layout="constrained")
        columns = plot(figure.add_subplot())
        if columns:
            figure.legend(loc="outside upper left", ncols=columns, fontsize=9, columnspacing=1.4)
        return _svg(figure)


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
        matplotlib.rcParams.update(_RC)
        figure = Figure(size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        if legend := plot(axes):
            handles, labels = axes[0][0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper left", ncols=legend, fontsize=9, columnspacing=1.4)
        return _svg(figure)


def percent_axis(axes: Any) -> None:
    """The y axis shows shares from 0 to 100 %."""
    _shares(axes)


def _svg(figure: Any) -> str:
    """The figure as SVG without date, version, unused ids, outside references or a page-wide style sheet."""
    from io import StringIO

    stream = StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = re.sub(r"<!DOCTYPE[^>]*>\s*|<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", stream.getvalue(), flags=re.S)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.S)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;?\s*", "", text).replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    root = f'<svg style="font-family: {FONTS}; stroke-linejoin: round; stroke-linecap: butt" '
    return text.replace("<svg ", root, 1).replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "", 1)


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


def _label(text: str) -> str:
    """A legend entry: short, and not hidden by a leading underscore."""
    text = text if len(text) <= 24 else text[:23] + "…"
    return f" {text}" if text.startswith("_") else text


def _shares(axes: Any) -> None:
    """The y axis shows shares from 0 to 100 %."""
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def _whole(axes: Any) -> None:
    """The x axis counts something."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def _line(axes: Any, points: Sequence[tuple[Any, Any]], **style: Any) -> bool:
    """A line through the points whose y is known and finite; with markers when they are few."""
    known = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
    if len(known) > 20:
        style.pop("marker", None)
    if known:
        axes.plot(*zip(*known, strict=True), **style)
    return bool(known)


def _of(events: Iterable[Event], kind: str, model: str) -> list[Event]:
    return sorted((e for e in events if e["event"] == kind and e["model"] == model), key=lambda e: e.get("step", 0))


def training_loss(events: Sequence[Event], color: Mapping[str, str]) -> str | None:
    """Training loss per epoch, or per step while no epoch is finished; None without either."""
    kind, x, y = "epoch", "epoch", "train_loss"
    if not any(e["event"] == "epoch" for e in events):
        kind, x, y = "step", "step", "loss"
    if not any(e["event"] == kind for e in events):
        return None

    def plot(axes: Any) -> int:
        drawn = 0
        for i, (model, c) in enumerate(color.items()):
            points = [(e.get(x), e.get(y)) for e in _of(events, kind, model)]
            drawn += _line(axes, points, color=c, label=_label(model), marker=_MARKERS[i % 5])
        axes.set(xlabel=x, ylabel="training loss")
        axes.set_ylim(bottom=0 if axes.get_ylim()[0] >= 0 else None)
        _whole(axes)
        return min(drawn, 3)

    return _draw(plot)


def validation_accuracy(events: Sequence[Event], color: Mapping[str, str]) -> str | None:
    """Clean and robust validation accuracy per epoch; None before the first epoch ended."""
    if not any(e["event"] == "epoch" for e in events):
        return None

    def plot(axes: Any) -> int:
        for i, (model, c) in enumerate(color.items()):
            for key, dash in (("clean", (0, (4, 2))), ("robust", "-")):
                points = [(e.get("epoch"), e.get(key)) for e in _of(events, "epoch", model)]
                label = f"{_label(model)}, {key}"
                _line(axes, points, color=c, linestyle=dash, label=label, marker=_MARKERS[i % 5])
        axes.set(xlabel="epoch", ylabel="validation accuracy")
        _shares(axes)
        _whole(axes)
        return 2

    return _draw(plot)


def overfitting_watch(events: Sequence[Event], model: str, color: str, moment: int | None) -> str | None:
    """Accuracy under FGSM and under PGD during training, with the catastrophic step; None if never watched."""
    looks = _of(events, "watch", model)
    if not looks:
        return None

    def plot(axes: Any) -> int:
        for key, dash, marker in (("fgsm", (0, (4, 2)), "o"), ("pgd", "-", "s")):
            points = [(e.get("step"), e.get(key)) for e in looks]
            _line(axes, points, color=color, linestyle=dash, label=f"under {key.upper()}", marker=marker)
        if moment is not None:
            axes.axvline(
                moment, color=WRONG, linewidth=1.4, linestyle=(0, (1, 1.5)), label=f"overfitted, step {moment}"
            )
        axes.set(xlabel="step", ylabel="accuracy")
        _shares(axes)
        _whole(axes)
        return 3

    return _draw(plot)


def accuracy_against_radius(
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    norm: str,
    color: Mapping[str, str],
    mark: tuple[float, str] | None,
) -> str | None:
    """Robust accuracy against the radius with its interval; None without a curve.

    Args:
        curves: per model, points with "radius" and "accuracy" (a share).
        norm: "linf", "l2" or "l1".
        color: of each model.
        mark: a radius to mark, and what it is.
    """
    if not any(curves.values()):
        return None

    def plot(axes: Any) -> int:
        for i, (model, curve) in enumerate(curves.items()):
            points = sorted((p for p in curve if p["accuracy"]["n"]), key=lambda p: p["radius"])
            radius = [p["radius"] for p in points]
            low, high = zip(*(p["accuracy"]["interval"] for p in points), strict=True) if points else ((), ())
            axes.fill_between(radius, low, high, color=color[model], alpha=0.16, linewidth=0)
            values = [p["accuracy"]["value"] for p in points]
            axes.plot(radius, values, color=color[model], marker=_MARKERS[i % 5], label=_label(model))
        if mark:
            axes.axvline(mark[0], color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)), label=mark[1], zorder=1)
        axes.set(xlabel=f"radius ε of the attack ({NORMS.get(norm, norm)})", ylabel="robust accuracy")
        _shares(axes)
        return 3

    return _draw(plot)


# --- pictures -------------------------------------------------------------------------------------------

_HEAD, _CELL, _SIDE = 136, 108, 94  # widths in px: row heads, a column, an image


def _png(image: Array) -> str:
    """A (C, H, W) image in [0, 1] with one or three channels as a PNG data URI."""
    pixels = np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")):
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return "data:image/png;base64," + base64.b64encode(out).decode()


class _Sheet:
    """Rows of images and captions, from top to bottom, as SVG."""

    def __init__(self, columns: int) -> None:
        self.width = _HEAD + columns * _CELL
        self.y = 4
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, style: str, full: str = "") -> None:
        title = f"<title>{escape(full)}</title>" if full and full != words else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" style="{style}">{escape(words)}{title}</text>')

    def head(self, lines: Sequence[str], y: float) -> None:
        """The words left of a row."""
        for i, line in enumerate(lines):
            short = line if len(line) <= 20 else line[:19] + "…"
            self.text(0, y + 15 * i, short, f"font-size: 12.5px; fill: {INK if i == 0 else MUTED}", line)

    def heading(self, words: str, color: str) -> None:
        """A rule across, and a name under it."""
        self.y += 12
        self.parts.append(f'<path d="M0 {self.y}H{self.width}" style="stroke: {LINE}"/>')
        self.parts.append(f'<circle cx="5" cy="{self.y + 18}" r="5" style="fill: {color}"/>')
        self.text(16, self.y + 22, words, f"font-size: 14px; font-weight: 600; fill: {INK}")
        self.y += 36

    def images(self, head: Sequence[str], images: Array, wrong: Sequence[bool] = ()) -> None:
        """A row of images; wrong ones get a frame."""
        self.head(head, self.y + _SIDE / 2 + 11 - 7.5 * len(head))
        for i, image in enumerate(images):
            x = _HEAD + i * _CELL
            self.parts.append(
                f'<image x="{x}" y="{self.y}" width="{_SIDE}" height="{_SIDE}" href="{_png(image)}" '
                'style="image-rendering: pixelated"/>'
            )
            frame, width = (WRONG, 3) if len(wrong) and wrong[i] else (LINE, 1)
            self.parts.append(
                f'<rect x="{x}" y="{self.y}" width="{_SIDE}" height="{_SIDE}" '
                f'style="fill: none; stroke: {frame}; stroke-width: {width}"/>'
            )
        self.y += _SIDE + 6

    def captions(self, head: str, words: Sequence[str], right: Sequence[bool] | None = None) -> None:
        """A line of words under the images; right and wrong ones differ in mark, weight and colour."""
        self.head([head], self.y + 13)
        for i, word in enumerate(words):
            style, mark = f"font-size: 13px; text-anchor: middle; fill: {INK}", ""
            if right is not None:
                mark = "✓ " if right[i] else "✗ "
                style = style if right[i] else style.replace(INK, WRONG) + "; font-weight: 700"
            short = word if len(word) <= 13 else word[:12] + "…"
            self.text(_HEAD + i * _CELL + _SIDE / 2, self.y + 13, mark + short, style, mark + word)
        self.y += 18

    def svg(self) -> str:
        size = f'width="{self.width}" height="{self.y + 4}" viewBox="-3 0 {self.width + 3} {self.y + 4}"'
        paper = f'<rect x="-3" width="{self.width + 3}" height="{self.y + 4}" style="fill: {PAPER}"/>'
        root = f'<svg style="font-family: {FONTS}" xmlns="http://www.w3.org/2000/svg" {size}>'
        return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', root, paper, *self.parts, "</svg>\n"])


def attack_pictures(
    examples: Mapping[str, Array], norm: str, color: Mapping[str, str], classes: Sequence[str]
) -> str | None:
    """Original, perturbation and adversarial image of a few examples, for each model; None if there are none.

    Args:
        examples: `x` (k, C, H, W) in [0, 1], `y` (k,), and `adv/M/norm`, `pred/M/norm`, `pred/M/clean`.
        norm: which attack.
        color: of each model M, in the order to show.
        classes: names of the labels; a label without a name is shown as its number.
    """
    x, y = examples["x"], examples["y"]
    models = [m for m in color if {f"adv/{m}/{norm}", f"pred/{m}/{norm}"} <= set(examples)]
    if not models or x.ndim != 4 or x.shape[1] not in (1, 3) or not len(x):
        return None

    def names(labels: Array) -> list[str]:
        return [str(classes[i]) if 0 <= i < len(classes) else str(i) for i in labels.tolist()]

    sheet = _Sheet(len(x))
    sheet.images(["original"], x)
    sheet.captions("true label", names(y))
    for model in models:
        clean = examples.get(f"pred/{model}/clean")
        if clean is not None:
            sheet.captions(f"{model} says", names(clean), (clean == y).tolist())
    for model in models:
        adv, said = examples[f"adv/{model}/{norm}"], examples[f"pred/{model}/{norm}"]
        peak = float(np.abs(adv - x).max())
        factor = 0.5 / peak if peak > 0 else 0.0  # brings the largest change to full contrast around mid-grey
        sheet.heading(f"{model} model", color[model])
        sheet.images(["perturbation", f"contrast × {factor:.3g}" if factor else "no change"], 0.5 + (adv - x) * factor)
        sheet.images(["adversarial", "= original", "+ perturbation"], adv, (said != y).tolist())
        sheet.captions(f"{model} says", names(said), (said == y).tolist())
    return sheet.svg()
