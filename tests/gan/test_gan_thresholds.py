"""Whole trainings on eight Gaussians in half a minute each: what reaches the floor does, and what fails fails."""

import pytest
import torch

from danskin.data import SUPPORTS, load
from danskin.gan import (
    R1R2,
    GANTrainer,
    GradientPenalty,
    Relativistic,
    Wasserstein,
    WeightClip,
    critic_mlp,
    generator_mlp,
)
from danskin.gan.distances import certified_gap, sample_distance
from danskin.gan.optimizers import Adam, RMSprop
from danskin.gan.support import mode_coverage

pytestmark = pytest.mark.slow
PUBLISHED, STILL = RMSprop(5e-5), Adam(1e-3, (0.0, 0.9))
TRAINERS = {
    "gp": GANTrainer(Wasserstein(), GradientPenalty(0.1), critic_steps=5, decay="linear"),
    "r3": GANTrainer(Relativistic(), R1R2(0.1), steps=4000, decay="linear", generator_optimizer=STILL,
                     critic_optimizer=STILL),
    "clip": GANTrainer(Wasserstein(), WeightClip(0.01), critic_steps=5, generator_optimizer=PUBLISHED,
                       critic_optimizer=PUBLISHED),
}  # fmt: skip


@pytest.mark.parametrize(("name", "most", "least"), [("gp", 0.16, 0), ("r3", 0.1, 0), ("clip", 9, 0.4)])
def test_eight_gaussians(name, most, least):
    data, support, trainer = load("gaussians_8"), SUPPORTS["gaussians_8"], TRAINERS[name]
    torch.manual_seed(0)
    run = trainer.start(generator_mlp(shape=(2,)), critic_mlp(shape=(2,)), 2)
    while run.t < trainer.steps:
        told = run.step(data.x_train)
    run.check_finite(told)
    real, fake = data.x_test[:2048], run.sample(2048)
    distance, floor = sample_distance(real, fake), sample_distance(real, data.x_test[2048:])
    assert floor < distance and least <= distance < most
    assert certified_gap(run.critic, real, fake).lower_bound <= distance
    covered = mode_coverage(fake, support.points, support.labels, support.sigma)
    assert (covered.covered == 8) == (name != "clip")
