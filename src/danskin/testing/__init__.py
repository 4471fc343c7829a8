"""Conformance suites and oracles for what others write: sets, attacks, layers, constraints, optimisers, solvers, ...

>>> from danskin.minmax import Linf
>>> check_set(lambda like: Linf(0.3))

Everything here raises `AssertionError` with what was expected and what came; nothing needs pytest.
"""

from danskin.testing import models, oracles
from danskin.testing.attacks import ATTACK_CHECKS, check_attack
from danskin.testing.certificates import worst_case
from danskin.testing.constraints import CONSTRAINT_CHECKS, check_constraint
from danskin.testing.critics import CRITIC_CHECKS, check_critic
from danskin.testing.ipms import IPM_CHECKS, check_ipm
from danskin.testing.lipschitz_layers import LIPSCHITZ_LAYER_CHECKS, check_lipschitz_layer
from danskin.testing.optimizers import OPTIMIZER_CHECKS, check_optimizer, check_optimizer_in_processes
from danskin.testing.sets import SET_CHECKS, check_set
from danskin.testing.solvers import SOLVER_CHECKS, check_solver
from danskin.testing.suites import check_suite

__all__ = [
    "ATTACK_CHECKS",
    "CONSTRAINT_CHECKS",
    "CRITIC_CHECKS",
    "IPM_CHECKS",
    "LIPSCHITZ_LAYER_CHECKS",
    "OPTIMIZER_CHECKS",
    "SET_CHECKS",
    "SOLVER_CHECKS",
    "check_attack",
    "check_constraint",
    "check_critic",
    "check_ipm",
    "check_lipschitz_layer",
    "check_optimizer",
    "check_optimizer_in_processes",
    "check_set",
    "check_solver",
    "check_suite",
    "models",
    "oracles",
    "worst_case",
]
