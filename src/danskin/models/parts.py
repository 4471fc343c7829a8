"""What all factories share: checks of shapes and sizes, and the normalisation in front."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from danskin.errors import InputError
from danskin.models.names import unknown
from danskin.models.normalize import Normalize

NORMS = ("batch", "group")
Statistics = None | str | tuple[Sequence[float], Sequence[float]]


def with_normalize(net: nn.Module, normalize: Statistics, input_shape: Sequence[int]) -> nn.Sequential | nn.Module:
    """The net with `Normalize` as its first layer (a Sequential stays flat); the net itself where None.

    Args:
        net: takes normalised inputs.
        normalize: None, the name of a data set in `STATISTICS`, or (mean, std).
        input_shape: shape of one example; its first number is that of the channels.
    """
    if normalize is None:
        return net
    layer = Normalize.of(normalize) if isinstance(normalize, str) else Normalize(*normalize)
    if len(layer.mean) not in (1, input_shape[0]):
        raise InputError(
            f"normalize: expected 1 or {input_shape[0]} channels for inputs of shape {tuple(input_shape)}, "
            f"got {len(layer.mean)}; use the statistics of this data"
        )
    return nn.Sequential(layer, *net) if isinstance(net, nn.Sequential) else nn.Sequential(layer, net)


def norm_named(name: str, channels: int) -> nn.Module:
    """A new normalisation layer over feature maps: "batch", or "group" with min(8, channels / 4) groups.

    The number of groups is lowered until it divides the channels.
    """
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name != "group":
        raise unknown("norm", name, NORMS)
    groups = max(1, min(8, channels // 4))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def at_least(low: int, **sizes: int) -> None:
    """Each named size is an integer of at least `low`."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InputError(f"{name}: expected an integer of {low} or more, got {value!r}; correct it")


def vector_size(input_shape: Sequence[int]) -> int:
    """Number of coordinates of one example of any shape."""
    if not input_shape:
        raise InputError("input_shape: expected (d,) or (C, H, W), got (); give the shape of one example")
    size = 1
    for n in input_shape:
        at_least(1, input_shape=n)
        size *= n
    return size


def image_size(input_shape: Sequence[int], smallest: int = 8) -> tuple[int, int, int]:
    """(C, H, W), checked to be an image of at least `smallest` pixels a side."""
    vector_size(input_shape)
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise InputError(
            f"input_shape: expected (C, H, W) with H and W of {smallest} or more, got {tuple(input_shape)}; "
            "use linear or mlp for other data"
        )
    c, h, w = input_shape
    return c, h, w
