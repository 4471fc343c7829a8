"""Lipschitz constants of networks: certified upper bounds, lower bounds with a witness, and how to read a network.

Everything here is about the l2 norm. Upper bounds are never below the true constant; see `norms`.
"""

from danskin.lipschitz.bound import LipschitzBound
from danskin.lipschitz.lower import lipschitz_lower
from danskin.lipschitz.norms import circular_bound, conv_norm, gram_bound, matrix_norm
from danskin.lipschitz.product import product_bound
from danskin.lipschitz.reading import read

__all__ = [
    "LipschitzBound",
    "circular_bound",
    "conv_norm",
    "gram_bound",
    "lipschitz_lower",
    "matrix_norm",
    "product_bound",
    "read",
]
