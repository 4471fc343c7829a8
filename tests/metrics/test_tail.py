"""The mean of the worst, and intervals over seeds."""

import math

import pytest
import torch

from danskin.errors import InputError
from danskin.metrics.tail import bootstrap, cvar


def test_cvar_is_the_mean_of_the_worst_share_and_the_maximum_of_its_variational_form():
    values = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(cvar(values, 0.2), values.sort(-1).values[:, :2].mean(-1))
    torch.testing.assert_close(cvar(values, 1.0), values.mean(-1))
    for share in (0.05, 0.2, 0.35, 0.73, 1.0):
        thresholds = values[..., None]
        short = (thresholds - values[:, None, :]).clamp(min=0).sum(-1)
        best = (values - short / (10 * share)).amax(-1)
        torch.testing.assert_close(cvar(values, share), best)


@pytest.mark.parametrize("share", [0.0, 1.1, -0.2])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(InputError, match=r"\(0, 1\]"):
        cvar(torch.ones(3), share)
    with pytest.raises(InputError, match="0 values"):
        cvar(torch.ones(0))


def test_the_bootstrap_of_a_mean_has_the_width_that_the_central_limit_gives():
    values = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = bootstrap(lambda v: v.mean(-1), values)
    half = 1.96 * float(values.std(correction=0)) / math.sqrt(200)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert (high + low) / 2 == pytest.approx(float(values.mean()), abs=0.1 * half)
    assert bootstrap(lambda v: v.mean(-1), values) == (low, high)


def test_rows_stay_whole_so_that_pairs_stay_pairs():
    seeds = torch.randn(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    both = torch.stack([seeds, seeds + 1], -1)
    low, high = bootstrap(lambda v: (v[..., 1] - v[..., 0]).mean(-1), both)
    assert low == pytest.approx(1) and high == pytest.approx(1)


def test_one_seed_has_no_interval():
    with pytest.raises(InputError, match="one seed tells nothing"):
        bootstrap(lambda v: v.mean(-1), torch.ones(1))
