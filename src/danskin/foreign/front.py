"""Normalisation in front of a model that expects it and does not bring it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from danskin.errors import ConfigError
from danskin.foreign.opened import Opened
from danskin.models import Normalize


def normalized(
    opened: Opened, mean: Sequence[float] | None, std: Sequence[float] | None, device: torch.device
) -> Opened:
    """The model with (x - mean) / std, per channel, as its first layer, so that it takes inputs in [0, 1].

    Raises:
        ConfigError: one of the two is lacking, or the model begins with a `Normalize` of its own.
    """
    if mean is None and std is None:
        return opened
    if mean is None or std is None:
        raise ConfigError("--mean, --std: expected both or none, got one of them; give one number per channel for each")
    first = _first(opened.model)
    if isinstance(first, Normalize):
        raise ConfigError(
            f"{opened.name}: expected no --mean and --std, for it begins with {first} itself; leave them out"
        )
    layer = Normalize(mean, std).to(device)
    layer.training = False
    model: Any = _after(layer, opened.model)
    if isinstance(opened.model, nn.Module):
        model = nn.Sequential(layer, opened.model)
        model.training = False
    digest = None
    if opened.hash is not None:
        digest = hashlib.sha256(f"{opened.hash} {list(mean)} {list(std)}".encode()).hexdigest()
    note = "; ".join(t for t in (f"first layer {layer}", opened.note) if t)
    return replace(opened, model=model, hash=digest, note=note)


def _first(model: Any) -> Any:
    """The layer that sees the input, where layers are made in the order in which they are used."""
    if not isinstance(model, nn.Module):
        return None
    return next((m for m in model.modules() if not any(True for _ in m.children())), None)


def _after(layer: nn.Module, model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: model(layer(x))
