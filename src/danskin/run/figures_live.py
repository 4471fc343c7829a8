"""Figures of training while it goes on: the worst class beside the average, and what an objective steers by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from danskin.run.figures import _MARKERS, MODEL_COLORS, Event, _draw, _label, _line, _of, _shares, _whole


def worst_class(events: Sequence[Event], color: Mapping[str, str]) -> str | None:
    """Robust validation accuracy per epoch: the average (dashed) and the worst class; None where nobody counted."""
    if not any("worst_class" in e for e in events):
        return None

    def plot(axes: Any) -> int:
        for i, (model, c) in enumerate(color.items()):
            epochs = _of(events, "epoch", model)
            for key, dash, what in (("robust", (0, (4, 2)), "average"), ("worst_class", "-", "worst class")):
                points = [(e.get("epoch"), e.get(key)) for e in epochs]
                style = {"color": c, "linestyle": dash, "marker": _MARKERS[i % 5]}
                _line(axes, points, label=f"{_label(model)}, {what}", **style)
        axes.set(xlabel="epoch", ylabel="robust validation accuracy")
        _shares(axes)
        _whole(axes)
        return 2

    return _draw(plot)


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
                points = [(e.get("step"), (e.get("gauges") or {}).get(name)) for e in _of(events, "step", model)]
                style = {"color": c if one else MODEL_COLORS[i % 8], "linestyle": "-" if i < 8 else (0, (4, 2))}
                drawn += _line(axes, points, label=_label(model) if one else name.removeprefix(kind).strip(), **style)
        axes.set(xlabel="step", ylabel=kind)
        _whole(axes)
        return min(drawn, 3 if one else 5) if drawn <= 30 else 0

    return _draw(plot)
