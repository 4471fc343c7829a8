"""Linear classifiers and multi-layer perceptrons, for inputs of any shape."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from danskin.models.names import activation_named
from danskin.models.parts import Statistics, at_least, vector_size, with_normalize


def linear(
    *, input_shape: Sequence[int], classes: int = 10, normalize: Statistics = None, bias: bool = True
) -> nn.Module:
    """Flatten, then one linear layer: the model whose worst case is known in closed form.

    Args:
        input_shape: shape of one example, (d,) or (C, H, W).
        classes: number of logits.
        normalize: see `with_normalize`.
        bias: whether the layer has one.
    """
    at_least(1, classes=classes)
    net = nn.Sequential(nn.Flatten(), nn.Linear(vector_size(input_shape), classes, bias=bias))
    return with_normalize(net, normalize, input_shape)


def mlp(
    *,
    input_shape: Sequence[int],
    classes: int = 10,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    normalize: Statistics = None,
) -> nn.Module:
    """Flatten, then linear layers of sizes `hidden` with an activation after each, then the logits.

    Args:
        input_shape: shape of one example, (d,) or (C, H, W).
        classes: number of logits.
        hidden: widths of the hidden layers.
        activation: name in `ACTIVATIONS`.
        normalize: see `with_normalize`.
    """
    at_least(1, classes=classes)
    layers: list[nn.Module] = [nn.Flatten()]
    width = vector_size(input_shape)
    for size in hidden:
        at_least(1, hidden=size)
        layers += [nn.Linear(width, size), activation_named(activation)]
        width = size
    return with_normalize(nn.Sequential(*layers, nn.Linear(width, classes)), normalize, input_shape)
