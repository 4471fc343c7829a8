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
def buffers_noted(model: nn.Module | None) -> Iterator[Callable[[], None]]:
    """Note the buffers of modules (running statistics, counters) before they are called inside; yields what undoes it.

    Args:
        model: whose buffers; None for those of every module that is called inside and is in training mode.
    """
    noted: list[tuple[nn.Module, str, Tensor, Tensor]] = []
    seen: set[int] = set()

    def note(module: nn.Module, inputs: Any = None) -> None:
        if id(module) not in seen:
            seen.add(id(module))
            noted.extend((module, n, b, b.detach().clone()) for n, b in module._buffers.items() if b is not None)

    @torch.no_grad()
    def put_back() -> None:
        for module, name, buffer, before in noted:
            module._buffers[name] = buffer  # a pass may have put another tensor there
            buffer.copy_(before)

    if model is not None:
        for module in model.modules():
            note(module)
        yield put_back
        return

    def note_in_training(module: nn.Module, inputs: Any) -> None:
        if module._buffers and module.training:
            note(module)

    handle = register_module_forward_pre_hook(note_in_training)
    try:
        yield put_back
    finally:
        handle.remove()


@contextmanager
def buffers_kept(model: nn.Module | None) -> Iterator[None]:
    """Whatever modules do to their buffers inside is undone at the end."""
    with buffers_noted(model) as put_back:
        try:
            yield
        finally:
            put_back()


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
