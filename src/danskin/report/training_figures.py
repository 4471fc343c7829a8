"""Figures of training runs: learning curves, the watch for overfitting, accuracy against radius, live numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from danskin.report.drawing import (
    MARKERS,
    MODEL_COLORS,
    MUTED,
    NORMS,
    WRONG,
    Event,
    draw_axes,
    draw_line,
    legend_label,
    of_kind,
    share_axis,
    whole_axis,
)


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
            points = [(e.get(x), e.get(y)) for e in of_kind(events, kind, model)]
            drawn += draw_line(axes, points, color=c, label=legend_label(model), marker=MARKERS[i % 5])
        axes.set(xlabel=x, ylabel="training loss")
        axes.set_ylim(bottom=0 if axes.get_ylim()[0] >= 0 else None)
        whole_axis(axes)
        return min(drawn, 3)

    return draw_axes(plot)


def validation_accuracy(events: Sequence[Event], color: Mapping[str, str]) -> str | None:
    """Clean and robust validation accuracy per epoch; None before the first epoch ended."""
    if not any(e["event"] == "epoch" for e in events):
        return None

    def plot(axes: Any) -> int:
        for i, (model, c) in enumerate(color.items()):
            for key, dash in (("clean", (0, (4, 2))), ("robust", "-")):
                points = [(e.get("epoch"), e.get(key)) for e in of_kind(events, "epoch", model)]
                label = f"{legend_label(model)}, {key}"
                draw_line(axes, points, color=c, linestyle=dash, label=label, marker=MARKERS[i % 5])
        axes.set(xlabel="epoch", ylabel="validation accuracy")
        share_axis(axes)
        whole_axis(axes)
        return 2

    return draw_axes(plot)


def overfitting_watch(events: Sequence[Event], model: str, color: str, moment: int | None) -> str | None:
    """Accuracy under FGSM and under PGD during training, with the catastrophic step; None if never watched."""
    looks = of_kind(events, "watch", model)
    if not looks:
        return None

    def plot(axes: Any) -> int:
        for key, dash, marker in (("fgsm", (0, (4, 2)), "o"), ("pgd", "-", "s")):
            points = [(e.get("step"), e.get(key)) for e in looks]
            draw_line(axes, points, color=color, linestyle=dash, label=f"under {key.upper()}", marker=marker)
        if moment is not None:
            axes.axvline(
                moment, color=WRONG, linewidth=1.4, linestyle=(0, (1, 1.5)), label=f"overfitted, step {moment}"
            )
        axes.set(xlabel="step", ylabel="accuracy")
        share_axis(axes)
        whole_axis(axes)
        return 3

    return draw_axes(plot)


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
            axes.plot(radius, values, color=color[model], marker=MARKERS[i % 5], label=legend_label(model))
        if mark:
            axes.axvline(mark[0], color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)), label=mark[1], zorder=1)
        axes.set(xlabel=f"radius ε of the attack ({NORMS.get(norm, norm)})", ylabel="robust accuracy")
        share_axis(axes)
        return 3

    return draw_axes(plot)


def worst_class(events: Sequence[Event], color: Mapping[str, str]) -> str | None:
    """Robust validation accuracy per epoch: the average (dashed) and the worst class; None where nobody counted."""
    if not any("worst_class" in e for e in events):
        return None

    def plot(axes: Any) -> int:
        for i, (model, c) in enumerate(color.items()):
            epochs = of_kind(events, "epoch", model)
            for key, dash, what in (("robust", (0, (4, 2)), "average"), ("worst_class", "-", "worst class")):
                points = [(e.get("epoch"), e.get(key)) for e in epochs]
                style = {"color": c, "linestyle": dash, "marker": MARKERS[i % 5]}
                draw_line(axes, points, label=f"{legend_label(model)}, {what}", **style)
        axes.set(xlabel="epoch", ylabel="robust validation accuracy")
        share_axis(axes)
        whole_axis(axes)
        return 2

    return draw_axes(plot)


def gauge_names(events: Sequence[Event]) -> list[str]:
    """What objectives reported about themselves, each once."""
    return list(dict.fromkeys(name for e in events for name in e.get("gauges") or {}))


def gauge(events: Sequence[Event], color: Mapping[str, str], names: Sequence[str]) -> str | None:
    """Numbers that objectives steer by themselves, against the step; None without any."""
    if not names:
        return None
    one = len(names) == 1
    kind = names[0] if one else names[0].rpartition(" ")[0]

    def plot(axes: Any) -> int:
        drawn = 0
        for model, c in color.items():
            for i, name in enumerate(names):
                points = [(e.get("step"), (e.get("gauges") or {}).get(name)) for e in of_kind(events, "step", model)]
                style = {"color": c if one else MODEL_COLORS[i % 8], "linestyle": "-" if i < 8 else (0, (4, 2))}
                drawn += draw_line(
                    axes, points, label=legend_label(model) if one else name.removeprefix(kind).strip(), **style
                )
        axes.set(xlabel="step", ylabel=kind)
        whole_axis(axes)
        return min(drawn, 3 if one else 5) if drawn <= 30 else 0

    return draw_axes(plot)
