"""Interval bounds of networks over regions."""

from __future__ import annotations

from danskin.evaluation.certificates.region import Region
from danskin.lipschitz.intervals import Interval
from danskin.lipschitz.intervals import interval as of_operation
from danskin.lipschitz.network import Network, Node

__all__ = ["Interval", "interval", "intervals"]


def interval(node: Node, inputs: list[Interval], region: Region) -> Interval:
    """Low and high (n, *shape) of one node from those of its inputs."""
    return of_operation(node.operation, inputs, (region.low, region.high))


def intervals(network: Network, region: Region) -> list[Interval]:
    """Low and high of all nodes."""
    found: list[Interval] = []
    for node in network.nodes:
        found.append(interval(node, [found[i] for i in node.inputs], region))
    return found
