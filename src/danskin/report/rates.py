"""Distances against sample sizes on logarithmic axes, with the slopes of theory. Lecture: row E3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from danskin.report.drawing import INK, MODEL_COLORS, Drawn, legend_label, panels

Line = tuple[Sequence[int], Sequence[float], Sequence[float], float]


def rate_figure(spaces: Mapping[str, Mapping[str, Line]]) -> list[Drawn]:
    """A panel for each space, a line for each dimension; dashed: the curve of theory through the last point.

    Args:
        spaces: title of the panel -> label -> (sizes, measured means, theory without its constant, fitted slope).
    """
    if not spaces:
        return []

    def plot(grid: Any) -> int:
        for axes, (title, lines) in zip(grid.ravel(), spaces.items(), strict=False):
            for k, (label, (sizes, values, curve, slope)) in enumerate(lines.items()):
                color = MODEL_COLORS[k % len(MODEL_COLORS)]
                axes.plot(sizes, values, color=color, marker="o", markersize=3.5, label=legend_label(label))
                scaled = [c * values[-1] / curve[-1] for c in curve]
                axes.plot(sizes, scaled, color=color, linestyle=(0, (4, 2)), linewidth=1.1)
                axes.annotate(f"{slope:.3f}", (sizes[-1], values[-1]), xytext=(6, -3), textcoords="offset points",
                              fontsize=8, color=color)  # fmt: skip
            axes.set(xscale="log", yscale="log", xlabel="points of each sample", ylabel="W1 of two samples")
            axes.set_title(title, fontsize=10, color=INK, loc="left")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_xlim(sizes[0] / 1.2, sizes[-1] * 1.8)
            axes.set_xticks(sizes, [str(n) for n in sizes], minor=False)
            axes.minorticks_off()
        return 3

    words = "; ".join(
        f"{t}: " + ", ".join(f"{k} {line[3]:.3f}" for k, line in lines.items()) for t, lines in spaces.items()
    )
    caption = "W1 between two samples against their size; the number is the fitted slope; dashed: the rate of theory."
    svg = panels(plot, 1, len(spaces), size=(0.4 + 4.2 * len(spaces), 4.0))
    return [Drawn("rates", svg, "W1 against sample size", f"Fitted slopes: {words}.", caption)]
