"""The solvers of two-player dynamics by name."""

from __future__ import annotations

from typing import Any

from danskin.minmax.anchored import RAPP, Lookahead
from danskin.minmax.dynamics import (
    GDA,
    AlternatingGDA,
    Consensus,
    Extragradient,
    MirrorDescent,
    MirrorProx,
    OptimisticGDA,
    PastExtragradient,
)
from danskin.minmax.langevin import Langevin
from danskin.minmax.weak_minty import AdaptiveEGPlus, BCSEGPlus, CurvatureEGPlus, EGPlus

#: Solvers by the name that the command line calls them.
SOLVERS: dict[str, Any] = {
    "gda": GDA,
    "alternating_gda": AlternatingGDA,
    "extragradient": Extragradient,
    "optimistic": OptimisticGDA,
    "past_extragradient": PastExtragradient,
    "eg_plus": EGPlus,
    "adaptive_eg_plus": AdaptiveEGPlus,
    "curvature_eg_plus": CurvatureEGPlus,
    "bc_seg_plus": BCSEGPlus,
    "consensus": Consensus,
    "lookahead": Lookahead,
    "rapp": RAPP,
    "mirror_descent": MirrorDescent,
    "mirror_prox": MirrorProx,
    "langevin": Langevin,
}
