"""Judging samples: exact distances, modes, precision and recall, Fréchet distances, copies; against closed forms and
independent references."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from danskin.data import SUPPORTS, gaussians_8
from danskin.errors import InputError
from danskin.gan.copying import memorization
from danskin.gan.distances import certified_gap, sample_distance
from danskin.gan.frechet import frechet_distance
from danskin.gan.manifold import precision_recall
from danskin.gan.support import mode_coverage


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- distances ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1, 2])
def test_a_translated_sample_is_at_its_translation(q):
    n = 50
    x = normal(n, 3, 2)
    shift = normal(3, 2, seed=1)
    assert sample_distance(x, x + shift, q) == pytest.approx(float(shift.norm()), rel=1e-12)
    assert sample_distance(x, x[torch.randperm(n)], q) == pytest.approx(0, abs=1e-12)


def test_distances_agree_with_sorting_in_one_dimension_and_with_scipy():
    from scipy.stats import wasserstein_distance

    x, y = normal(80, 1), normal(80, 1, seed=1) * 2 + 1
    assert sample_distance(x, y) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-12)
    assert sample_distance(x, y, 2) == pytest.approx(
        float((x.sort(0).values - y.sort(0).values).square().mean().sqrt()), rel=1e-12
    )


def test_samples_that_a_solver_would_call_zero_apart_are_refused():
    x = normal(5, 2)
    for bad in (x[:0], x * math.nan):
        with pytest.raises(InputError):
            sample_distance(bad, bad)
    for bad in (x[:3], x[:, :1]):
        with pytest.raises(InputError, match="of one shape"):
            sample_distance(x, bad)
    with pytest.raises(InputError, match="q"):
        sample_distance(x, x, 0.5)


def test_without_pot_scipy_gives_the_same_number(monkeypatch):
    import sys

    x, y = normal(60, 2), normal(60, 2, seed=1)
    exact = sample_distance(x, y)
    monkeypatch.setitem(sys.modules, "ot", None)
    assert sample_distance(x, y) == pytest.approx(exact, rel=1e-9)


def test_a_certified_gap_is_tight_for_the_best_linear_critic_and_never_above_the_distance():
    x = normal(60, 2)
    z = x + torch.tensor([3.0, 4.0])
    critic = nn.Linear(2, 1).double()
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[-30.0, -40.0]]))
    found = certified_gap(critic, x, z)
    assert found.gap == pytest.approx(250) and found.lipschitz.value == pytest.approx(50)
    assert found.lower_bound == pytest.approx(5, rel=1e-6) and found.lower_bound <= sample_distance(x, z)
    assert certified_gap(critic, z, x).lower_bound == 0  # a critic that is wrong way round proves nothing
    for seed in range(3):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        for other in (z, normal(60, 2, seed=seed) * 2):
            assert certified_gap(net, x.float(), other.float()).lower_bound <= sample_distance(x, other)


def test_a_critic_without_a_certificate_says_which_layer_has_none():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.vector_norm(x.cumsum(1).cos(), dim=1)

    found = certified_gap(Odd(), normal(9, 2), normal(9, 2))
    assert found.lower_bound is None and found.reason


@pytest.mark.parametrize("judge", [
    lambda x, y: certified_gap(nn.Linear(2, 1), x, y), precision_recall, lambda x, y: frechet_distance(x, y, "f"),
    lambda x, y: memorization(x, y, y), lambda x, y: memorization(y, x, y), sample_distance,
], ids=["gap", "manifold", "frechet", "generated", "trained on", "distance"])  # fmt: skip
def test_nothing_is_judged_on_no_examples_NaN_or_two_shapes(judge):
    x = torch.randn(20, 2)
    judge(x, x + 1)
    for bad in (x[:0], x * math.nan, x.clone().index_fill_(0, torch.tensor([3]), math.inf), torch.randn(20, 3)):
        for pair in ((x, bad), (bad, x)):
            with pytest.raises(InputError):
                judge(*pair)


def test_the_critic_is_read_in_eval_mode_and_left_as_found():
    net = nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Linear(3, 1)).train()
    x, z = torch.randn(4, 2), torch.randn(4, 2)
    found = certified_gap(net, x, z)
    calm = nn.Sequential(net[0], net[2])
    assert found.gap == pytest.approx(float((calm(x).mean() - calm(z).mean()).detach()), abs=1e-6)
    assert net.training and net[0].weight.dtype == torch.float32


# --- modes ----------------------------------------------------------------------------------------------


def test_real_samples_cover_all_modes_and_nearly_all_are_of_high_quality():
    support = SUPPORTS["gaussians_8"]
    found = mode_coverage(gaussians_8(4000, seed=3)[0], support.points, support.labels, support.sigma)
    assert found.covered == found.modes == 8 and found.near == 1
    assert found.high_quality == pytest.approx(1 - math.exp(-4.5), abs=0.006)
    assert sum(found.shares) == pytest.approx(1)


def test_modes_count_from_a_fifth_of_their_share_and_only_near_the_support():
    points, labels = torch.tensor([[0.0, 0], [1, 0], [2, 0], [3, 0]]), torch.arange(4)
    samples = torch.cat([
        torch.zeros(80, 2), torch.tensor([[1.0, 0.19]]).repeat(5, 1), torch.tensor([[2.0, 0.0]]).repeat(4, 1),
        torch.tensor([[3.0, 0.21]]).repeat(11, 1),
    ])  # fmt: skip
    found = mode_coverage(samples, points, labels, sigma=0.05)
    assert found.covered == 2 and found.near == pytest.approx(0.89) and found.high_quality == pytest.approx(0.84)
    assert found.shares == pytest.approx((0.8, 0.05, 0.04, 0))
    for bad in (samples[:0], samples * math.nan, samples[:, :1]):
        with pytest.raises(InputError, match="mode_coverage"):
            mode_coverage(bad, points, labels, 0.05)


# --- precision and recall -------------------------------------------------------------------------------


def test_precision_recall_density_and_coverage_are_those_of_prdc():
    prdc = pytest.importorskip("prdc")
    real, fake = normal(230, 6), normal(190, 6, seed=1) * 0.8 + 0.4
    for k in (1, 3, 5):
        theirs = prdc.compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
        ours = precision_recall(real, fake, k, chunk=64)
        for name, value in ours._asdict().items():
            assert value == pytest.approx(theirs[name], abs=1e-12), name


def test_precision_and_recall_tell_dropped_modes_from_implausible_samples():
    real = torch.cat([normal(100, 2), normal(100, 2, seed=1) + 30])
    one_mode = precision_recall(real, normal(200, 2, seed=2))
    spread = precision_recall(real, torch.cat([real, normal(200, 2, seed=3) * 5 + 100]))
    assert one_mode.precision > 0.9 and one_mode.recall < 0.6 and one_mode.coverage < 0.6
    assert spread.precision == pytest.approx(0.5, abs=0.05) and spread.recall > 0.9
    collapsed = precision_recall(real, torch.zeros(50, 2, dtype=torch.float64))
    assert collapsed.recall == 0


def test_too_few_examples_for_a_neighbour_are_refused():
    for real, fake, k in ((normal(5, 2), normal(9, 2), 5), (normal(9, 2), normal(9, 2), 0)):
        with pytest.raises(InputError, match="neighbour"):
            precision_recall(real, fake, k)
    with pytest.raises(InputError, match="two shapes"):
        precision_recall(normal(9, 2), normal(9, 3))


# --- Fréchet distance -----------------------------------------------------------------------------------


def test_frechet_distances_agree_with_scipys_matrix_root():
    from scipy.linalg import sqrtm

    x, y = normal(200, 8) @ normal(8, 8, seed=7), normal(300, 8, seed=1) @ normal(8, 8, seed=8) + 1
    a, b = np.cov(x.numpy().T), np.cov(y.numpy().T)
    mean = x.mean(0) - y.mean(0)
    theirs = float(mean @ mean) + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real
    found = frechet_distance(x, y, "numbers")
    assert found.value == pytest.approx(theirs, rel=1e-9)
    assert "on numbers" in str(found) and "not FID" in str(found)


def test_frechet_distances_agree_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Flat(nn.Module):
        num_features = 12

        def forward(self, x):
            return x.flatten(1)[:, :12].double()

    x, y = torch.rand(200, 3, 2, 2), torch.rand(150, 3, 2, 2) * 0.8
    metric = fid.FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 2, 2))
    metric.set_dtype(torch.float64)
    metric.update(x, real=True)
    metric.update(y, real=False)
    ours = frechet_distance(Flat()(x), Flat()(y), "pixels")
    assert ours.value == pytest.approx(float(metric.compute()), rel=1e-6)


def test_frechet_distances_have_their_closed_forms():
    x = normal(500, 5)
    assert frechet_distance(x, x, "f").value == 0 and frechet_distance(x, x[torch.randperm(500)], "f").value == 0
    assert frechet_distance(x, x + 2, "f").value == pytest.approx(20)
    doubled = frechet_distance(x - x.mean(0), 2 * (x - x.mean(0)), "f").value
    assert doubled == pytest.approx(float(x.T.cov().trace()))
    coarse, rough = x.float(), 2 * x.float() + 1  # features in float32 are taken in float64
    assert frechet_distance(coarse, rough, "f") == frechet_distance(coarse.double(), rough.double(), "f")
    collapsed = frechet_distance(x, torch.ones(9, 5), "f").value  # a root of a singular product is real and finite
    assert collapsed == pytest.approx(float((x.mean(0) - 1).square().sum() + x.T.cov().trace()))


def test_fewer_examples_than_dimensions_are_refused_or_said():
    x, y = normal(8, 8), normal(50, 8, seed=1)
    with pytest.raises(InputError, match="more examples than the 8 dimensions"):
        frechet_distance(x, y, "f")
    ridged = frechet_distance(x, y, "f", ridge=1e-3)
    assert ridged.ridge == 1e-3 and "ridge 0.001" in str(ridged) and math.isfinite(ridged.value)
    for bad in (normal(1, 8), normal(50, 7), normal(50, 8) * math.nan):
        with pytest.raises(InputError, match="frechet_distance"):
            frechet_distance(bad, y, "f", ridge=1e-3 if len(bad) == 1 else 0)


# --- copies ---------------------------------------------------------------------------------------------


def test_copies_are_told_from_fresh_samples_and_from_poor_ones():
    train, test = normal(300, 4), normal(200, 4, seed=1)
    fresh = memorization(normal(200, 4, seed=2), train, test)
    assert not fresh.copied and abs(fresh.closer - 0.5) < 0.1 and fresh.copies == 0
    copied = memorization(train[:150], train, test)
    assert copied.copied and copied.copies == 1 and copied.closer == 1
    near = memorization(train[:150] + 0.01 * normal(150, 4, seed=3), train, test)
    assert near.copied and near.copies == 0 and near.z > 10
    far = memorization(normal(200, 4, seed=4) * 5, train, test)
    assert not far.copied and far.closer < 0.1


@pytest.mark.parametrize("far", [0, 1000])
def test_nearest_examples_are_those_of_all_differences_and_copies_are_at_distance_0(far):
    train, fresh = normal(400, 100).float().abs() + far, normal(50, 100, seed=1).float().abs() + far
    x = torch.cat([train[:30], train[30:60] + 0.01, fresh])
    found = memorization(x, train, fresh)
    exact = (x[:, None] - train).norm(dim=2).amin(1)
    assert found.copies == pytest.approx(30 / 110) and found.generated == pytest.approx(float(exact.median()), rel=1e-3)
    assert found.held_out == pytest.approx(float(exact[60:].median()), rel=1e-5)


def test_the_statistic_is_that_of_mann_and_whitney():
    from scipy.stats import mannwhitneyu

    train, test, fake = normal(50, 2), normal(40, 2, seed=1), normal(30, 2, seed=2)
    ours, theirs = (torch.cdist(t, train).amin(1).numpy() for t in (fake, test))
    u = mannwhitneyu(theirs, ours).statistic
    assert memorization(fake, train, test, chunk=7).closer == pytest.approx(u / (30 * 40), abs=1e-12)
    with pytest.raises(InputError, match="three samples"):
        memorization(fake[:0], train, test)
