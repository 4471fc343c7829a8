"""Small generators and critics: linear layers for points, convolutions for small images."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from danskin.errors import InputError, suggest
from danskin.gan.constraint import Constraint, Unconstrained
from danskin.inputs import whole_number

#: What the generator's numbers are: any, or of images in [0, 1].
Range = Literal["any", "unit"]


def _positive(**sizes: int) -> None:
    for name, value in sizes.items():
        whole_number(value, name, 1)


def _image(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4:
        raise InputError(
            f"conv: expected images (C, H, W) with sides that 4 divides, got shape {tuple(shape)}; use mlp for other "
            "data"
        )
    c, h, w = shape
    return c, h, w


def generator_mlp(
    *, shape: Sequence[int], latent: int = 2, hidden: Sequence[int] = (64, 64, 64), range: Range = "any"
) -> nn.Module:
    """Linear layers with ReLU between them, from a latent vector to an example.

    Args:
        shape: of one example.
        latent: dimensions of the latent vector.
        hidden: widths.
        range: "unit" ends with a sigmoid.
    """
    _positive(latent=latent)
    layers: list[nn.Module] = []
    width = latent
    for size in hidden:
        _positive(hidden=size)
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    layers.append(nn.Linear(width, math.prod(shape)))
    if range == "unit":
        layers.append(nn.Sigmoid())
    if len(shape) > 1:
        layers.append(nn.Unflatten(1, tuple(shape)))
    return nn.Sequential(*layers)


def critic_mlp(
    *, shape: Sequence[int], constraint: Constraint | None = None, hidden: Sequence[int] = (64, 64, 64)
) -> nn.Module:
    """Linear layers to one score; what they are made of is the constraint's choice.

    Args:
        shape: of one example.
        constraint: makes the layers and activations.
        hidden: widths.
    """
    of = constraint or Unconstrained()
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    width = math.prod(shape)
    for size in hidden:
        _positive(hidden=size)
        layers += [of.linear(width, size), of.activation(size)]
        width = size
    return nn.Sequential(*layers, of.linear(width, 1))


def generator_conv(
    *, shape: Sequence[int], latent: int = 64, width: int = 32, batchnorm: bool = True, range: Range = "unit"
) -> nn.Module:
    """A linear layer to a quarter of the image's sides, then two convolutions of upsampled maps.

    Args:
        shape: (C, H, W), sides that 4 divides.
        latent: dimensions of the latent vector.
        width: channels before the last convolution; twice as many before that.
        batchnorm: between convolutions.
        range: "unit" ends with a sigmoid.

    Reference: after Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional
    generative adversarial networks", ICLR 2016; upsampling in place of transposed convolutions, which leave a
    checkerboard.
    """
    _positive(latent=latent, width=width)
    c, h, w = _image(shape)

    def normal(channels: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(channels)] if batchnorm else []

    layers: list[nn.Module] = [
        nn.Linear(latent, 2 * width * (h // 4) * (w // 4)),
        nn.Unflatten(1, (2 * width, h // 4, w // 4)),
        *normal(2 * width),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(2 * width, width, 3, padding=1),
        *normal(width),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width, c, 3, padding=1),
    ]
    return nn.Sequential(*layers, nn.Sigmoid()) if range == "unit" else nn.Sequential(*layers)


def critic_conv(*, shape: Sequence[int], constraint: Constraint | None = None, width: int = 32) -> nn.Module:
    """Two convolutions of stride 2 and a linear layer to one score, no normalisation.

    Args:
        shape: (C, H, W), sides that 4 divides.
        constraint: makes the layers and activations.
        width: channels of the first convolution; twice as many of the second.
    """
    _positive(width=width)
    of = constraint or Unconstrained()
    c, h, w = _image(shape)
    return nn.Sequential(
        of.conv(c, width, 4, 2, 1, (h, w)),
        of.activation(width),
        of.conv(width, 2 * width, 4, 2, 1, (h // 2, w // 2)),
        of.activation(2 * width),
        nn.Flatten(),
        of.linear(2 * width * (h // 4) * (w // 4), 1),
    )


GENERATORS: dict[str, Callable[..., nn.Module]] = {"mlp": generator_mlp, "conv": generator_conv}
CRITICS: dict[str, Callable[..., nn.Module]] = {"mlp": critic_mlp, "conv": critic_conv}


@dataclass(frozen=True)
class Network:
    """A generator or a critic, by name.

    Args:
        name: "mlp", "conv", or "package.module:factory" of your own.
        options: its own ones.
    """

    name: str = "mlp"
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, of: dict[str, Callable[..., nn.Module]], what: str, **given: Any) -> nn.Module:
        """The network.

        Raises:
            InputError: no such network, or options it does not have.
        """
        if self.name not in of:
            raise InputError(f"{what}.name: expected a known name, got {self.name!r}; {suggest(self.name, of)}")
        known = inspect.signature(of[self.name]).parameters.keys() - given.keys()
        for option in self.options:
            if option not in known:
                raise InputError(
                    f"{what}.options: expected options of {self.name}, got {option!r}; {suggest(option, known)}"
                )
        try:
            return of[self.name](**given, **self.options)
        except TypeError as error:
            raise InputError(f"{what}.options: {error}; see what {self.name} takes in danskin.gan.networks") from error
