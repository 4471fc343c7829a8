"""The reference models by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from danskin.models.cnn import one_conv, small_cnn
from danskin.models.lipschitz import lipschitz_cnn, lipschitz_mlp
from danskin.models.mlp import linear, mlp
from danskin.models.names import unknown
from danskin.models.preact_resnet import preact_resnet18
from danskin.models.resnet import cifar_resnet, resnet56
from danskin.models.wide_resnet import wide_resnet


@dataclass(frozen=True)
class ModelInfo:
    """A reference model before building it.

    Args:
        name: the name that `build` takes.
        description: one line.
        factory: takes keywords input_shape, classes, and the options.
        images_only: whether it needs inputs of shape (C, H, W).
    """

    name: str
    description: str
    factory: Callable[..., nn.Module]
    images_only: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """The factory's own options and their defaults."""
        parameters = inspect.signature(self.factory).parameters
        return {k: p.default for k, p in parameters.items() if k not in ("input_shape", "classes")}


_ALL = (
    ModelInfo("linear", "one linear layer; worst cases in closed form", linear, images_only=False),
    ModelInfo("mlp", "linear layers with an activation between them", mlp, images_only=False),
    ModelInfo("small_cnn", "two strided convolutions and two linear layers, no BatchNorm", small_cnn),
    ModelInfo("one_conv", "one convolution and one linear layer; overfits catastrophically", one_conv),
    ModelInfo("preact_resnet18", "PreActResNet-18 for small images, 11.17 M parameters", preact_resnet18),
    ModelInfo("cifar_resnet", "CIFAR ResNet of 6n + 2 layers, shortcuts without parameters", cifar_resnet),
    ModelInfo("resnet56", "CIFAR ResNet of 56 layers, 0.85 M parameters", resnet56),
    ModelInfo("lipschitz_mlp", "1-Lipschitz linear layers with sorting between them", lipschitz_mlp, images_only=False),
    ModelInfo("lipschitz_cnn", "two strided 1-Lipschitz convolutions and two linear layers", lipschitz_cnn),
    ModelInfo("wide_resnet", "WideResNet of 6n + 4 layers, 36.5 M parameters at 28-10", wide_resnet),
)

MODELS: dict[str, ModelInfo] = {info.name: info for info in _ALL}


def build(name: str, *, input_shape: Sequence[int], classes: int, **options: Any) -> nn.Module:
    """A new model by name.

    Args:
        name: a name in `MODELS`.
        input_shape: shape of one example, (C, H, W) or (d,).
        classes: number of logits.
        options: the factory's own; see `MODELS[name].options`.

    Raises:
        InputError: unknown name or option, or a value that the factory refuses.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    info = MODELS[name]
    for option in options:
        if option not in info.options:
            raise unknown(f"option of {name}", option, info.options)
    return info.factory(input_shape=tuple(input_shape), classes=classes, **options)


@dataclass(frozen=True)
class Description:
    """Sizes of a model: numbers of parameters, of those that are trained, and of numbers in buffers."""

    parameters: int
    trainable: int
    buffers: int

    def __str__(self) -> str:
        frozen = self.parameters - self.trainable
        return f"{self.parameters:,} parameters" + (f" ({frozen:,} of them frozen)" if frozen else "")


def describe(model: nn.Module) -> Description:
    """How large a model is; shared parameters count once."""
    return Description(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        buffers=sum(b.numel() for b in model.buffers()),
    )
