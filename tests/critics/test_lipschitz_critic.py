"""Critics that are 1-Lipschitz by construction: what they certify of W1."""

import pytest
import torch
from own_samples import eight

from danskin.critics import AdamAscent, NeuralDual, lipschitz_critic
from danskin.errors import InputError
from danskin.testing import check_critic
from danskin.transport import wasserstein


@pytest.mark.parametrize(
    ("critic", "shape"),
    [
        (lipschitz_critic(2, width=16), (2,)),
        (lipschitz_critic(4, width=16, activation="group_sort", linear="bjorck"), (2, 2)),
        (lipschitz_critic(3, width=8, activation="relu", linear="spectral"), (3,)),
        (lipschitz_critic(2, width=8, activation="spline", linear="householder"), (2,)),
    ],
    ids=["abs", "group_sort", "spectral", "spline"],
)
def test_1_lipschitz_critics_certify_no_more_than_w1(critic, shape):
    check_critic(critic, shape)


def test_the_same_seed_makes_the_same_critic_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    one, same, other = (lipschitz_critic(2, width=8, seed=k) for k in (0, 0, 1))
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one(z), same(z)) and not torch.equal(one(z), other(z))
    assert torch.equal(state, torch.get_rng_state())


def test_norm_preserving_activations_reach_most_of_w1_and_relu_does_not():
    x, y = eight(200)
    exact = wasserstein(x, y).bracket.value
    share = {
        name: NeuralDual(lipschitz_critic(2, width=32, activation=name), AdamAscent(250, 1e-2)).lower_bound(x, y)
        / exact
        for name in ("abs", "relu")
    }
    assert 0.9 < share["abs"] <= 1 and share["relu"] < 0.75


@pytest.mark.slow
def test_a_critic_with_abs_certifies_95_percent_of_w1_on_8_gaussians():
    x, y = eight(1024)
    exact = wasserstein(x, y).bracket.value
    assert 0.95 <= NeuralDual(lipschitz_critic(2)).lower_bound(x, y) / exact <= 1


def test_settings_out_of_range_are_refused():
    for match, options in {
        "even one": {"width": 9, "activation": "group_sort"},
        "an activation of": {"activation": "gelu"},
        "lipschitz_critic.width": {"width": 0},
    }.items():
        with pytest.raises(InputError, match=match):
            lipschitz_critic(2, **options)
