"""Random numbers belong to examples: independent of batch and order, and with the laws they claim."""

import pytest
import torch
from scipy import stats

from danskin.minmax import L1, L2, Linf, Streams

LIKE = torch.zeros(400, 50, dtype=torch.float64)
DRAWS = ("uniform", "exponential", "normal", "sign")


def streams(n=400, seed=0):
    return Streams.of(seed, torch.arange(n))


def p_value(sample, law):
    return stats.kstest(sample.flatten().numpy(), law).pvalue


@pytest.mark.parametrize("name", DRAWS)
def test_a_row_does_not_depend_on_its_batch(name):
    order = torch.randperm(len(LIKE))
    whole = getattr(streams(), name)(LIKE)
    part = getattr(streams().rows(order[:7]), name)(LIKE[:7])
    # the last bits of log and cos depend on where a number stands in a vector register
    assert torch.allclose(part, whole[order[:7]], rtol=1e-14, atol=1e-15)


def test_uniform_bits_do_not_depend_on_the_batch():
    assert torch.equal(streams().rows(torch.tensor([5])).uniform(LIKE[:1])[0], streams().uniform(LIKE)[5])


def test_content_names_examples():
    x = torch.rand(6, 3, 4)
    order = torch.tensor([3, 0, 5])
    assert torch.equal(Streams.of_content(1, x).key[order], Streams.of_content(1, x[order]).key)
    assert torch.equal(Streams.of_content(1, x.double()).key, Streams.of_content(1, x).key)
    assert len(set(Streams.of_content(1, x).key.tolist())) == 6
    assert torch.equal(Streams.of_content(1, -0.0 * x).key, Streams.of_content(1, 0.0 * x).key)


def test_content_sees_one_changed_bit_and_places():
    x = torch.rand(1, 100)
    y = x.clone()
    y[0, 50] = torch.nextafter(y[0, 50], torch.tensor(2.0))
    keys = {int(Streams.of_content(0, z).key) for z in (x, y, x.flip(1))}
    assert len(keys) == 3


# p-values are uniform for a right law: 1e-3 fails once in a thousand seeds, and the seed is fixed
def test_uniform_law():
    assert p_value(streams().uniform(LIKE), "uniform") > 1e-3


def test_exponential_law():
    assert p_value(streams().exponential(LIKE), "expon") > 1e-3


def test_normal_law():
    assert p_value(streams().normal(LIKE), "norm") > 1e-3


def test_signs_are_fair():
    signs = streams().sign(LIKE)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / LIKE.numel() ** 0.5  # four standard deviations


@pytest.mark.parametrize("other", [
    lambda s: s.child(0), lambda s: s.child(1).child(0), lambda s: streams(seed=1), lambda s: s.rows(
        torch.arange(len(LIKE)).roll(1))], ids=["child", "grandchild", "seed", "row"])  # fmt: skip
def test_streams_are_uncorrelated(other):
    a, b = streams().uniform(LIKE).flatten(), other(streams()).uniform(LIKE).flatten()
    correlation = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
    assert abs(correlation) < 4 / LIKE.numel() ** 0.5  # four standard deviations
    assert stats.kstest(((a + b) % 1).numpy(), "uniform").pvalue > 1e-3


def test_children_differ_and_do_not_commute():
    keys = [streams(1).child(i).child(j).key for i in range(20) for j in range(20)]
    assert len({int(k) for k in keys}) == 400


@pytest.mark.parametrize("n", [1, 7, 50])
def test_single_precision_takes_the_halves_of_the_bits(n):
    halves = [(int(b) >> shift) & (2**32 - 1) for b in streams(3).bits(n).flatten() for shift in (0, 32)]
    signed = torch.tensor(halves).view(3, 2 * n)[:, :n].to(torch.int32) >> 9  # 23 of 32 bits
    single = streams(3).uniform(LIKE[:3, :1].float().expand(3, n))
    assert torch.equal(single.double(), (signed.double() + 0.5) * 2.0**-23 + 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_in_a_row_are_uncorrelated_and_uniform(dtype):
    u = streams().uniform(LIKE.to(dtype))
    correlation = float(torch.corrcoef(torch.stack([u[:, 1:].flatten(), u[:, :-1].flatten()]))[0, 1])
    assert abs(correlation) < 4 / LIKE.numel() ** 0.5
    assert p_value(u.double(), "uniform") > 1e-3


class _Extreme(Streams):
    """Streams whose bits are all equal to `key`."""

    def bits(self, n):
        return self.key[:, None].repeat(1, n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_stays_in_the_open_interval(dtype):
    extreme = _Extreme(torch.tensor([0, -1, 2**63 - 1, -(2**63)]))
    u = extreme.uniform(torch.zeros(4, 2, dtype=dtype))
    assert bool(((u > 0) & (u < 1)).all())
    assert bool(extreme.exponential(torch.zeros(4, 2, dtype=dtype)).isfinite().all())
    assert bool(extreme.normal(torch.zeros(4, 2, dtype=dtype)).isfinite().all())


@pytest.mark.parametrize("seed", [-1, 0, 2**63, 2**64 + 5])
def test_any_seed(seed):
    assert Streams.of(seed, torch.arange(3)).uniform(torch.zeros(3, 2)).shape == (3, 2)


@pytest.mark.parametrize("ball", [Linf(2.0), L2(2.0), L1(2.0)], ids=repr)
@pytest.mark.parametrize("d", [1, 3, 12])
def test_ball_samples_are_uniform(ball, d):
    like = torch.zeros(4000, d, dtype=torch.float64)
    sample = ball.sample(like, streams(4000))
    assert p_value((ball.norm(sample) / 2.0) ** d, "uniform") > 1e-3  # P(norm <= r) = (r / radius)^d
    assert float(sample.sign().mean(0).abs().max()) < 4 / 4000**0.5
    # coordinates are exchangeable, and their signs independent
    assert stats.ks_2samp(sample[:, 0].numpy(), sample[:, -1].numpy()).pvalue > 1e-3
    if d > 1:
        assert abs(float((sample[:, 0] * sample[:, 1]).sign().mean())) < 4 / 4000**0.5


@pytest.mark.parametrize("ball", [L2(1.0), L1(1.0)], ids=repr)
def test_direction_of_ball_samples_is_independent_of_the_radius(ball):
    sample = ball.sample(torch.zeros(4000, 3, dtype=torch.float64), streams(4000))
    norm = ball.norm(sample)
    share = sample[:, 0].abs() / norm
    far = norm > norm.median()
    assert stats.ks_2samp(share[far].numpy(), share[~far].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("most", [1, 2, 7, 1000])
def test_integers_are_uniform_with_the_last_value(most):
    streams = Streams.of(5, torch.arange(400))
    drawn = streams.integers(torch.full((400,), most), 50)
    assert drawn.shape == (400, 50) and int(drawn.min()) == 0 and int(drawn.max()) == most - 1
    counts = torch.bincount(drawn.flatten(), minlength=most).double()
    chi2 = float(((counts - 20000 / most) ** 2 / (20000 / most)).sum())
    assert chi2 <= most - 1 + 4 * (2 * max(most - 1, 0)) ** 0.5 + 1e-9
    mixed = streams.integers(torch.arange(1, 401), 200)
    assert (mixed < torch.arange(1, 401)[:, None]).all() and (mixed[:9].amax(1) == torch.arange(9)).all()
