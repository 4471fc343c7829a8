"""Rates of W_1: the exact formula on the line, the circle against linear programmes, slopes of theory."""

import math

import numpy as np
import pytest
import torch

from danskin.errors import InputError
from danskin.transport.rates import (
    circle_distance,
    expected_line_distance,
    fitted_slope,
    theory,
    torus_costs,
    uniform_distance,
)

ot = pytest.importorskip("ot")


def test_the_exact_mean_on_the_line_is_that_of_draws_and_has_its_limit():
    draw = np.random.default_rng(0)
    for n in (1, 2, 17):
        x = np.sort(draw.random((20_000, n)), 1)
        grid = (np.arange(2000) + 0.5) / 2000
        share = np.stack([np.searchsorted(row, grid, side="right") for row in x[:4000]]) / n
        assert expected_line_distance(n) == pytest.approx(np.abs(share - grid).mean(), rel=0.02)
    assert expected_line_distance(1) == pytest.approx(1 / 3, rel=1e-12)
    limit = math.sqrt(2 / math.pi) * math.pi / 8
    assert expected_line_distance(4000) * 4000**0.5 == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_the_circle_is_the_linear_programme_with_the_short_way_round(n):
    draw = np.random.default_rng(n)
    x, y = draw.random(n), draw.random(n + 3)
    cost = torus_costs(torch.from_numpy(x[:, None]), torch.from_numpy(y[:, None]))
    assert circle_distance(x, y) == pytest.approx(ot.emd2([], [], cost.numpy()), rel=1e-10, abs=1e-14)
    assert circle_distance(x, (x + 0.01) % 1) == pytest.approx(0.01, rel=1e-9)


def test_the_torus_goes_the_short_way_round():
    x, y = torch.tensor([[0.05, 0.5]]).double(), torch.tensor([[0.95, 0.5]]).double()
    assert float(torus_costs(x, y)) == pytest.approx(0.1)


def test_slopes_of_theory_are_minus_one_over_p_from_three_on_only():
    sizes = [64, 128, 256, 512, 1024]
    slopes = {p: fitted_slope(sizes, [theory(p, n) for n in sizes]) for p in range(1, 7)}
    assert slopes[1] == pytest.approx(-0.5) and slopes[4] == pytest.approx(-0.25) and slopes[6] == pytest.approx(-1 / 6)
    local = -0.5 + 1 / (2 * math.log(256))  # d log / d log n of (log n / n)^(1/2) in the middle
    assert slopes[2] == pytest.approx(local, abs=0.003)


def test_slopes_of_samples_are_those_of_theory():
    g, sizes = torch.Generator().manual_seed(0), [32, 64, 128, 256]
    for p, work in ((1, 400), (3, 12), (6, 4)):
        means = [np.mean([uniform_distance("torus", p, n, g) for _ in range(work)]) for n in sizes]
        assert fitted_slope(sizes, means) == pytest.approx(theory_slope(p, sizes), abs=0.04)
    assert uniform_distance("cube", 1, 10**5, g) < 0.01


def theory_slope(p, sizes):
    return fitted_slope(sizes, [theory(p, n) for n in sizes])


def test_bad_input_is_refused():
    g = torch.Generator()
    for call in (
        lambda: uniform_distance("sphere", 2, 10, g), lambda: uniform_distance("cube", 0, 10, g),
        lambda: fitted_slope([4, 4], [1.0, 2.0]), lambda: fitted_slope([4, 8], [0.0, 2.0]),
        lambda: theory(0, 5), lambda: expected_line_distance(0),
    ):  # fmt: skip
        with pytest.raises(InputError):
            call()
