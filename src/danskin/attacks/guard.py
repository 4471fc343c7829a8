"""Leave the model as it was found: flags, buffers, parameters, gradients and random state."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from danskin.attacks.parametrizations import fresh_cache
from danskin.callables import Found, alone, answerable, constant_weights, reach, surely
from danskin.errors import DanskinWarning, InputError, ModelError

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
    """The device of the first parameter, buffer or tensor that the model reaches; the CPU if it reaches none."""
    behind = reach(model)
    held = itertools.chain.from_iterable((*m.parameters(), *m.buffers()) for m in behind.roots)
    return next((t.device for t in itertools.chain(held, behind.tensors)), torch.device("cpu"))


def home_of(model: Any) -> torch.device:
    """The device to bring inputs to: that of the model.

    Raises:
        ModelError: it is the meta device, where tensors hold no numbers.
    """
    device = device_of(model)
    if device.type == "meta":
        raise ModelError(
            "model: expected weights that hold numbers, got tensors on the meta device; load them first "
            "(net.to_empty(device='cpu') and net.load_state_dict(...))"
        )
    return device


@contextmanager
def as_found(model: Any, batchnorm: BatchNormMode, device: torch.device, *, warn: bool = True) -> Iterator[None]:
    """A context in which gradients to the input can be taken, and after which nothing has changed.

    Every module that the model reaches (`danskin.callables.reach`) is taken for a part of it. Parameters do not
    require gradients inside; `.grad` is never touched. With "train_update" the buffers are meant to change and keep
    what they got. Two threads on one model take turns; the random state is one for the whole process, so threads on
    different models share it.
    """
    _check(batchnorm)
    modules = reach(model).modules
    with (
        torch.inference_mode(False), torch.enable_grad(), alone(modules), fresh_cache(), constant_weights(),
        answerable(model),
    ):  # fmt: skip
        changing = batchnorm == "train_update"
        found, dice = Found(modules, buffers=not changing, attributes=not changing), _random_state(device)

        def restore() -> None:
            found.restore()
            dice()

        try:
            found.freeze()
            _set_mode(modules, batchnorm, warn)
            yield
        finally:
            surely(restore)


@contextmanager
def mode_of(model: Any, batchnorm: BatchNormMode, *, warn: bool = False) -> Iterator[None]:
    """BatchNorm and dropout in a mode while gradients flow to the weights; flags and buffers are put back.

    With "train_update" the buffers keep what they got. What a pass leaves in plain attributes stays, for those who
    add a loss of their own to it.
    """
    _check(batchnorm)
    modules = reach(model).modules
    with alone(modules), answerable(model):
        found = Found(modules, buffers=batchnorm != "train_update", attributes=False)
        try:
            _set_mode(modules, batchnorm, warn)
            yield
        finally:
            surely(found.restore)


def _check(batchnorm: str) -> None:
    if batchnorm not in get_args(BatchNormMode):
        raise InputError(
            f"batchnorm: expected one of {', '.join(get_args(BatchNormMode))}, got {batchnorm!r}; pick one"
        )


def _random_state(device: torch.device) -> Callable[[], None]:
    """Dropout and randomised models draw from the global generators: how to give back what they hold now."""
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore() -> None:
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)

    return restore


def _set_mode(modules: Sequence[nn.Module], batchnorm: BatchNormMode, warn: bool) -> None:
    """Flags for the mode; `Found` puts them back."""
    norms = [m for m in modules if isinstance(m, _NormBase) and m.track_running_stats]
    if batchnorm == "as_is" and warn:
        _warn_if_training(modules)
    for m in modules if batchnorm == "eval" else ():
        if getattr(m, "training", False):  # frozen TorchScript has no flag
            m.training = False
    for m in norms if batchnorm in ("batch_frozen", "train_update") else ():
        m.training = True
    for m in norms if batchnorm != "train_update" else ():
        m.track_running_stats = not m.training  # statistics of the batch, without touching the buffers


def _warn_if_training(modules: Sequence[nn.Module]) -> None:
    layers = {type(m).__name__ for m in modules if isinstance(m, _NormBase | _DropoutNd) and m.training}
    if layers:
        warnings.warn(
            f"model: expected eval mode for an attack, got training mode with {', '.join(sorted(layers))}; "
            "results then depend on the batch and on chance. Call model.eval(), or say what you want with "
            "batchnorm='eval', 'batch_frozen' or 'train_update'. The model is left as it is.",
            DanskinWarning,
            stacklevel=2,
        )
