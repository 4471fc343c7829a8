"""What backward passes cost, in multiplications: what a budget is counted in, so that no clock decides."""

from __future__ import annotations

import math

from danskin.evaluation.certificates.asked import asked_nodes, only_affine
from danskin.lipschitz.network import Network
from danskin.lipschitz.operations import Conv, Linear


def pass_costs(network: Network) -> list[float]:
    """For each node the multiplications of one row's way from it to the input."""
    before: list[set[int]] = []  # branches meet again, and what is before both of them is passed once
    for at, node in enumerate(network.nodes):
        before.append({at}.union(*(before[i] for i in node.inputs)))
    own = [_multiplications(network, at) if node.inputs else 0.0 for at, node in enumerate(network.nodes)]
    return [sum(own[i] for i in some) for some in before]


def cost_per_example(network: Network) -> float:
    """Multiplications of the backward passes of "crown" for one example, if every neuron is undecided.

    Four passes a neuron: from below and from above, with both styles of lines.
    """
    passes = pass_costs(network)
    asked = [at for at in asked_nodes(network) if not only_affine(network, at)]
    return sum(4 * math.prod(network.nodes[at].shape) * passes[at] for at in asked)


def _multiplications(network: Network, at: int) -> float:
    operation, size = network.nodes[at].operation, float(math.prod(network.nodes[at].shape))
    if isinstance(operation, Conv):
        return size * math.prod(operation.weight.shape[1:])
    return size * operation.weight.shape[1] if isinstance(operation, Linear) else size
