"""A network as a chain of matrices and elementwise activations, where it is one: what LipSDP and its kin need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import ModelError
from danskin.lipschitz.curves import Curve
from danskin.lipschitz.network import Network, run
from danskin.lipschitz.operations import AFFINE, ELEMENTWISE, Abs, Elementwise, Input, Relu, Sigmoid, Spline, Sum, Tanh

ENTRIES = 1 << 24  # of one matrix
WIDTH = 4096  # numbers in a layer


@dataclass(frozen=True, eq=False)
class Chain:
    r"""f(x) = W_L h_{L-1} + b_L,  h_i = sigma_i(W_i h_{i-1} + b_i),  h_0 = x, all flattened, float64.

    Args:
        weights: W_1 ... W_L, (out, in) each.
        biases: b_1 ... b_L.
        activations: sigma_1 ... sigma_{L-1}.
        shapes: of one example at each activation, for those that differ between channels.
        input_shape: of one example.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activations: tuple[Elementwise, ...]
    shapes: tuple[tuple[int, ...], ...]
    input_shape: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """n_0, n_1, ..., n_L."""
        return (self.weights[0].shape[1], *(w.shape[0] for w in self.weights))

    @property
    def hidden(self) -> int:
        """Neurons in all hidden layers."""
        return sum(self.widths[1:-1])

    @property
    def name(self) -> str:
        """Such as 2-16-16-1."""
        return "-".join(str(n) for n in self.widths)

    def __call__(self, x: Tensor) -> Tensor:
        """(batch, n_0) to (batch, n_L)."""
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ w.T + b
            if i < len(self.activations):
                x = self.activations[i].apply(x.view(len(x), *self.shapes[i])).flatten(1)
        return x

    def slopes(self, layer: int, low: Tensor | None = None, high: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Least and largest slope of each neuron of activation `layer`, anywhere or over its interval (n,)."""
        n = self.weights[layer].shape[0]
        like = self.weights[layer].new_empty(n)
        if low is None or high is None:
            low, high = torch.full_like(like, -torch.inf), torch.full_like(like, torch.inf)
        shape = (1, *self.shapes[layer])
        least, most = slopes_of(self.activations[layer], low.view(shape), high.view(shape))
        return least.flatten(), most.flatten()


def slopes_of(activation: Elementwise, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The least and largest slope of an activation over intervals (1, *shape), number by number."""
    if isinstance(activation, Curve):
        return activation.slopes(low, high)
    if isinstance(activation, Relu):
        leak = torch.full_like(low, activation.leak)
        return torch.where(low >= 0, 1.0, leak), torch.where(high <= 0, leak, 1.0)
    if isinstance(activation, Abs):
        one = torch.ones_like(low)
        return torch.where(low >= 0, one, -one), torch.where(high <= 0, -one, one)
    if isinstance(activation, Spline):
        shape = [1] * low.ndim
        shape[activation.dim] = -1
        ends = activation.slopes.amin(1).view(shape), activation.slopes.amax(1).view(shape)
        return ends[0].expand_as(low), ends[1].expand_as(low)
    assert isinstance(activation, Sigmoid | Tanh)
    middle = torch.zeros_like(low).clamp(min=low, max=high)  # the derivative rises up to 0 and falls after
    least = torch.minimum(activation.derivative(low), activation.derivative(high))
    return least * (1 - 1e-12), activation.derivative(middle) * (1 + 1e-12)


def chain_of(network: Network, entries: int = ENTRIES) -> Chain:
    """The network as a chain; branches are welcome between two activations, where they are one matrix.

    Args:
        network: which.
        entries: of one matrix, at most.

    Raises:
        ModelError: it is none (a branch around an activation, max pooling), or a matrix is too large.
    """
    sources = _sources(network)
    last = len(network.nodes) - 1
    ends, at = [last], sources[last]
    while at != 0:
        ends.append(at)
        at = sources[network.nodes[at].inputs[0]]
    ends.reverse()
    starts = [0, *ends[:-1]]
    weights, biases = [], []
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        final = k == len(ends) - 1
        target = end if final else network.nodes[end].inputs[0]
        w, b = _matrix(network, start, target, entries)
        weights.append(w)
        biases.append(b)
    hidden = ends[:-1]
    activations = tuple(network.nodes[i].operation for i in hidden)
    shapes = tuple(network.nodes[i].shape for i in hidden)
    return Chain(tuple(weights), tuple(biases), activations, shapes, network.nodes[0].shape)  # type: ignore[arg-type]


def _sources(network: Network) -> list[int]:
    """For each node the activation (or the input) of which it is an affine function; an activation is its own."""
    found: list[int] = []
    for at, node in enumerate(network.nodes):
        if isinstance(node.operation, (Input, *ELEMENTWISE)):
            found.append(at)
        elif isinstance(node.operation, AFFINE):
            found.append(found[node.inputs[0]])
        elif isinstance(node.operation, Sum):
            before = {found[i] for i in node.inputs}
            if len(before) > 1:
                raise ModelError(
                    f"model: expected a chain of layers, got branches around an activation that meet at {node.name}; "
                    "the product bound reads them"
                )
            found.append(before.pop())
        else:
            raise ModelError(
                f"model: expected a chain of matrices and elementwise activations, got "
                f"{type(node.operation).__name__} at {node.name}; the product bound reads it"
            )
    return found


def _matrix(network: Network, start: int, target: int, entries: int) -> tuple[Tensor, Tensor]:
    """The affine map from node `start` to node `target`: (out, in) and (out,)."""
    shape, out = network.nodes[start].shape, network.nodes[target].shape
    n, m = math.prod(shape), math.prod(out)
    if n * m > entries or max(m, 1) > WIDTH:
        raise ModelError(
            f"model: expected layers of at most {WIDTH} numbers and {entries} entries to write them out as matrices, "
            f"got {n} to {m}; the product bound needs no such matrix"
        )

    def apply(h: Tensor) -> Tensor:
        values = {start: h}
        for at in range(start + 1, target + 1):
            node = network.nodes[at]
            if all(i in values for i in node.inputs) and not isinstance(node.operation, ELEMENTWISE):
                values[at] = run(node.operation, h, [values[i] for i in node.inputs])
        return values[target].flatten(1)

    zero = torch.zeros((1, *shape), dtype=torch.float64, device=network.device)
    eye = torch.eye(m, dtype=torch.float64, device=network.device)
    with torch.inference_mode(False), torch.no_grad():
        bias = apply(zero)[0]
        rows = [  # W^T e for each output: no bias is added and taken off again, which would round
            torch.func.vjp(apply, zero.expand(len(some), *shape))[1](some)[0].flatten(1)
            for some in eye.split(max(1, (1 << 22) // max(n, m, 1)))
        ]
    return torch.cat(rows), bias
