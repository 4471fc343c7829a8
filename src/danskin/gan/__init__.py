"""GANs: objectives, constraints of the critic, the one training loop, how samples are judged. Lecture: F1 to F7."""

from danskin.gan.constraint import Constraint, Penalty, Unconstrained, WeightClip
from danskin.gan.constraints import CONSTRAINTS
from danskin.gan.gradients import dual, input_gradients, row_norms, scores
from danskin.gan.layered import Orthogonal, Spectral, Spline
from danskin.gan.loop import GANRun
from danskin.gan.networks import critic_conv, critic_mlp, generator_conv, generator_mlp
from danskin.gan.objectives import (
    GAN_OBJECTIVES,
    Hinge,
    NonSaturating,
    Objective,
    Relativistic,
    Saturating,
    Wasserstein,
)
from danskin.gan.optimizers import Langevin
from danskin.gan.penalties import R1R2, GradientPenalty
from danskin.gan.trainer import GANTrainer

__all__ = [
    "CONSTRAINTS",
    "GAN_OBJECTIVES",
    "R1R2",
    "Constraint",
    "GANRun",
    "GANTrainer",
    "GradientPenalty",
    "Hinge",
    "Langevin",
    "NonSaturating",
    "Objective",
    "Orthogonal",
    "Penalty",
    "Relativistic",
    "Saturating",
    "Spectral",
    "Spline",
    "Unconstrained",
    "Wasserstein",
    "WeightClip",
    "critic_conv",
    "critic_mlp",
    "dual",
    "generator_conv",
    "generator_mlp",
    "input_gradients",
    "row_norms",
    "scores",
]
