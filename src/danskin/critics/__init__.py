"""The adversary is a function: integral probability metrics, and critics that certify distances. LECTURE E4, E5."""

from danskin.critics.certified import DualBound, certified
from danskin.critics.distances import CRITICS
from danskin.critics.dual import FittedDual, NeuralDual
from danskin.critics.fitting import AdamAscent, gradient_penalty
from danskin.critics.ipm import IPM
from danskin.critics.kernels import IMQ, RBF, Energy, Kernel, Laplace, median_distance
from danskin.critics.lipschitz_class import Dudley, FortetMourier, Kantorovich, Potential
from danskin.critics.mmd import MMD, EnergyDistance, gaussian_mmd_squared
from danskin.critics.network_distance import NetworkDistance
from danskin.critics.networks import lipschitz_critic
from danskin.critics.population import PopulationBound, population_bound
from danskin.critics.samples import Samples, samples
from danskin.critics.total_variation import TotalVariation

__all__ = [
    "CRITICS",
    "IMQ",
    "IPM",
    "MMD",
    "RBF",
    "AdamAscent",
    "DualBound",
    "Dudley",
    "Energy",
    "EnergyDistance",
    "FittedDual",
    "FortetMourier",
    "Kantorovich",
    "Kernel",
    "Laplace",
    "NetworkDistance",
    "NeuralDual",
    "PopulationBound",
    "Potential",
    "Samples",
    "TotalVariation",
    "certified",
    "gaussian_mmd_squared",
    "gradient_penalty",
    "lipschitz_critic",
    "median_distance",
    "population_bound",
    "samples",
]
