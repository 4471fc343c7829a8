"""Figures that stand beside a robustness verdict, as SVG text in the style of `danskin.report.drawing`.

Which attack broke what, robust accuracy against radius with certificates, class by class; perturbations that are
not unique (LECTURE row C5), adversarial examples against dimension (row B8), saliency maps (row C9). The same data
give the same bytes. Shares come as in `result.json`: {"hits", "n", "value", "interval"}. Needs numpy and matplotlib
(imported late), never torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from danskin.report.drawing import (
    INK,
    MARKERS,
    MODEL_COLORS,
    MUTED,
    NORMS,
    WRONG,
    Array,
    legend_label,
    panels,
    share_axis,
)
from danskin.report.pictures import Sheet

ShareRow = Mapping[str, Any]


def _percent_axis(axes: Any) -> None:
    """The x axis shows shares from 0 to 100 %."""
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def _known(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted((p for p in points if p["accuracy"]["n"]), key=lambda p: p["radius"])


def verdict_curve(
    robust: Mapping[str, Sequence[Mapping[str, Any]]],
    norm: str,
    color: Mapping[str, str],
    certified: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    mark: tuple[float, str] | None = None,
) -> str | None:
    """Robust accuracy against the radius: what attacks leave (solid), what certificates prove (dashed).

    The truth of each model lies between its two lines. None without a curve.

    Args:
        robust: per model, points with "radius" and "accuracy" (a share): right under all attacks.
        norm: "linf", "l2" or "l1".
        color: of each model.
        certified: likewise, the share that is proven right.
        mark: a radius to mark, and what it is.
    """
    if not any(_known(curve) for curve in robust.values()):
        return None

    def line(axes: Any, points: list[Mapping[str, Any]], label: str, **style: Any) -> None:
        radius = [p["radius"] for p in points]
        low, high = zip(*(p["accuracy"]["interval"] for p in points), strict=True)
        axes.fill_between(radius, low, high, color=style["color"], alpha=0.14, linewidth=0)
        axes.plot(radius, [p["accuracy"]["value"] for p in points], label=label, **style)

    def plot(panels: Sequence[Any]) -> int:
        axes, proofs = panels[0], certified or {}
        for i, (model, curve) in enumerate(robust.items()):
            style = {"color": color[model], "marker": MARKERS[i % 5]}
            suffix = ", attacked" if any(proofs.values()) else ""
            if points := _known(curve):
                line(axes, points, legend_label(model) + suffix, **style)
            if points := _known(proofs.get(model, ())):
                line(axes, points, f"{legend_label(model)}, certified", linestyle=(0, (4, 2)), **style)
        if mark:
            axes.axvline(mark[0], color=MUTED, linewidth=1.2, linestyle=(0, (1, 1.5)), label=mark[1], zorder=1)
        axes.set(xlabel=f"radius ε ({NORMS.get(norm, norm)})", ylabel="robust accuracy")
        axes.locator_params(axis="x", nbins=6)
        share_axis(axes)
        return 2

    return panels(lambda axes: plot(axes[0]))


def broken_by(
    stages: Mapping[str, Sequence[tuple[str, ShareRow]]], color: Mapping[str, str], most: int = 12
) -> str | None:
    """Accuracy left after each attack in turn, as bars; the pale end of a bar is what that attack took away.

    Args:
        stages: per model, ("clean", share) first, then (attack, share right after it and all before it).
        color: of each model.
        most: bars per model; of more attacks the first and the last are shown.
    """
    rows = {m: [(n, s) for n, s in r if s["n"]] for m, r in stages.items()}
    rows = {m: r if len(r) <= most else [*r[: most - 1], r[-1]] for m, r in rows.items() if r}
    if not rows:
        return None
    longest = max(len(r) for r in rows.values())

    def plot(panels: Sequence[Any]) -> int:
        for axes, (model, found) in zip(panels, rows.items(), strict=True):
            before = found[0][1]["value"]
            for k, (_, share) in enumerate(found):
                value = share["value"]
                axes.barh(k, value, color=color[model], height=0.62)
                axes.barh(k, max(before - value, 0), left=value, color=color[model], alpha=0.28, height=0.62)
                gone = f"  (−{100 * (before - value):.1f})" if k and before > value else ""
                axes.text(1.03, k, f"{100 * value:.1f} %{gone}", va="center", fontsize=9)
                before = value
            axes.set_yticks(range(len(found)), [legend_label(name) for name, _ in found])
            axes.set_ylim(longest - 0.4, -0.6)
            axes.set_title(f"{legend_label(model)} model", fontsize=10, color=color[model], loc="left")
            axes.set_xlabel("accuracy left")
            axes.grid(axis="y", visible=False)
            _percent_axis(axes)
        return 0

    return panels(lambda axes: plot(axes[0]), columns=len(rows), size=(max(5.2, 4.6 * len(rows)), 1.1 + 0.34 * longest))


def per_class(
    models: Mapping[str, Mapping[str, Sequence[ShareRow]]], classes: Sequence[str], color: Mapping[str, str]
) -> str | None:
    """Clean (outline) and robust (filled) accuracy of each class with 95 % intervals; the worst one is marked.

    Args:
        models: per model, "clean" and "robust": a share per class.
        classes: names of the labels; a label without a name is shown as its number.
        color: of each model.
    """
    shown = {m: r for m, r in models.items() if any(s["n"] for s in r["robust"])}
    if not shown:
        return None
    count = max(len(r["robust"]) for r in shown.values())
    names = [str(classes[k]) if k < len(classes) else str(k) for k in range(count)]
    turned = max(map(len, names)) * count > 34

    def plot(panels: Sequence[Any]) -> int:
        for axes, (model, rows) in zip(panels, shown.items(), strict=True):
            known = [k for k, s in enumerate(rows["robust"]) if s["n"]]
            worst = min(known, key=lambda k: rows["robust"][k]["value"])
            for k in known:
                clean, robust = rows["clean"][k], rows["robust"][k]
                paint = WRONG if k == worst else color[model]
                axes.bar(k, clean["value"], width=0.7, fill=False, edgecolor=MUTED, linewidth=1)
                axes.bar(k, robust["value"], width=0.7, color=paint)
                low, high = robust["interval"]
                axes.plot([k, k], [low, high], color=INK, linewidth=1.2)
            value = rows["robust"][worst]["value"]
            head = f"{legend_label(model)}: worst {names[worst]}, {100 * value:.1f} %"
            axes.set_title(head, fontsize=10, color=color[model], loc="left")
            axes.set_xticks(range(count), [n if len(n) <= 10 else n[:9] + "…" for n in names])
            if turned:
                axes.tick_params(axis="x", rotation=60)
            axes.get_xticklabels()[worst].set_color(WRONG)
            axes.get_xticklabels()[worst].set_fontweight("bold")
            axes.grid(axis="x", visible=False)
            share_axis(axes)
        panels[0].set_ylabel("robust accuracy (outline: clean)")
        return 0

    return panels(
        lambda axes: plot(axes[0]),
        columns=len(shown),
        size=(max(4.7, 3.6 * len(shown)), 3.6 if turned else 3.1),
        sharey=True,
    )


def not_unique(
    models: Mapping[str, Mapping[str, Any]], diameter: float, color: Mapping[str, str], bins: int = 40
) -> str:
    """Left: l2 distances between optimised perturbations of one example; right: their losses (LECTURE row C5).

    Args:
        models: per model "distances" (any shape), "losses" (runs, examples) and "clean" (examples,).
        diameter: largest l2 distance of two points of the ball; marked.
        color: of each model.
        bins: of the histograms.
    """

    def plot(panels: Sequence[Any]) -> int:
        left, right = panels
        top = max(float(np.max(m["losses"])) for m in models.values())
        for model, found in models.items():
            style = {"color": color[model], "alpha": 0.45, "label": legend_label(model)}
            pairs = np.ravel(found["distances"])
            # the diameter is far out when d is large: bins end at the largest distance
            left.hist(pairs, np.linspace(0, max(float(pairs.max()), 1e-12), bins + 1), **_weights(pairs), **style)
            losses = np.ravel(found["losses"])
            right.hist(losses, np.linspace(0, top, bins + 1), **_weights(losses), **style)
            clean = float(np.median(found["clean"]))
            right.axvline(clean, color=color[model], linewidth=1.4, linestyle=(0, (1, 1.5)))
        left.axvline(diameter, color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)), label="diameter of the ball")
        left.set(xlabel="ℓ2 distance between two perturbations of one example", ylabel="share of the pairs")
        right.set(xlabel="loss at the perturbations (dotted: median clean loss)", ylabel="share of the runs")
        for axes in panels:
            axes.set_xlim(left=0)
        return 3

    return panels(lambda axes: plot(axes[0]), columns=2, size=(9.0, 3.2))


def _weights(values: Array) -> dict[str, Any]:
    return {"weights": np.full(values.shape, 1 / max(values.size, 1))}


def against_dimension(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    points: Mapping[str, Sequence[tuple[float, ShareRow]]],
    ylabel: str,
) -> str:
    """Bounds (lines) and measurements (points with intervals) against the dimension, on a logarithmic axis.

    Args:
        lines: per bound, (dimension, probability).
        points: per classifier, (dimension, share).
        ylabel: what the probability is of.
    """

    def plot(panels: Sequence[Any]) -> int:
        axes = panels[0]
        dashes: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)))
        for i, (name, line) in enumerate(lines.items()):
            axes.plot(*zip(*line, strict=True), color=(INK, MUTED, MUTED)[i % 3], linestyle=dashes[i % 3], label=name)
        for i, (name, found) in enumerate(points.items()):
            aside = 1.07 ** (i - (len(points) - 1) / 2)  # side by side where they would hide each other
            for d, share in found:
                axes.plot([d * aside] * 2, share["interval"], color=MODEL_COLORS[i % 5], linewidth=1.2)
            style = {"color": MODEL_COLORS[i % 5], "marker": MARKERS[i % 5], "linewidth": 0}
            axes.plot([d * aside for d, _ in found], [s["value"] for _, s in found], label=name, **style)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # the default writes powers of ten in TeX
        axes.set(xlabel="dimension", ylabel=ylabel)
        share_axis(axes)
        return 2

    return panels(lambda axes: plot(axes[0]), size=(5.6, 3.6))


def saliency_grid(
    x: Array,
    labels: Sequence[str],
    maps: Mapping[str, Array],
    numbers: Mapping[str, Sequence[float]],
    color: Mapping[str, str],
    what: str = "alignment",
) -> str:
    """Images above, below them each model's saliency maps with a number per image (LECTURE row C9).

    A map is shown around mid-grey, each scaled to the 99th percentile of its own absolute values: lighter pixels
    raise the score, darker ones lower it.

    Args:
        x: (k, C, H, W) images in [0, 1], C = 1 or 3.
        labels: (k,) names under them.
        maps: per model, (k, C, H, W) saliency.
        numbers: per model, (k,) numbers.
        color: of each model.
        what: the numbers are called.
    """
    sheet = Sheet(len(x))
    sheet.images(["image"], x)
    sheet.captions("true label", list(labels))
    for model, found in maps.items():
        sheet.heading(f"{model} model", color[model])
        flat = np.abs(found.reshape(len(found), -1))
        scale = np.quantile(flat, 0.99, axis=1).reshape(-1, *[1] * (found.ndim - 1))
        sheet.images(["saliency"], 0.5 + 0.5 * found / np.where(scale > 0, scale, 1))
        sheet.captions(what, [f"{v:.3g}" if math.isfinite(v) else "–" for v in numbers[model]])
    return sheet.svg()
