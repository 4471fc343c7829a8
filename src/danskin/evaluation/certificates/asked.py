"""Which nodes of a network are worth a backward pass of their own."""

from __future__ import annotations

from danskin.lipschitz.network import Network, Node
from danskin.lipschitz.operations import ACTIVATIONS, Conv, Linear, MaxPool, Scale, Sort


def asked_nodes(network: Network) -> set[int]:
    """The nodes worth a backward pass: the inputs of activations that have lines."""
    users = (n for n in network.nodes if isinstance(n.operation, ACTIVATIONS))
    return {n.inputs[0] for n in users if not isinstance(n.operation, MaxPool) and has_lines(n)}


def has_lines(node: Node) -> bool:
    """Whether linear bounds of a node are known: of all but sorted groups of more than two."""
    return not isinstance(node.operation, Sort) or node.shape[node.operation.dim] == 2


def only_affine(network: Network, at: int) -> bool:
    """Whether no activation stands before a node."""
    node = network.nodes[at]
    return not isinstance(node.operation, ACTIVATIONS) and all(only_affine(network, i) for i in node.inputs)


def mixes_once(network: Network, at: int) -> bool:
    """Whether a node is one linear layer or convolution of scaled inputs: its interval is then exact for l_inf."""
    node: Node = network.nodes[at]
    while isinstance(node.operation, Scale):
        node = network.nodes[node.inputs[0]]
    if isinstance(node.operation, Linear | Conv):
        node = network.nodes[node.inputs[0]]
        while isinstance(node.operation, Scale):
            node = network.nodes[node.inputs[0]]
    return not node.inputs
