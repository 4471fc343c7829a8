"""Shares and their Wilson intervals against scipy and known values."""

import math

import pytest
import torch
from scipy.stats import binomtest

from danskin.errors import InputError
from danskin.metrics import Share, wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 100), (100, 100), (37, 100), (1, 360), (4712, 10_000)])
def test_wilson_is_scipys(hits, n):
    low, high = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-7)


def test_wilson_by_hand():
    # z = 2, 5 of 10: center 1/2, half = 2 / 1.4 * sqrt(0.025 + 0.01)
    half = 2 / 1.4 * math.sqrt(0.035)
    assert wilson(5, 10, z=2.0) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-15)


def test_wilson_ends_are_exact():
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (-1, 4), (5, 4)])
def test_wilson_refuses_impossible_counts(hits, n):
    with pytest.raises(InputError, match=r"wilson: expected 0 <= hits <= n with n >= 1, got"):
        wilson(hits, n)


def test_shares_of_disjoint_examples_add_up():
    correct = torch.rand(103) < 0.6
    parts = [Share.of(part) for part in correct.split(10)]
    assert sum(parts, Share(0, 0)) == Share.of(correct) == Share(int(correct.sum()), 103)


def test_mean_of_unequal_parts_is_not_the_share():
    assert (Share(1, 1) + Share(0, 3)).value == 0.25


def test_share_of_none_is_nan():
    assert math.isnan(Share(0, 0).value)


def test_share_says_hits_and_interval():
    assert str(Share(37, 100)) == "37.00 % (37/100, 95 % 28.2-46.8)"
