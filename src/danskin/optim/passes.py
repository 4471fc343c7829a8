"""One forward and backward pass of somebody's closure: checked, and with what it may change besides gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from danskin.errors import InputError


def asked(name: str, closure: Callable[[], Any]) -> Tensor:
    """The loss that a closure returns, detached; its backward pass has been made.

    Raises:
        InputError: it returned something else.
    """
    with torch.enable_grad():
        loss = closure()
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(
            f"{name}.step: expected a closure that calls backward() and returns the loss, one number, got {got}; end "
            "it with: loss.backward(); return loss"
        )
    return loss.detach().reshape(())


@contextmanager
def buffers_kept(model: nn.Module | None) -> Iterator[None]:
    """Whatever modules do to their buffers inside (running statistics, counters) is undone at the end.

    Args:
        model: whose buffers; None for those of every module that is called inside and is in training mode.
    """
    if model is not None:
        kept = [(b, b.detach().clone()) for b in model.buffers()]
        try:
            yield
        finally:
            _put_back(kept)
        return
    kept, seen = [], set()

    def remember(module: nn.Module, inputs: Any) -> None:
        if module.training and id(module) not in seen:
            seen.add(id(module))
            kept.extend((b, b.detach().clone()) for b in module._buffers.values() if b is not None)

    handle = register_module_forward_pre_hook(remember)
    try:
        yield
    finally:
        handle.remove()
        _put_back(kept)


@torch.no_grad()
def _put_back(kept: Sequence[tuple[Tensor, Tensor]]) -> None:
    for buffer, before in kept:
        buffer.copy_(before)


class Dice:
    """The state of torch's random generators, so that a second pass throws the same dropout masks as the first."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        devices = sorted({p.device for p in parameters if p.device.type == "cuda"}, key=str)
        self._cpu = torch.get_rng_state()
        self._cuda = [(device, torch.cuda.get_rng_state(device)) for device in devices]

    def again(self) -> None:
        """As they were."""
        torch.set_rng_state(self._cpu)
        for device, state in self._cuda:
            torch.cuda.set_rng_state(state, device)
