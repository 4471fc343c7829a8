"""Bounds of Lipschitz constants on a logarithmic axis. Lecture: row E6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from danskin.report.drawing import INK, MODEL_COLORS, Drawn, legend_label, panels


def bounds_figure(cases: Mapping[str, Mapping[str, Sequence[tuple[str, float]]]]) -> list[Drawn]:
    """A panel for each case, a line for each network: its bounds, lowest first, as multiples of the reference.

    Args:
        cases: title of the panel -> network -> (name of the bound, multiple).
    """
    if not cases:
        return []

    def plot(grid: Any) -> int:
        for axes, (title, networks) in zip(grid.ravel(), cases.items(), strict=False):
            sums: dict[str, list[float]] = {}
            for found in networks.values():
                for name, value in found:
                    sums.setdefault(name, []).append(value)
            order = sorted(sums, key=lambda name: sum(sums[name]) / len(sums[name]))
            for k, (label, found) in enumerate(networks.items()):
                values = dict(found)
                at = [i for i, name in enumerate(order) if name in values]
                color = MODEL_COLORS[k % len(MODEL_COLORS)]
                axes.plot(at, [values[order[i]] for i in at], color=color, marker="o", markersize=3.5,
                          label=legend_label(label))  # fmt: skip
            axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
            axes.set(yscale="log", ylabel="multiple of the reference")
            axes.set_title(title, fontsize=9, color=INK, loc="left")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_xticks(range(len(order)), order, rotation=30, ha="right", fontsize=8)
        return 5

    words = "; ".join(
        f"{n}: " + ", ".join(f"{name} {value:.3g}" for name, value in found)
        for c in cases.values()
        for n, found in c.items()
    )
    caption = "Bounds as multiples of the exact constant, or of LipSDP-neuron where that is out of reach (dashed: 1)."
    svg = panels(plot, 1, len(cases), size=(0.4 + 4.2 * len(cases), 4.6))
    return [Drawn("bounds", svg, "Bounds side by side", f"Multiples: {words}.", caption)]
