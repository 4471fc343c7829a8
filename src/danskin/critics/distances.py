"""Distances of critics, by name; those of transport are in `danskin.transport`."""

from __future__ import annotations

from typing import Any

from danskin.critics.dual import NeuralDual
from danskin.critics.lipschitz_class import Dudley, FortetMourier, Kantorovich
from danskin.critics.mmd import MMD, EnergyDistance
from danskin.critics.network_distance import NetworkDistance
from danskin.critics.total_variation import TotalVariation

#: By the name `danskin list distances` shows.
CRITICS: dict[str, Any] = {
    "dudley": Dudley,
    "energy": EnergyDistance,
    "fortet_mourier": FortetMourier,
    "kantorovich": Kantorovich,
    "mmd": MMD,
    "network": NetworkDistance,
    "neural_dual": NeuralDual,
    "total_variation_of_samples": TotalVariation,
}
