"""The product bound: the Lipschitz constant of a network is at most the product of those of its layers."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.lipschitz.bound import LipschitzBound, Norm
from danskin.lipschitz.network import Network, Node
from danskin.lipschitz.norms import operation_norm, row_sum_norm
from danskin.lipschitz.operations import (
    ACTIVATIONS,
    CircularConv,
    CircularPad,
    Conv,
    Input,
    Linear,
    MaxPool,
    Operation,
    Scale,
    Sum,
)
from danskin.lipschitz.reading import read


def product_bound(model: Callable[[Tensor], Tensor], input_shape: Sequence[int], *, norm: Norm = 2) -> LipschitzBound:
    r"""A Lipschitz constant of a feed-forward network, certified: never below the true one.

    L(input) = 1, L(W h + b) = \|W\| L(h), L(sigma(h)) = Lip(sigma) L(h), L(h + g) = L(h) + L(g). Lip(sigma) is the
    largest slope, which for GELU, SiLU, Mish and Hardswish is above 1; a concatenation is the root of the sum of
    squares of its parts, or their largest in l_inf. A normalisation (BatchNorm in eval mode,
    `danskin.models.Normalize`) next to a linear layer or convolution is multiplied into it first. Norms are exact or
    bounded as in `danskin.lipschitz.norms`, with a margin of 1e-9 for rounding; the bound is for exact arithmetic with
    the model's weights.

    Args:
        model: inputs (batch, *input_shape) to outputs; read in eval mode and left as found.
        input_shape: of one example.
        norm: 2 or "inf", of inputs and outputs alike; "inf" takes the largest absolute row sum, exact for each layer.

    Raises:
        ModelError: an operation has no rule (dot-product attention has no constant at all); it is named.

    Reference: Szegedy et al., ICLR 2014, section 4.3. Lecture: E6.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> print(product_bound(net, (2,)))
    L <= 4 (product)
    """
    start = time.perf_counter()
    return product_of(read(model, example_input(model, input_shape)), check_norm(norm), start)


def product_of(network: Network, norm: Norm = 2, start: float | None = None) -> LipschitzBound:
    """The product bound of a network that is read already; `start` is when the clock began."""
    start = time.perf_counter() if start is None else start
    constants, layers = node_constants(folded(network), norm)
    return LipschitzBound(
        constants[-1], "upper", "product", norm, norm, seconds=time.perf_counter() - start, layers=layers
    )


def check_norm(norm: object) -> Norm:
    """2 or "inf", also from 2.0, "2" or math.inf.

    Raises:
        InputError: another norm.
    """
    if norm in (2, "2"):
        return 2
    if norm in ("inf", math.inf):
        return "inf"
    raise InputError(f'norm: expected 2 or "inf", got {norm!r}; pick one')


def example_input(model: object, input_shape: Sequence[int]) -> Tensor:
    """Zeros of one example's shape, in the dtype and on the device of the model's parameters."""
    if not all(isinstance(n, int) and n > 0 for n in input_shape) or not len(input_shape):
        raise InputError(
            f"input_shape: expected the shape of one example, such as (3, 32, 32), got {input_shape!r}; leave out "
            "the batch dimension"
        )
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    like = next((p for p in parameters if p.is_floating_point()), torch.zeros(()))
    return torch.zeros((1, *input_shape), dtype=like.dtype, device=like.device)


def node_constants(network: Network, norm: Norm = 2) -> tuple[list[float], tuple[tuple[str, float], ...]]:
    """The Lipschitz constant from the input to each node, and the factors of layers that are not 1."""
    constants: list[float] = []
    factors: list[tuple[str, float]] = []
    for node in network.nodes:
        operation, before = node.operation, [constants[i] for i in node.inputs]
        if isinstance(operation, Input):
            constants.append(1.0)
        elif isinstance(operation, Sum):
            constants.append(joined(operation, before, norm))
        else:
            factor = _factor(operation, network.nodes[node.inputs[0]], norm)
            factors += [(node.name, factor)] if abs(factor - 1) > 1e-8 else []
            constants.append(factor * before[0])
    return constants, tuple(factors)


def joined(operation: Sum, constants: Sequence[float], norm: Norm) -> float:
    """The constant of a sum of branches with these constants."""
    parts = [abs(f) * c for f, c in zip(operation.factors, constants, strict=True)]
    if not operation.apart:
        return math.fsum(parts)
    return max(parts) if norm == "inf" else math.hypot(*parts) * (1 + 1e-15)


def _factor(operation: Operation, before: Node, norm: Norm) -> float:
    if isinstance(operation, MaxPool) and norm == "inf":
        return 1.0
    if isinstance(operation, ACTIVATIONS):
        return operation.slope
    zeros = torch.zeros((1, *before.shape), dtype=torch.float64, device=_device(operation))
    return operation_norm(operation, zeros) if norm == 2 else row_sum_norm(operation, zeros)  # type: ignore[arg-type]


def _device(operation: Operation) -> torch.device:
    if isinstance(operation, CircularConv):
        operation = operation.conv
    tensor = getattr(operation, "weight", getattr(operation, "scale", getattr(operation, "bias", None)))
    return tensor.device if isinstance(tensor, Tensor) else torch.device("cpu")


def folded(network: Network) -> Network:
    """The same slopes with fewer nodes: a scale per channel next to a layer is multiplied into it.

    Shifts are dropped where a scale stands before a convolution (zero padding does not commute with them), so
    the result is good for Lipschitz constants only.
    """
    nodes = list(network.nodes)
    uses = Counter(i for node in nodes for i in node.inputs)
    for at, node in enumerate(nodes):
        if not node.inputs or uses[node.inputs[0]] != 1:
            continue
        before = nodes[node.inputs[0]]
        merged = _merge(before, node)
        if merged is not None:
            nodes[at] = replace(node, operation=merged, inputs=before.inputs)
    return _without_unused(nodes)


def _merge(first: Node, second: Node) -> Operation | None:
    """One operation with the slopes of both, or None."""
    a, b = first.operation, second.operation
    if isinstance(a, CircularPad) and isinstance(b, Conv) and b.padding == (0, 0):
        return CircularConv(a, b)
    if isinstance(a, Scale) and isinstance(b, Linear | Conv):
        factor = _per_channel(a, b, first.shape)
        if factor is None or (isinstance(b, Conv) and b.groups != 1):
            return None
        return replace(b, weight=b.weight * factor.view(1, -1, *[1] * (b.weight.ndim - 2)))
    if isinstance(a, Linear | Conv) and isinstance(b, Scale):
        factor = _per_channel(b, a, second.shape)
        return None if factor is None else replace(a, weight=a.weight * factor.view(-1, *[1] * (a.weight.ndim - 1)))
    return None


def _per_channel(scale: Scale, layer: Linear | Conv, shape: tuple[int, ...]) -> Tensor | None:
    """The scale as one number per channel (feature), or None where it is not."""
    channel = 0 if isinstance(layer, Conv) else len(shape) - 1
    full = scale.scale.view(*[1] * (len(shape) - scale.scale.ndim), *scale.scale.shape)
    if any(n != 1 for k, n in enumerate(full.shape) if k != channel):
        return None
    return full.flatten().expand(shape[channel])


def _without_unused(nodes: list[Node]) -> Network:
    needed = {0, len(nodes) - 1}
    for at in range(len(nodes) - 1, 0, -1):
        if at in needed:
            needed.update(nodes[at].inputs)
    place = {at: k for k, at in enumerate(sorted(needed))}
    return Network(tuple(replace(nodes[at], inputs=tuple(place[i] for i in nodes[at].inputs)) for at in sorted(needed)))
