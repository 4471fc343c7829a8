"""Which form of a model is quickest to search with, by trying."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from danskin.attacks.asking import Precision
from danskin.attacks.guard import as_found, raw_module
from danskin.callables import said
from danskin.errors import DanskinWarning, InputError
from danskin.evaluation.quick import quicker
from danskin.minmax.precision import at_least_float32


@dataclass(frozen=True)
class Form:
    """How a search computes.

    Args:
        precision: of its passes.
        channels_last: memory format of weights and images.
        seconds: of a forward pass and of one with the gradient to the input, over those of the model as it is; for
            every form that was timed, by name.
    """

    precision: Precision = "model"
    channels_last: bool = False
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __str__(self) -> str:
        """In words."""
        words = [self.precision] * (self.precision != "model") + ["channels_last"] * self.channels_last
        return ", ".join(words) or "the model as it is"

    def of(self, model: nn.Module, *, compile: bool = False) -> Callable[[Tensor], Tensor] | None:
        """The model in this form, for ``evaluate(..., precision=form.precision, quick=form.of(model))``."""
        if not (self.channels_last or compile or self.precision != "model"):
            return None
        return quicker(model, channels_last=self.channels_last, compile=compile, precision=self.precision)


#: What a form may take before a search is given to it: questions to the plain model cost calls of their own, and a
#: clock is off by some (bench/results/low_precision.md, decision 38).
_WORTH = 0.75
_FORMS = {str(form): form for form in (Form("bfloat16"), Form(channels_last=True), Form("bfloat16", True))}


def fastest(model: nn.Module, x: Tensor, *, rounds: int = 3) -> Form:
    """The form of the model that is quickest on these inputs and this machine, or the model as it is.

    Forms that fail are left out with a warning, and a model without a gradient is searched with as it is.

    A form is taken where both a forward pass and one with the gradient to the input take at most 0.75 of the
    model's own: the rest may go to confirming what it finds. It is timed, so it may be another one next time.

    Args:
        model: left as it is.
        x: (batch, ...) inputs, as many as survive at a time: 16 to 64.
        rounds: of interleaved passes; their median counts.

    Raises:
        InputError: something that is not a module, or no inputs.
    """
    if not len(x):
        raise InputError("fastest: expected inputs to time the model on, got an empty batch; pass 16 to 64")
    raw = raw_module(model)
    with as_found(raw, "eval", x.device, warn=False):
        if (reason := _no_gradient(raw, x)) is not None:
            warnings.warn(f"fastest: expected a gradient to time, got {reason}; the model as it is", DanskinWarning, 2)
            return Form()
        ready = {name: quick for name, form in _FORMS.items() if (quick := _working(name, form, raw, x)) is not None}
        ratios: dict[str, list[list[float]]] = {name: [] for name in ready}
        _seconds(raw, x)
        for _ in range(rounds):
            base = _seconds(raw, x)
            for name, quick in ready.items():
                ratios[name].append([a / b for a, b in zip(_seconds(quick, x), base, strict=True)])
    seconds = {name: [statistics.median(r) for r in zip(*each, strict=True)] for name, each in ratios.items()}
    best = min(seconds, key=lambda name: max(seconds[name]), default=None)
    chosen = Form() if best is None or max(seconds[best]) > _WORTH else _FORMS[best]
    return replace(chosen, seconds=seconds)


def _working(name: str, form: Form, model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor] | None:
    """The model in this form, tried once; None, with a warning, where it cannot compute in it."""
    quick = form.of(model)
    try:
        _seconds(quick, x)
    except Exception as error:  # whatever a model raises that is not used to this form
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        warnings.warn(f"fastest: expected the model to work in {name}, got {reason}; left out", DanskinWarning, 3)
        return None
    return quick


def _no_gradient(model: Any, x: Tensor) -> str | None:
    """Why the model cannot be differentiated; None where it can. A model that does not even compute raises."""
    with torch.no_grad():
        model(x[:1])
    leaf = x[:1].detach().clone().requires_grad_()
    try:
        torch.autograd.grad(at_least_float32(model(leaf)).sum(), leaf)
    except Exception as error:
        return said(error)
    return None


def _seconds(model: Any, x: Tensor) -> tuple[float, float]:
    """Of a forward pass, and of one with the gradient to the input."""
    begun = _now(x)
    with torch.no_grad():
        model(x)
    between = _now(x)
    leaf = x.detach().requires_grad_()
    torch.autograd.grad(at_least_float32(model(leaf)).sum(), leaf)
    return between - begun, _now(x) - between


def _now(x: Tensor) -> float:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return time.perf_counter()
