"""Names of models, options and activations: what to say about an unknown one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from danskin.errors import InputError, suggest

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """The error for an unknown name, with the nearest known one."""
    return InputError(f"{what}: expected a known name, got {name!r}; {suggest(str(name), known)}")


def activation_named(name: str) -> nn.Module:
    """A new activation layer by its name."""
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()
