"""Leave the model as it was found: flags, buffers, parameters, gradients and random state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from danskin.errors import DanskinWarning, InputError

#: What BatchNorm does while the adversary moves. Public code means three different things:
#: "eval": running statistics, and dropout off (TRADES, MART); "batch_frozen": statistics of the batch, buffers
#: untouched (the modern recipes); "train_update": statistics of the batch, and every attack step updates the
#: buffers (Madry, fast AT, Rice). The last two leave dropout in the mode the model is in, and the outcome is
#: judged in that mode. "as_is": the mode the model is in, buffers untouched, with a warning when it is training.
BatchNormMode = Literal["as_is", "eval", "batch_frozen", "train_update"]


def raw_module(model: Callable[..., Tensor]) -> Any:
    """The module inside a DistributedDataParallel wrapper; anything else as it is.

    Attacks run on the raw module: through the wrapper they would deadlock or give wrong gradients.
    """
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def device_of(model: Any) -> torch.device:
    """The device of a module's parameters; the CPU for anything else."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))


@contextmanager
def as_found(model: Any, batchnorm: BatchNormMode, device: torch.device, *, warn: bool = True) -> Iterator[None]:
    """A context in which gradients to the input can be taken, and after which nothing has changed.

    Parameters do not require gradients inside; `.grad` is never touched. With "train_update" the buffers
    are meant to change and keep what they got.
    """
    if batchnorm not in get_args(BatchNormMode):
        raise InputError(
            f"batchnorm: expected one of {', '.join(get_args(BatchNormMode))}, got {batchnorm!r}; pick one"
        )
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_random_state(device))
        if isinstance(model, nn.Module):
            stack.enter_context(_frozen_parameters(model))
            stack.enter_context(mode_of(model, batchnorm, warn=warn))
        yield


@contextmanager
def mode_of(model: Any, batchnorm: BatchNormMode, *, warn: bool = False) -> Iterator[None]:
    """BatchNorm and dropout in a mode while gradients flow to the weights; flags and buffers are put back.

    With "train_update" the buffers keep what they got.
    """
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            if batchnorm != "train_update":
                stack.enter_context(_buffers_kept(model))
            stack.enter_context(_mode(model, batchnorm, warn))
        yield


@contextmanager
def _random_state(device: torch.device) -> Iterator[None]:
    """Dropout and randomised models draw from the global generators: give back what they held."""
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)


@contextmanager
def _frozen_parameters(model: nn.Module) -> Iterator[None]:
    held = [p for p in model.parameters() if p.requires_grad and p.is_leaf]
    try:
        for p in held:
            p.requires_grad_(False)
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put back buffers that a forward pass changed (running statistics, power iterations, counters)."""
    if not any(module.training for module in model.modules()):
        yield
        return
    held = [(b, b.clone()) for b in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in held:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


@contextmanager
def _mode(model: nn.Module, batchnorm: BatchNormMode, warn: bool) -> Iterator[None]:
    modules = list(model.modules())
    training = [m.training for m in modules]
    norms = [m for m in modules if isinstance(m, _NormBase) and m.track_running_stats]
    if batchnorm == "as_is" and warn:
        _warn_if_training(modules)
    try:
        for m in modules if batchnorm == "eval" else []:
            m.training = False
        for m in norms if batchnorm in ("batch_frozen", "train_update") else []:
            m.training = True
        for m in norms if batchnorm != "train_update" else []:
            m.track_running_stats = not m.training  # statistics of the batch, without touching the buffers
        yield
    finally:
        for m, flag in zip(modules, training, strict=True):
            m.training = flag
        for m in norms:
            m.track_running_stats = True


def _warn_if_training(modules: list[nn.Module]) -> None:
    layers = {type(m).__name__ for m in modules if m.training and isinstance(m, _NormBase | _DropoutNd)}
    if layers:
        warnings.warn(
            f"model: expected eval mode for an attack, got training mode with {', '.join(sorted(layers))}; "
            "results then depend on the batch and on chance. Call model.eval(), or say what you want with "
            "batchnorm='eval', 'batch_frozen' or 'train_update'. The model is left as it is.",
            DanskinWarning,
            stacklevel=2,
        )
