"""Distances between and losses of several perturbations of one example."""

import itertools
import math

import pytest
import torch

from danskin.errors import InputError
from danskin.metrics.uniqueness import Uniqueness, diameter, pairwise_distances
from danskin.minmax import L1, L2, Linf


def test_distances_against_a_loop():
    deltas = torch.randn(5, 3, 2, 4, 4)
    found = pairwise_distances(deltas)
    assert found.shape == (3, 10)
    for i in range(3):
        loop = [float((deltas[r, i] - deltas[s, i]).norm()) for r, s in itertools.combinations(range(5), 2)]
        torch.testing.assert_close(found[i], torch.tensor(loop))


def test_close_perturbations_keep_their_digits():
    base = 100 * torch.ones(2, 1, 50, dtype=torch.float64)
    base[1, 0, 0] += 1e-6
    assert pairwise_distances(base).item() == pytest.approx(float(base[1, 0, 0] - base[0, 0, 0]), rel=1e-4)
    assert pairwise_distances(base[[0, 0]]).item() == 0


def test_the_diameter_is_attained():
    corner = Linf(0.2).lmo(torch.randn(1, 64, dtype=torch.float64))
    assert diameter(Linf("1/5"), 64) == pytest.approx(pairwise_distances(torch.stack([corner, -corner])).item())
    assert diameter(L2(torch.tensor([0.25, 0.5])), 9) == 1.0
    assert diameter(L1(3), 9) == 6 and diameter(Linf(1), 9) == pytest.approx(2 * math.sqrt(9))


def test_spread_gain_and_coincidence():
    deltas = torch.tensor([[[0.0], [1.0]], [[0.0], [3.0]], [[0.5], [1.0]]])
    found = Uniqueness.of(deltas, torch.tensor([[1.0, 2], [4, 2], [1, 5]]), torch.tensor([0.5, 1.0]))
    assert found.spread.tolist() == [3, 3] and found.gain.tolist() == [1.5, 2.0]
    assert found.coinciding(0) == pytest.approx(2 / 6) and found.coinciding(0.5) == pytest.approx(4 / 6)
    with pytest.raises(InputError, match="one loss per run"):
        Uniqueness.of(deltas, torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(InputError, match="at least two runs"):
        pairwise_distances(deltas[:1])
