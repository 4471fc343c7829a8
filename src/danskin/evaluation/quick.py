"""Quicker forms of a model to search with; the model itself has the last word."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from danskin.attacks.asking import Precision
from danskin.attacks.checks import check_precision
from danskin.attacks.guard import raw_module
from danskin.callables import copied, said
from danskin.errors import DanskinWarning, InputError

#: Layers whose weights autocast would round anew in every pass.
_ROUNDED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Form(nn.Module):
    """A model that gets its images in channels_last, or computes under autocast, or both."""

    def __init__(self, model: nn.Module, channels_last: bool, low: bool) -> None:
        super().__init__()
        self.model, self.channels_last, self.low = model, channels_last, low

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        if self.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        if not self.low:
            return self.model(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.model(x)


def quicker(
    model: nn.Module, *, channels_last: bool = False, compile: bool = False, precision: Precision = "model"
) -> Callable[[Tensor], Tensor]:
    """A copy of the model that computes the same faster, for `evaluate(..., quick=...)`.

    Args:
        model: left as it is. One that cannot be copied is used itself, with a warning: then only images change their
            memory format, and autocast rounds weights in every pass.
        channels_last: weights and images in this memory format: pays for convolutions.
        compile: through `torch.compile`, for batches of any size; falls back with a warning where it fails.
        precision: "bfloat16" computes what autocast does, with the weights of linear and convolution layers rounded
            once instead of in every pass: pays on hardware with bfloat16 arithmetic, most where few examples are left.

    Raises:
        InputError: something that is not a module, or nothing to do.
    """
    raw, low = raw_module(model), precision != "model"
    check_precision(precision)
    if not isinstance(raw, nn.Module):
        raise InputError(f"quicker: expected an nn.Module, got {type(raw).__name__}; pass quick=None")
    if not (channels_last or compile or low):
        raise InputError("quicker: expected channels_last, compile or precision, got none of them; pass quick=None")
    fast = _prepared(raw, channels_last, low)
    if channels_last or low:
        fast = _Form(fast, channels_last, low)
    return _Compiled(fast) if compile else fast


def _prepared(raw: nn.Module, channels_last: bool, low: bool) -> nn.Module:
    """A copy in this memory format, with weights rounded once; the model itself where it cannot be copied."""
    try:
        fast: nn.Module = copied(raw).eval().requires_grad_(False)
    except Exception as error:  # whatever somebody else's parts raise
        warnings.warn(
            f"quicker: expected a model that can be copied, got {said(error)}; searching with the model itself, whose "
            "weights keep their precision and memory format",
            DanskinWarning,
            stacklevel=3,
        )
        return raw
    if low:
        for module in fast.modules():
            if type(module) in _ROUNDED:
                module.to(torch.bfloat16)
    return fast.to(memory_format=torch.channels_last) if channels_last else fast  # type: ignore[call-overload]


class _Compiled:
    """torch.compile that says so and goes on without when the compiler fails."""

    def __init__(self, model: nn.Module) -> None:
        self.plain, self.compiled = model, torch.compile(model, dynamic=True)
        self.works: bool | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.works is False:
            return self.plain(x)
        try:
            out: Tensor = self.compiled(x)
        except Exception as error:
            if self.works:
                raise
            self.works = False
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            warnings.warn(
                f"compile: expected torch.compile to work, got {reason}; going on without it", DanskinWarning, 2
            )
            return self.plain(x)
        self.works = True
        return out
