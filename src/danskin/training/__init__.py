"""Objectives over weights, and the loop that minimises them."""

from danskin.training.objectives import (
    AdversarialTraining,
    LinearRobustTraining,
    Objective,
    StandardTraining,
    inner_attack,
)
from danskin.training.optimizers import OPTIMIZERS, SGD, AdamW, Optimizer
from danskin.training.overfitting import OverfittingWatch
from danskin.training.process import Process, SingleProcess
from danskin.training.schedules import SCHEDULES, Constant, Cosine, OneCycle, Piecewise, Schedule
from danskin.training.state import TrainingState
from danskin.training.trainer import Augment, Hooks, Trainer

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "AdamW",
    "AdversarialTraining",
    "Augment",
    "Constant",
    "Cosine",
    "Hooks",
    "LinearRobustTraining",
    "Objective",
    "OneCycle",
    "Optimizer",
    "OverfittingWatch",
    "Piecewise",
    "Process",
    "Schedule",
    "SingleProcess",
    "StandardTraining",
    "Trainer",
    "TrainingState",
    "inner_attack",
]
