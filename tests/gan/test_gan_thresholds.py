"""Whole trainings as row F2 does them, half a minute each: what reaches the floor does, and what fails fails."""

import pytest
import torch

from danskin.data import load
from danskin.recipes.f2.plan import plan_of
from danskin.run.gan import new_networks
from danskin.run.gan_judging import Judge

pytestmark = pytest.mark.slow


def judged(case, method):
    """Everything that is known of the samples, after training."""
    config = plan_of("F2", "small").configs[case, method]
    data = load(config.data.name)
    networks = new_networks(config, data.image_shape, torch.device("cpu"))
    run = config.trainer.start(*networks, config.latent, config.seed)
    while run.t < config.trainer.steps:
        told = run.step(data.x_train)
    run.check_finite(told)
    return Judge(config.judging, data, config.seed).final(run)


@pytest.mark.parametrize(
    ("case", "method", "most", "modes"),
    [("8 Gaussians", "gp", 0.16, 8), ("8 Gaussians", "r3", 0.1, 8), ("25 Gaussians", "r3", 0.19, 24)],
)
def test_what_works_in_the_plane_comes_near_the_floor_and_covers_the_modes(case, method, most, modes):
    found = judged(case, method)
    assert found["w1_floor"] < found["w1"] < most and found["certified"] <= found["w1"]
    assert found["coverage"]["covered"] >= modes


def test_clipping_as_published_leaves_most_of_the_distance_and_covers_nothing():
    found = judged("8 Gaussians", "clip_published")
    assert found["w1"] > 0.4 and found["coverage"]["covered"] == 0


def test_a_gradient_penalty_keeps_all_digits():
    found = judged("digits", "gp_published")
    assert found["w1"] < 1.8 and found["classes"]["covered"] == 10  # the floor is at 1.39
    assert found["manifold"]["recall"] > 0.5 and not found["copying"]["copied"]


def test_the_vanilla_gan_drops_digits():
    found = judged("digits", "non_saturating")
    assert found["w1"] > 1.9 and found["manifold"]["recall"] < 0.2
