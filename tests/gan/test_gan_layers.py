"""Critics of 1-Lipschitz layers: what they are made of, what they prove, and that they train."""

import pytest
import torch
from torch import nn

from danskin.errors import InputError
from danskin.gan import (
    GANTrainer,
    GradientPenalty,
    Orthogonal,
    Spectral,
    Spline,
    Unconstrained,
    Wasserstein,
    critic_conv,
    critic_mlp,
    generator_conv,
    generator_mlp,
)
from danskin.gan.distances import certified_gap, sample_distance
from danskin.gan.gradients import both_scores, row_norms, scores
from danskin.lipschitz import layers

LAYERED = [Spectral("exact"), Spectral("bound"), Orthogonal(), Orthogonal("cayley", "abs"), Spline(knots=7)]


def data(n, generator=None):
    return torch.randn(n, 2, generator=generator) + torch.tensor([2.0, 0.0])


@pytest.mark.parametrize("constraint", LAYERED, ids=str)
def test_after_training_the_constant_is_at_most_one_and_the_gap_is_proved(constraint):
    torch.manual_seed(0)
    critic = critic_mlp(shape=(2,), constraint=constraint, hidden=(16, 16))
    run = GANTrainer(Wasserstein(), constraint, critic_steps=5, batch_size=64).start(
        generator_mlp(shape=(2,), hidden=(8,)), critic, 2
    )
    for _ in range(8):
        told = run.step(data)
    real, fake = data(200), run.sample(200)
    found = certified_gap(critic, real, fake)
    assert found.lipschitz.value <= 1 + 1e-6 and told["gap"] > 0.1
    assert 0.1 < found.lower_bound <= sample_distance(real, fake)
    slopes = row_norms(torch.autograd.functional.jacobian(lambda x: scores(critic, x), real).diagonal().T)
    assert float(slopes.max()) <= 1 + 1e-5


@pytest.mark.parametrize(("constraint", "kinds"), [
    (Spectral(), ["SpectralLinear", "LeakyReLU"]), (Orthogonal(), ["OrthogonalLinear", "GroupSort"]),
    (Orthogonal("cayley", "abs"), ["OrthogonalLinear", "Abs"]), (Spline(), ["OrthogonalLinear", "LinearSpline"]),
], ids=str)  # fmt: skip
def test_critics_are_made_of_what_the_constraint_says(constraint, kinds):
    made = [type(layer).__name__ for layer in critic_mlp(shape=(2,), constraint=constraint, hidden=(4, 4))]
    assert made == [*kinds, *kinds, kinds[0]]


@pytest.mark.parametrize("constraint", [Spectral("exact"), Spectral("power"), Orthogonal(), Spline(knots=5)], ids=str)
def test_convolutions_too(constraint):
    torch.manual_seed(0)
    critic = critic_conv(shape=(1, 8, 8), constraint=constraint, width=4)
    run = GANTrainer(Wasserstein(), constraint, batch_size=8).start(
        generator_conv(shape=(1, 8, 8), latent=3, width=4), critic, 3
    )
    images = torch.rand(40, 1, 8, 8)
    for _ in range(2):
        run.step(images)
    found = certified_gap(critic, images, run.sample(40))
    assert found.lipschitz.value <= (1.05 if constraint == Spectral("power") else 1 + 1e-6)


def test_critics_of_ones_own_must_be_made_of_such_layers():
    plain = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    for constraint in (Spectral(), Orthogonal(), Spline()):
        with pytest.raises(InputError, match=r"critic\.0: expected layers of danskin\.lipschitz"):
            GANTrainer(Wasserstein(), constraint).start(generator_mlp(shape=(2,)), plain, 2)
    own = nn.Sequential(layers.OrthogonalLinear(2, 4), layers.Abs(), layers.OrthogonalLinear(4, 1))
    GANTrainer(Wasserstein(), Orthogonal()).start(generator_mlp(shape=(2,)), own, 2)


def test_a_gradient_penalty_on_spectrally_normalised_layers_stays_finite():
    """compare_gan issue 9: NaN there."""
    torch.manual_seed(0)
    critic = critic_mlp(shape=(2,), constraint=Spectral(), hidden=(8,))
    with torch.no_grad():
        critic[0].bias.fill_(-1.0)
    trainer = GANTrainer(Wasserstein(), GradientPenalty(10), critic_steps=5)
    run = trainer.start(generator_mlp(shape=(2,)), critic, 2)
    for _ in range(5):
        told = run.step(data)
    run.check_finite(told)


def test_the_variation_of_splines_is_in_the_loss_where_it_has_a_weight():
    critic = critic_mlp(shape=(2,), constraint=Spline(knots=5), hidden=(4,))
    x = torch.randn(3, 2)
    assert Spline(knots=5).penalty(critic, x, x) is None
    found = Spline(knots=5, variation=0.5).penalty(critic, x, x)
    assert found.norms is None and found.value.item() == pytest.approx(0.5 * critic[1].tv2().item())
    assert critic[1].tv2().item() == pytest.approx(4 * 2)  # |x| has one kink of 2
    with pytest.raises(InputError, match="weight >= 0"):
        Spline(variation=-1)


def test_one_pass_for_both_samples_is_two_passes_and_layers_that_may_mix_examples_get_two():
    real, fake = torch.randn(6, 2), torch.randn(6, 2)
    critic = critic_mlp(shape=(2,), constraint=Unconstrained(), hidden=(8,))
    for one, other in zip(both_scores(critic, real, fake), (scores(critic, real), scores(critic, fake)), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    sizes = []

    def watched():
        layer = nn.Linear(2, 1)
        layer.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        return layer

    both_scores(nn.Sequential(watched()), real, fake)
    assert sizes == [12]

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = watched()

        def forward(self, x):
            return self.inner(x - x.mean(0))

    class OwnLinear(nn.Linear):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x - x.mean(0))

    for mixing in (Own(), nn.Sequential(watched(), nn.BatchNorm1d(1)), nn.Sequential(OwnLinear(2, 1))):
        sizes.clear()
        both_scores(mixing, real, fake)
        assert sizes == [6, 6]
