"""Measures and the distances between them, each with its bracket. Lecture: rows E1 to E3, E7, E8."""

from collections.abc import Callable
from typing import Any

from danskin.transport.batches import Transports, wasserstein_batch
from danskin.transport.bracket import Bracket
from danskin.transport.divergences import (
    F_DIVERGENCES,
    Estimate,
    from_discriminator,
    jensen_shannon,
    kullback_leibler,
    total_variation,
)
from danskin.transport.gaussian import gaussian_map, gaussian_w2, moment_bound
from danskin.transport.maps import MongeMap, barycentric_map, monge_map, monotone_map
from danskin.transport.measures import Empirical
from danskin.transport.projection import Projection, wasserstein_projection
from danskin.transport.pushforward import Branch, PushForward, kolmogorov_smirnov
from danskin.transport.sinkhorn import sinkhorn_divergence
from danskin.transport.sliced import Sliced, max_sliced, sliced
from danskin.transport.wasserstein import Transport, wasserstein

#: Distances between two samples or two laws, by name; all are 0 where the two agree.
DISTANCES: dict[str, Callable[..., Any]] = {
    "gaussian_w2": gaussian_w2,
    "jensen_shannon": jensen_shannon,
    "kullback_leibler": kullback_leibler,
    "max_sliced": max_sliced,
    "moment_bound": moment_bound,
    "sinkhorn_divergence": sinkhorn_divergence,
    "sliced": sliced,
    "total_variation": total_variation,
    "wasserstein": wasserstein,
    "wasserstein_batch": wasserstein_batch,
}

__all__ = [
    "DISTANCES",
    "F_DIVERGENCES",
    "Bracket",
    "Branch",
    "Empirical",
    "Estimate",
    "MongeMap",
    "Projection",
    "PushForward",
    "Sliced",
    "Transport",
    "Transports",
    "barycentric_map",
    "from_discriminator",
    "gaussian_map",
    "gaussian_w2",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "kullback_leibler",
    "max_sliced",
    "moment_bound",
    "monge_map",
    "monotone_map",
    "sinkhorn_divergence",
    "sliced",
    "total_variation",
    "wasserstein",
    "wasserstein_batch",
    "wasserstein_projection",
]
