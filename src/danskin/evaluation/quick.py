"""Quicker forms of a model to search with; the model itself has the last word."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from danskin.attacks.guard import raw_module
from danskin.errors import DanskinWarning, InputError


class _Converting(nn.Module):
    """A model that gets its images in channels_last."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.model(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x)


def quicker(model: nn.Module, *, channels_last: bool = False, compile: bool = False) -> Callable[[Tensor], Tensor]:
    """A copy of the model that computes the same faster, for `evaluate(..., quick=...)`.

    Args:
        model: left as it is.
        channels_last: weights and images in this memory format: pays for convolutions.
        compile: through `torch.compile`, for batches of any size; falls back with a warning where it fails.

    Raises:
        InputError: something that is not a module, or nothing to do.
    """
    raw = raw_module(model)
    if not isinstance(raw, nn.Module):
        raise InputError(f"quicker: expected an nn.Module, got {type(raw).__name__}; pass quick=None")
    if not (channels_last or compile):
        raise InputError("quicker: expected channels_last or compile, got neither; pass quick=None")
    fast: nn.Module = copy.deepcopy(raw).eval().requires_grad_(False)
    if channels_last:
        fast = _Converting(fast.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    return _Compiled(fast) if compile else fast


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
