"""Networks whose l2 Lipschitz constant is at most 1 by construction, for certified training. LECTURE row E6."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from danskin.lipschitz.layers import (
    Abs,
    AOLConv2d,
    AOLLinear,
    GroupSort,
    LinearSpline,
    MaxMin,
    OrthogonalConv2d,
    OrthogonalLinear,
    SpectralConv2d,
    SpectralLinear,
)
from danskin.models.names import unknown
from danskin.models.parts import Statistics, at_least, image_size, vector_size, with_normalize

LINEARS: dict[str, Callable[..., nn.Module]] = {
    "orthogonal": OrthogonalLinear,
    "cayley": lambda *sizes: OrthogonalLinear(*sizes, method="cayley"),
    "aol": AOLLinear,
    "spectral": lambda *sizes: SpectralLinear(*sizes, mode="exact"),
}
CONVOLUTIONS: dict[str, Callable[..., nn.Module]] = {
    "orthogonal": OrthogonalConv2d,
    "cayley": lambda *sizes: OrthogonalConv2d(*sizes, method="cayley"),
    "aol": AOLConv2d,
}
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "maxmin": lambda width: MaxMin(),
    "group_sort": lambda width: GroupSort(width),
    "abs": lambda width: Abs(),
    "spline": lambda width: LinearSpline(width, init="abs"),
    "relu": lambda width: nn.ReLU(),
}


def _named(what: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise unknown(what, name, table)
    return table[name]


def lipschitz_mlp(
    *,
    input_shape: Sequence[int],
    classes: int = 10,
    hidden: Sequence[int] = (512, 512),
    layer: str = "orthogonal",
    activation: str = "maxmin",
    normalize: Statistics = None,
) -> nn.Module:
    """Flatten, then 1-Lipschitz linear layers with an activation between: an `mlp` of constant at most 1.

    Args:
        input_shape: shape of one example.
        classes: number of logits.
        hidden: widths of the hidden layers; even for "maxmin".
        layer: "orthogonal" (Björck), "cayley" (orthogonal too, quicker), "aol" or "spectral" (exact).
        activation: "maxmin", "group_sort" (all channels), "abs", "spline" or "relu".
        normalize: see `with_normalize`; its standard deviation divides the constant, and certificates know it.
    """
    at_least(1, classes=classes)
    linear, active = _named("layer", layer, LINEARS), _named("activation", activation, ACTIVATIONS)
    layers: list[nn.Module] = [nn.Flatten()]
    width = vector_size(input_shape)
    for size in hidden:
        at_least(1, hidden=size)
        layers += [linear(width, size), active(size)]
        width = size
    return with_normalize(nn.Sequential(*layers, linear(width, classes)), normalize, input_shape)


def lipschitz_cnn(
    *,
    input_shape: Sequence[int],
    classes: int = 10,
    width: int = 16,
    layer: str = "orthogonal",
    activation: str = "maxmin",
    normalize: Statistics = None,
) -> nn.Module:
    """Two 1-Lipschitz 4x4 convolutions of stride 2, a layer of 256, the logits: a `small_cnn` of constant at most 1.

    Args:
        input_shape: (C, H, W), from 8x8 pixels up.
        classes: number of logits.
        width: channels of the first convolution, then twice as many; even for "maxmin".
        layer: "orthogonal" (Björck), "cayley" (orthogonal too, quicker), "aol" or "spectral" (by Gram iteration).
        activation: "maxmin", "group_sort" (all channels), "abs", "spline" or "relu".
        normalize: see `with_normalize`; its standard deviation divides the constant, and certificates know it.
    """
    at_least(1, classes=classes, width=width)
    channels, height, breadth = image_size(input_shape)
    linear, active = _named("layer", layer, LINEARS), _named("activation", activation, ACTIVATIONS)
    layers: list[nn.Module] = []
    for size in (width, 2 * width):
        if layer == "spectral":
            conv: nn.Module = SpectralConv2d(channels, size, 4, 2, 1, image_size=(height, breadth), mode="bound")
        else:
            conv = CONVOLUTIONS[layer](channels, size, 4, 2, 1)
        layers += [conv, active(size)]
        channels, height, breadth = size, height // 2, breadth // 2
    layers += [nn.Flatten(), linear(channels * height * breadth, 256), active(256), linear(256, classes)]
    return with_normalize(nn.Sequential(*layers), normalize, input_shape)
