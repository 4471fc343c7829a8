"""Measures: samples and push-forwards, and distances between them, each with its bracket. Lecture: rows E1 to E3."""

from danskin.transport.bracket import Bracket
from danskin.transport.measures import Empirical
from danskin.transport.pushforward import Branch, PushForward, kolmogorov_smirnov
from danskin.transport.sinkhorn import sinkhorn_divergence
from danskin.transport.sliced import Sliced, max_sliced, sliced
from danskin.transport.wasserstein import Transport, wasserstein

__all__ = [
    "Bracket",
    "Branch",
    "Empirical",
    "PushForward",
    "Sliced",
    "Transport",
    "kolmogorov_smirnov",
    "max_sliced",
    "sinkhorn_divergence",
    "sliced",
    "wasserstein",
]
