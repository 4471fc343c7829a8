"""Lipschitz constants of networks: certified upper bounds, lower bounds with a witness, and how to read a network.

Norms are l2 or l_inf, of inputs and outputs alike. Upper bounds are never below the true constant; see `norms` for
layers, `covariance` for whole networks.
"""

from danskin.lipschitz.bound import LipschitzBound
from danskin.lipschitz.chain import Chain, chain_of
from danskin.lipschitz.covariance import Slopes, slopes_everywhere
from danskin.lipschitz.lipopt import lipopt
from danskin.lipschitz.lipsdp import eclipse_fast, lipsdp, lipsdp_penalty
from danskin.lipschitz.lower import lipschitz_lower, search_lower
from danskin.lipschitz.matrices import gram_bound, matrix_norm
from danskin.lipschitz.norms import circular_bound, conv_norm
from danskin.lipschitz.product import product_bound
from danskin.lipschitz.reading import read
from danskin.lipschitz.regions import exact_by_regions
from danskin.lipschitz.sdp import lipsdp_by_solver
from danskin.lipschitz.seqlip import seqlip
from danskin.lipschitz.table import METHODS, Lipschitz, lipschitz

__all__ = [
    "METHODS",
    "Chain",
    "Lipschitz",
    "LipschitzBound",
    "Slopes",
    "chain_of",
    "circular_bound",
    "conv_norm",
    "eclipse_fast",
    "exact_by_regions",
    "gram_bound",
    "lipopt",
    "lipschitz",
    "lipschitz_lower",
    "lipsdp",
    "lipsdp_by_solver",
    "lipsdp_penalty",
    "matrix_norm",
    "product_bound",
    "read",
    "search_lower",
    "seqlip",
    "slopes_everywhere",
]
