"""The adversary is a function: integral probability metrics, and critics that certify distances. LECTURE E4, E5."""

from danskin.critics.ipm import IPM
from danskin.critics.kernels import IMQ, RBF, Energy, Kernel, Laplace, median_distance
from danskin.critics.lipschitz_class import Dudley, FortetMourier, Kantorovich, Potential
from danskin.critics.mmd import MMD, EnergyDistance, gaussian_mmd_squared
from danskin.critics.network_distance import NetworkDistance
from danskin.critics.samples import Samples, samples
from danskin.critics.total_variation import TotalVariation

__all__ = [
    "IMQ",
    "IPM",
    "MMD",
    "RBF",
    "Dudley",
    "Energy",
    "EnergyDistance",
    "FortetMourier",
    "Kantorovich",
    "Kernel",
    "Laplace",
    "NetworkDistance",
    "Potential",
    "Samples",
    "TotalVariation",
    "gaussian_mmd_squared",
    "median_distance",
    "samples",
]
