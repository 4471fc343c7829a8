"""What a person looks at after `danskin sharpness`: a table, and the loss along random directions. Lecture: row D5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from danskin.report.drawing import INK, MODEL_COLORS, Drawn, draw_axes, legend_label, panels

_RISES = ("m_sharpness", "m_sharpness_ascent", "adaptive_m_sharpness")


def table(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and a row for each model as text; in brackets a number relative to the first model's."""
    models, asked = result["models"], result["settings"]
    header = [
        "model", "loss", "accuracy", "|w|", "top eigenvalue", "residual", "trace", "±",
        f"{asked['m']}-sharpness, 1 step ≥", f"{asked['steps']} steps ≥", "adaptive ≥",
    ]  # fmt: skip
    first = next(iter(models.values()))

    def relative(found: Mapping[str, Any], *path: Any) -> str:
        value, base = found, first
        for key in path:
            value, base = value[key], base[key]
        text = f"{value:.4g}"
        if found is first or not base > 0:
            return text
        return f"{text} (× {value / base:.2f})"

    rows = []
    for name, found in models.items():
        top = found["eigenvalues"]
        rows.append([
            name, f"{found['loss']:.4g}", f"{100 * found['correct']['value']:.2f} %", f"{found['weight_norm']:.3g}",
            relative(found, "eigenvalues", "values", 0),
            f"{top['residuals'][0]:.1e}" + ("" if top["converged"] else " (not converged)"),
            relative(found, "trace", "value"), f"{found['trace']['standard_error']:.2g}",
            *(relative(found, key, "at_least") for key in _RISES),
        ])  # fmt: skip
    return header, rows


def note(result: Mapping[str, Any]) -> str:
    """How to read the table."""
    found, asked = next(iter(result["models"].values())), result["settings"]
    loss, data = found["loss_name"].replace("_", "-"), found["data"][0]
    radii = f"radius {asked['radius']} (adaptive: {asked['adaptive_radius']})"
    return (
        f"{loss} on {found['examples']} {asked['split']} examples of {data}, eval mode; eigenvalues of the Hessian in "
        f"all weights, each within its residual of an exact one; trace ± standard error of {found['trace']['draws']} "
        f"draws; sharpness: mean rise over groups of {asked['m']} at the worst shift found, {radii}, a lower bound"
    )


def markdown(result: Mapping[str, Any]) -> str:
    """The table in Markdown, with its notes."""
    header, rows = table(result)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([*text, "", note(result) + ".", *(f"Note: {said}." for said in result["notes"])]) + "\n"


def figures(result: Mapping[str, Any]) -> list[Drawn]:
    """The loss along lines, all models in one pair of axes; and a plane for each, at the same levels."""
    return [_lines(result), *(_planes(result) if all("plane" in m for m in result["models"].values()) else [])]


def _lines(result: Mapping[str, Any]) -> Drawn:
    from matplotlib.ticker import LogLocator, MaxNLocator

    models = result["models"]

    def plot(axes: Any) -> int:
        for i, (name, found) in enumerate(models.items()):
            color, at, loss = MODEL_COLORS[i % len(MODEL_COLORS)], np.array(found["line"]["at"]), _array(found["line"])
            axes.plot(at, loss.T, color=color, linewidth=0.7, alpha=0.35)
            axes.plot(at, loss.mean(0), color=color, label=legend_label(name))
        axes.set(xlabel="shift along a random direction, in lengths of the weights", ylabel="mean loss", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.xaxis.set_major_locator(MaxNLocator(4))  # signs make numbers wide
        return min(len(models), 3)

    ends = "; ".join(f"{name}: {_array(m['line']).mean(0)[[0, -1]].mean():.3g}" for name, m in models.items())
    return Drawn(
        "loss-line", draw_axes(plot), "Loss along random directions", f"Mean loss at both ends: {ends}.",
        "Thin: one random direction each, every filter as long as that of the weights; thick: their mean. Biases and "
        "normalisation stay.",
    )  # fmt: skip


def _planes(result: Mapping[str, Any]) -> list[Drawn]:
    models = result["models"]
    surfaces = {name: _array(m["plane"]) for name, m in models.items()}
    finite = np.concatenate([s[np.isfinite(s) & (s > 0)] for s in surfaces.values()])
    if not len(finite):
        return []
    low, high = np.log10(finite.min()), np.log10(finite.max())
    levels = 10 ** np.linspace(low, max(high, low + 1e-3), 13)
    columns = min(len(models), 3)
    rows = -(-len(models) // columns)

    def plot(grid: Any) -> int:
        flat = grid.ravel()
        for axes in flat[len(models) :]:
            axes.set_visible(False)
        for axes, (name, surface) in zip(flat, surfaces.items(), strict=False):
            at = np.array(models[name]["plane"]["at"])
            lines = axes.contour(at, at, np.ma.masked_invalid(surface), levels=levels, colors=MODEL_COLORS[0])
            lines.set_linewidth(np.linspace(0.5, 1.8, len(levels)))
            axes.clabel(lines, levels[::2], fmt="%.2g", fontsize=7, colors=INK)
            axes.plot(0, 0, marker="o", color=INK, markersize=4)
            axes.set(xlabel="second direction", ylabel="first direction", aspect="equal")
            axes.grid(visible=False)
            axes.set_title(legend_label(name), fontsize=10, color=INK, loc="left")
        return 0

    words = "; ".join(f"{name}: from {np.nanmin(s):.3g} to {np.nanmax(s):.3g}" for name, s in surfaces.items())
    return [
        Drawn(
            "loss-plane", panels(plot, rows, columns, size=(0.4 + 3.4 * columns, 0.3 + 3.5 * rows)),
            "Loss on a plane of random directions", f"Mean loss: {words}.",
            "Contours of the mean loss at the same levels for all models; the dot is where training ended.",
        )
    ]  # fmt: skip


def _array(surface: Mapping[str, Any]) -> Any:
    return np.array([[np.nan if v is None else v for v in row] for row in surface["loss"]])
