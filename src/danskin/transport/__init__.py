"""Wasserstein distances between samples, each with its bracket. Lecture: row E2."""

from danskin.transport.bracket import Bracket
from danskin.transport.measures import Empirical
from danskin.transport.sinkhorn import sinkhorn_divergence
from danskin.transport.sliced import Sliced, max_sliced, sliced
from danskin.transport.wasserstein import Transport, wasserstein

__all__ = [
    "Bracket",
    "Empirical",
    "Sliced",
    "Transport",
    "max_sliced",
    "sinkhorn_divergence",
    "sliced",
    "wasserstein",
]
