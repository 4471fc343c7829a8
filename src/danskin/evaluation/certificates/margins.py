"""From bounds of a network to bounds of margins, method by method."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from danskin.evaluation.certificates.backward import STYLES, Bounds, asked_nodes, only_affine
from danskin.evaluation.certificates.region import Region
from danskin.evaluation.certificates.slopes import improved
from danskin.lipschitz.network import Network
from danskin.lipschitz.operations import Conv, Linear
from danskin.lipschitz.product import folded, node_constants


def differences(y: Tensor, outputs: tuple[int, ...]) -> Tensor:
    """(n, k, *outputs): the rows whose products with the outputs are the margins.

    e_y - e_j for all j != y, k = classes - 1; for a single output, the label y in {-1, +1} itself, k = 1.
    """
    classes = math.prod(outputs)
    if classes == 1:
        return y.double().view(-1, 1, *outputs)
    unit = torch.eye(classes, dtype=torch.float64, device=y.device)
    others = torch.arange(classes - 1, device=y.device).expand(len(y), -1)
    others = others + (others >= y[:, None])  # all classes but y
    return unit[y][:, None] - unit[others]


def margin_bounds(
    network: Network, region: Region, y: Tensor, logits: Tensor, correct: Tensor, methods: Sequence[str]
) -> Tensor:
    """(n,): at most the worst margin over each region, the best of all methods.

    Args:
        network: which.
        region: of the inputs, n examples.
        y: (n,) labels.
        logits: (n, ...) of the network at the clean examples, float64.
        correct: (n,) bool; only these are worth more than intervals.
        methods: "lipschitz", "ibp", "crown-ibp", "crown" or "alpha-crown".
    """
    margins = torch.full((len(y),), -torch.inf, dtype=torch.float64, device=y.device)
    for method in methods:
        if method == "lipschitz":
            found = _lipschitz(network, region, y, logits)
        else:
            found = _linear(network, region, y, correct, method)
        margins = torch.maximum(margins, found)
    return margins


def _lipschitz(network: Network, region: Region, y: Tensor, logits: Tensor) -> Tensor:
    r"""min_j  m_j(x) - L \|a_j\|_2 r.

    The margin is m_j = <a_j, h> + const with the last activations h, whose Lipschitz constant is L. Better than
    sqrt(2) L for all pairs (Tsuzuku et al., NeurIPS 2018), as each pair has its own row a_j.
    """
    rows = differences(y, tuple(logits.shape[1:]))
    clean = (rows * logits[:, None]).flatten(2).sum(2)
    slim = folded(network)
    constants, _ = node_constants(slim)
    # folding keeps activations, sums and the input, so the tail starts at the same operation
    before = constants[slim.affine_tail()]
    pulled = network.pull_tail(rows.flatten(0, 1))
    steep = torch.linalg.vector_norm(pulled.flatten(1), dim=1).view(clean.shape) * (1 + 1e-9)
    return (clean - before * steep * region.l2_radius[:, None]).amin(1)


def _linear(network: Network, region: Region, y: Tensor, correct: Tensor, method: str) -> Tensor:
    """Intervals for all; backward passes for the correct examples."""
    bounds = Bounds.of(network, region, tighten=False)
    low, high = bounds.intervals[-1]
    rows = differences(y, tuple(low.shape[1:]))
    least = torch.where(rows > 0, rows * low[:, None], rows * high[:, None]).flatten(2).sum(2)
    chosen = correct.nonzero().flatten()
    if method == "ibp" or not len(chosen):
        return least.amin(1)
    some = region.rows(chosen)
    bounds = Bounds.of(network, some, tighten=True) if method != "crown-ibp" else bounds.rows(chosen)
    least[chosen] = torch.maximum(least[chosen], _backward(bounds, rows[chosen], method == "alpha-crown"))
    return least.amin(1)


def _backward(bounds: Bounds, rows: Tensor, optimize: bool) -> Tensor:
    """(n, k): bounds of the margins by backward passes of both styles, and by better slopes where still open."""
    n, k = rows.shape[:2]
    last = len(bounds.network.nodes) - 1
    a = rows.flatten(0, 1)
    example = torch.arange(n, device=a.device).repeat_interleave(k)
    parts = []
    for some in torch.arange(n * k, device=a.device).split(bounds.rows_per_pass(last)):
        passes = [bounds.least(last, a[some], example[some], style, exact=True) for style in STYLES]
        parts.append(torch.maximum(*passes))
    found = torch.cat(parts)
    if optimize:
        open_ = (found <= 0).nonzero().flatten()
        found[open_] = improved(bounds, last, a[open_], example[open_], found[open_])
    return found.view(n, k)


def cost_per_example(network: Network) -> float:
    """Multiplications of the backward passes of "crown" for one example, if every neuron is undecided."""
    passes = [0.0]  # of one backward pass from each node to the input
    for at, node in enumerate(network.nodes[1:], 1):
        passes.append(sum(passes[i] for i in node.inputs) + _multiplications(network, at))
    asked = [at for at in asked_nodes(network) if not only_affine(network, at)]
    return sum(2 * len(STYLES) * math.prod(network.nodes[at].shape) * passes[at] for at in asked)


def _multiplications(network: Network, at: int) -> float:
    operation, size = network.nodes[at].operation, float(math.prod(network.nodes[at].shape))
    if isinstance(operation, Conv):
        return size * math.prod(operation.weight.shape[1:])
    return size * operation.weight.shape[1] if isinstance(operation, Linear) else size
