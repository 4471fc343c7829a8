"""A network as a chain of matrices and elementwise activations: what LipSDP and its kin need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import ModelError
from danskin.lipschitz.curves import Curve
from danskin.lipschitz.intervals import interval
from danskin.lipschitz.network import Network, run
from danskin.lipschitz.operations import AFFINE, ELEMENTWISE, Abs, Elementwise, Input, Relu, Sigmoid, Spline, Sum, Tanh
from danskin.lipschitz.pairs import paired

ENTRIES = 1 << 24  # of one matrix
WIDTH = 4096  # numbers in a layer


@dataclass(frozen=True)
class Part:
    """Some of the neurons of a layer.

    Args:
        operation: what is applied to each of them; `CARRIED` for what only passes by.
        shape: of one example.
    """

    operation: Elementwise
    shape: tuple[int, ...]


CARRIED = Relu(1.0)  #: the identity: values that a later layer needs


@dataclass(frozen=True, eq=False)
class Chain:
    r"""f(x) = W_L h_{L-1} + b_L,  h_i = sigma_i(W_i h_{i-1} + b_i),  h_0 = x, all flattened, float64.

    A branch around activations is a part of h that is carried along: sigma_i is the identity there.

    Args:
        weights: W_1 ... W_L, (out, in) each.
        biases: b_1 ... b_L.
        activations: sigma_1 ... sigma_{L-1}, each in parts one after the other.
        input_shape: of one example.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activations: tuple[tuple[Part, ...], ...]
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
    def branches(self) -> bool:
        """Whether something is carried around an activation."""
        return any(part.operation is CARRIED for parts in self.activations for part in parts)

    @property
    def name(self) -> str:
        """Such as 2-16-16-1."""
        return "-".join(str(n) for n in self.widths)

    def __call__(self, x: Tensor) -> Tensor:
        """(batch, n_0) to (batch, n_L)."""
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ w.T + b
            if i < len(self.activations):
                x = self.activate(i, x)
        return x

    def activate(self, layer: int, z: Tensor) -> Tensor:
        """Sigma of a layer, (batch, n) to (batch, n)."""
        return torch.cat([op.apply(part).flatten(1) for op, part in self._split(layer, z)], 1)

    def slopes(self, layer: int, low: Tensor | None = None, high: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Least and largest slope of each neuron of activation `layer`, anywhere or over its interval (n,)."""
        n = self.weights[layer].shape[0]
        like = self.weights[layer].new_empty(n)
        if low is None or high is None:
            low, high = torch.full_like(like, -torch.inf), torch.full_like(like, torch.inf)
        ends = zip(self._split(layer, low[None]), self._split(layer, high[None]), strict=True)
        found = [slopes_of(op, a, b) for (op, a), (_, b) in ends]
        least, most = (torch.cat([pair[k].flatten() for pair in found]) for k in (0, 1))
        return least, most

    def range(self, layer: int, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest value of each neuron after activation `layer` over its interval (n,)."""
        ends = zip(self._split(layer, low[None]), self._split(layer, high[None]), strict=True)
        found = [interval(op, [(a, b)], (a, b)) for (op, a), (_, b) in ends]
        least, most = (torch.cat([pair[k].flatten() for pair in found]) for k in (0, 1))
        return least, most

    def leaks(self, layer: int) -> Tensor | None:
        """The slopes below 0 (n,), where all neurons are linear there, and the identity above; else None."""
        found = [_leak(p, self.weights[layer]) for p in self.activations[layer]]
        return None if any(v is None for v in found) else torch.cat([v for v in found if v is not None])

    def _split(self, layer: int, z: Tensor) -> list[tuple[Elementwise, Tensor]]:
        parts = self.activations[layer]
        values = z.split([math.prod(p.shape) for p in parts], 1)
        return [(p.operation, v.view(len(z), *p.shape)) for p, v in zip(parts, values, strict=True)]


def _leak(part: Part, like: Tensor) -> Tensor | None:
    operation, zeros = part.operation, like.new_zeros((1, *part.shape))
    if isinstance(operation, Relu):
        return (zeros + operation.leak).flatten()
    if isinstance(operation, Abs):
        return (zeros - 1).flatten()
    if isinstance(operation, Curve) and operation.name == "leaky_relu":
        return operation.pieces[0].derivative(zeros).expand_as(zeros).flatten()
    return None


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
    """The network as a chain of layers: layer i holds the activations that i - 1 others come before.

    What branches around them is carried along (a residual network's sums are matrices then); sorted pairs and 2 x 2 max
    pooling are spelled out as absolute values (`danskin.lipschitz.pairs`).

    Args:
        network: which.
        entries: of one matrix, at most.

    Raises:
        ModelError: it is none (larger sorted groups, other max pooling), or a matrix is too large.
    """
    network = paired(network)
    sources, level = _sources(network)
    last = len(network.nodes) - 1
    depth = 1 + max(level[v] for v in sources[last])
    used = dict.fromkeys(level, 0)  # the last layer that needs an activation, or the input
    for at in level:
        for v in sources[network.nodes[at].inputs[0]] if at else ():
            used[v] = max(used[v], level[at])
    used |= dict.fromkeys(sources[last], depth)
    before, weights, biases, activations = [0], [], [], []
    for k in range(1, depth):
        new, kept = [v for v in level if level[v] == k], [v for v in before if used[v] > k]
        w, b = _matrix(network, before, [network.nodes[v].inputs[0] for v in new] + kept, entries)
        weights.append(w)
        biases.append(b)
        activations.append(tuple(_part(network, v, v in new) for v in (*new, *kept)))
        before = new + kept
    w, b = _matrix(network, before, [last], entries)
    return Chain((*weights, w), (*biases, b), tuple(activations), network.nodes[0].shape)


def _part(network: Network, at: int, new: bool) -> Part:
    node = network.nodes[at]
    return Part(node.operation if new else CARRIED, node.shape)  # type: ignore[arg-type]


def _sources(network: Network) -> tuple[list[frozenset[int]], dict[int, int]]:
    """For each node the activations (or the input) of which it is an affine function, and how many come before each."""
    found: list[frozenset[int]] = []
    level: dict[int, int] = {}
    for at, node in enumerate(network.nodes):
        before = frozenset[int]().union(*(found[i] for i in node.inputs))
        if isinstance(node.operation, (Input, *ELEMENTWISE)):
            level[at] = 1 + max((level[v] for v in before), default=-1)
            before = frozenset([at])
        elif not isinstance(node.operation, (*AFFINE, Sum)):
            raise ModelError(
                f"model: expected a chain of matrices and elementwise activations, got "
                f"{type(node.operation).__name__} at {node.name}; the product bound reads it"
            )
        found.append(before)
    return found, level


def _matrix(network: Network, sources: list[int], targets: list[int], entries: int) -> tuple[Tensor, Tensor]:
    """The affine map from some nodes to others: (out, in) and (out,)."""
    shapes = [network.nodes[v].shape for v in sources]
    n, m = (sum(math.prod(network.nodes[v].shape) for v in some) for some in (sources, targets))
    if n * m > entries or max(m, 1) > WIDTH:
        raise ModelError(
            f"model: expected layers of at most {WIDTH} numbers and {entries} entries to write them out as matrices, "
            f"got {n} to {m}; the product bound needs no such matrix"
        )

    def apply(*given: Tensor) -> Tensor:
        values = dict(zip(sources, given, strict=True))
        for at in range(max(targets) + 1):
            node = network.nodes[at]
            if (
                at not in values
                and isinstance(node.operation, (*AFFINE, Sum))
                and all(i in values for i in node.inputs)
            ):
                values[at] = run(node.operation, given[0], [values[i] for i in node.inputs])
        return torch.cat([values[v].flatten(1) for v in targets], 1)

    zeros = [torch.zeros((1, *shape), dtype=torch.float64, device=network.device) for shape in shapes]
    eye = torch.eye(m, dtype=torch.float64, device=network.device)
    with torch.inference_mode(False), torch.no_grad():
        bias = apply(*zeros)[0]
        rows = []  # W^T e for each output: no bias is added and taken off again, which would round
        for some in eye.split(max(1, (1 << 22) // max(n, m, 1))):
            pulled = torch.func.vjp(apply, *(z.expand(len(some), *z.shape[1:]) for z in zeros))[1](some)
            rows.append(torch.cat([p.flatten(1) for p in pulled], 1))
    return torch.cat(rows), bias
