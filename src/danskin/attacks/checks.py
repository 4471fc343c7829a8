"""Checks of what users hand to an attack: each refuses with what was expected, what came and what to do."""

from __future__ import annotations

import math
import warnings
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from danskin.errors import DanskinWarning, InputError, ModelError
from danskin.inputs import class_numbers, not_floating
from danskin.minmax import Set
from danskin.minmax.data_box import DataBox, box_for, box_width
from danskin.minmax.intersection import order_of
from danskin.minmax.measured import largest_radius

_SLACK = 1e-6  # float images that left their box by rounding are not refused


def check_box(box: DataBox) -> None:
    """The data box is None or (low, high) with low < high."""
    if box is None:
        return
    pair = isinstance(box, tuple | list) and len(box) == 2
    if (
        not pair
        or not all(isinstance(b, Real | Tensor) for b in box)
        or not bool((torch.as_tensor(box[0]) < torch.as_tensor(box[1])).all())
    ):
        raise InputError(f"box: expected (low, high) with low < high, or None for no box, got {box!r}; try (0, 1)")


def check_precision(precision: str) -> None:
    """The precision is one there is."""
    if precision not in ("model", "bfloat16"):
        raise InputError(f"precision: expected 'model' or 'bfloat16', got {precision!r}; pick one")


def check_draws(draws: int) -> None:
    """At least one pass is looked at."""
    if draws < 1:
        raise InputError(f"draws: expected at least 1, got {draws}; 1 is for models that are not random")


def check_inputs(x: Any, box: DataBox) -> None:
    """Inputs are finite floating-point tensors, batch first, inside the box."""
    if not isinstance(x, Tensor):
        raise InputError(f"x: expected a torch tensor, got {type(x).__name__}; use torch.as_tensor(x)")
    if not x.is_floating_point():
        raise InputError(not_floating(x))
    if x.ndim < 2:
        raise InputError(
            f"x: expected a batch, shape (batch, ...), got shape {tuple(x.shape)}; add a batch dimension with x[None]"
        )
    if not x.numel():
        return
    low, high = (float(v) for v in x.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        rows = (~x.reshape(len(x), -1).isfinite().all(1)).nonzero().flatten().tolist()
        raise InputError(
            f"x: expected finite values, got NaN or infinity in {len(rows)} of {len(x)} examples (first: {rows[0]}); "
            "clean the data"
        )
    beside = box_for(box, x)
    if beside is not None and not _inside(x, low, high, beside):
        pixels = 2 < high <= 255 and low >= 0
        hint = "divide by 255 if these are pixels, or " if pixels else ""
        hint += "pass box=(low, high) of your data, or box=None"
        raise InputError(
            f"x: expected values in the box {_named(beside)}, got {low:.4g} to {high:.4g}; {hint}; put "
            "normalisation into the model's first layer"
        )


def check_integer_labels(labels: Any, x: Tensor, what: str = "y") -> Tensor:
    """Labels as int64 on the device of x; one integer per example."""
    return class_numbers(labels, len(x), what).to(x.device)


def _inside(x: Tensor, low: float, high: float, box: tuple[Any, Any]) -> bool:
    """Whether x, with these extremes, is in the box."""
    if not any(isinstance(bound, Tensor) for bound in box):
        return bool(box[0] - _SLACK <= low and high <= box[1] + _SLACK)
    return bool(((x >= box[0] - _SLACK) & (x <= box[1] + _SLACK)).all())


def _named(box: tuple[Any, Any]) -> str:
    several = any(torch.as_tensor(bound).numel() > 1 for bound in box)
    return ("of its channel or coordinate, within " if several else "") + _range(box)


def _range(box: tuple[Any, Any]) -> str:
    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in box)
    return f"[{float(low.min()):g}, {float(high.max()):g}]"


def check_radius(ball: Set, x: Tensor, box: DataBox) -> None:
    """Refuse a radius no perturbation inside the box can use up: 8 where 8/255 was meant."""
    value = getattr(ball, "value", None)
    if isinstance(value, Tensor) and value.ndim == 1 and len(value) not in (1, len(x)):
        raise InputError(
            f"radius: expected one number, or one for each of {len(x)} examples, got {len(value)}; "
            f"use a tensor of shape ({len(x)},)"
        )
    wide = box_width(box, x)
    if wide is None or not x.numel() or order_of(ball) is None:
        return
    most, largest = float(ball.norm(wide).max()), largest_radius(ball)
    if largest > most * (1 + 1e-12):
        raise InputError(
            f"{type(ball).__name__}.radius: expected at most {most:g}, the size of the whole box "
            f"{_range(box_for(box, x) or (0, 1))}, got {largest:g}; radii are in the data's units: did you mean "
            f"'{largest:g}/255'?"
        )


def check_logits(logits: Any, n: int) -> Tensor:
    """A model's output: a floating-point tensor with one row per example."""
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"model: expected a tensor of logits, got {type(logits).__name__}; wrap the model so that it returns "
            "logits only"
        )
    if not logits.is_floating_point():
        raise ModelError(
            f"model: expected floating-point logits, got {logits.dtype}; return "
            + ("real scores (z.real or z.abs())" if logits.is_complex() else "scores, not predicted labels")
        )
    if logits.ndim == 0 or len(logits) != n:
        raise ModelError(
            f"model: expected {n} rows of logits for {n} examples, got shape {tuple(logits.shape)}; keep the batch "
            "dimension first"
        )
    return logits


def check_finite(value: Tensor) -> None:
    """The payoff at the points found is finite."""
    if value.numel() and bool(value.isnan().any()):
        count = int(value.isnan().sum())
        raise ModelError(
            f"model: expected finite logits, got NaN for {count} of {len(value)} examples under attack; check the "
            "weights, or the precision the model runs in"
        )


def warn_if_probabilities(logits: Tensor) -> None:
    """Warn when every row looks like a probability vector: a softmax hides gradients."""
    if logits.ndim != 2 or logits.shape[1] < 2 or not len(logits):
        return
    rows = logits.detach().float()
    if bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < 1e-4).all()):
        warnings.warn(
            "model: expected logits, got rows that are >= 0 and sum to 1 (probabilities?); a softmax at the end "
            "saturates and makes attacks weak: remove it",
            DanskinWarning,
            stacklevel=2,
        )
