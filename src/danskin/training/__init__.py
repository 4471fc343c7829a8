"""Objectives over weights, and the loop that minimises them."""

from danskin.training.awp import AWP
from danskin.training.classes import CFOL, ClassCVaR
from danskin.training.ddi import DDi
from danskin.training.fol import FOL
from danskin.training.free import FreeTraining
from danskin.training.lipschitz_margin import LipschitzMargin
from danskin.training.objective import Found, Losses, Memory, Objective, Step, Wrapper, inner_attack
from danskin.training.objectives import AdversarialTraining, BETATraining, LinearRobustTraining, StandardTraining
from danskin.training.optimizers import SGD, AdamW
from danskin.training.overfitting import OverfittingWatch
from danskin.training.process import Process, SingleProcess
from danskin.training.regularized import Regularized
from danskin.training.schedules import SCHEDULES, Constant, Cosine, OneCycle, Piecewise, Schedule
from danskin.training.sharpness import OPTIMIZERS, Optimizer
from danskin.training.stability import WeightStability
from danskin.training.state import TrainingState
from danskin.training.trades import MART, TRADES
from danskin.training.trainer import Augment, Hooks, Trainer

#: Objectives by the name they have in recipes.
OBJECTIVES: dict[str, type[Objective]] = {
    "standard": StandardTraining,
    "adversarial": AdversarialTraining,
    "free": FreeTraining,
    "trades": TRADES,
    "mart": MART,
    "beta_training": BETATraining,
    "awp": AWP,
    "regularized": Regularized,
    "ddi": DDi,
    "cfol": CFOL,
    "class_cvar": ClassCVaR,
    "fol": FOL,
    "weight_stability": WeightStability,
    "linear_robust": LinearRobustTraining,
    "lipschitz_margin": LipschitzMargin,
}

__all__ = [
    "AWP",
    "CFOL",
    "FOL",
    "MART",
    "OBJECTIVES",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "TRADES",
    "AdamW",
    "AdversarialTraining",
    "Augment",
    "BETATraining",
    "ClassCVaR",
    "Constant",
    "Cosine",
    "DDi",
    "Found",
    "FreeTraining",
    "Hooks",
    "LinearRobustTraining",
    "LipschitzMargin",
    "Losses",
    "Memory",
    "Objective",
    "OneCycle",
    "Optimizer",
    "OverfittingWatch",
    "Piecewise",
    "Process",
    "Regularized",
    "Schedule",
    "SingleProcess",
    "StandardTraining",
    "Step",
    "Trainer",
    "TrainingState",
    "WeightStability",
    "Wrapper",
    "inner_attack",
]
