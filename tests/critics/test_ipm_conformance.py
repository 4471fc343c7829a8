"""Every integral probability metric keeps the contract of IPMs, and the suite sees what breaks it."""

import math
from dataclasses import dataclass

import pytest
import torch

from danskin.critics import (
    IMQ,
    MMD,
    RBF,
    AdamAscent,
    Dudley,
    EnergyDistance,
    FortetMourier,
    Kantorovich,
    Laplace,
    NetworkDistance,
    NeuralDual,
    TotalVariation,
    lipschitz_critic,
)
from danskin.testing import IPM_CHECKS, check_ipm


@pytest.mark.parametrize(
    "distance",
    [
        MMD(RBF(0.8)), MMD(Laplace(0.8)), MMD(IMQ(0.8)), EnergyDistance(), TotalVariation(), TotalVariation(0.7),
        Kantorovich(), Kantorovich(1), Kantorovich(math.inf), FortetMourier(), Dudley(),
    ],
    ids=repr,
)  # fmt: skip
def test_closed_forms_and_programmes_keep_the_contract(distance):
    check_ipm(distance)


@pytest.mark.parametrize("activation", ["relu", "abs", "tanh"])
def test_the_network_distance_keeps_the_contract(activation):
    check_ipm(NetworkDistance(1, activation, steps=40, restarts=12), dims=(1,), n=6, tolerance=0.02)


def test_a_neural_dual_keeps_what_does_not_rest_on_training():
    """Its lower end is what one run of training found: another order of the samples is another run."""
    other_runs = [name for name in IPM_CHECKS if name.startswith("the_order")] + ["weights_are_repetitions"]
    dual = NeuralDual(lipschitz_critic(2, width=4, depth=1), AdamAscent(5), upper="exact")
    check_ipm(dual, dims=(2,), n=6, tolerance=1e-6, skip=other_runs)


def test_arrays_of_numpy_and_points_of_the_line_are_samples_of_every_distance():
    x, y = torch.randn(7, dtype=torch.float64), torch.randn(5, dtype=torch.float64) + 1
    line = NeuralDual(lipschitz_critic(1, width=4), AdamAscent(3))
    for distance in (MMD(), TotalVariation(), Dudley(), NetworkDistance(1, steps=3), line):
        wanted = distance.lower_bound(x[:, None], y[:, None])
        assert distance.lower_bound(x, y) == distance.lower_bound(x.numpy(), y.numpy()) == wanted


def broken(**methods):
    return dataclass(frozen=True)(type("Mistaken", (Kantorovich,), methods))()


@pytest.mark.parametrize(
    ("methods", "match"),
    [
        ({"value": lambda self, x, y, a=None, b=None: -Kantorovich().value(x, y, a, b)}, "0 <= value"),
        ({"value": lambda self, x, y, a=None, b=None: Kantorovich().value(x, y, a, b) + 0.1}, "equal samples"),
        ({"value": lambda self, x, y, a=None, b=None: Kantorovich().value(x, y)}, "weights"),
        ({"value": lambda self, x, y, a=None, b=None: Kantorovich().value(x, y, a, b).float()}, "float64 scalar"),
        (
            {"value": lambda self, x, y, a=None, b=None: Kantorovich().value(x, y, a, b).square()},
            "lower_bound: expected",
        ),
        ({"lower_bound": lambda self, x, y, a=None, b=None: 1.1 * float(Kantorovich().value(x, y, a, b))}, "in .0, "),
        ({"witness": lambda self, x, y, a=None, b=None: lambda z: z.sum(1)}, "to earn"),
        (
            {"value": lambda self, x, y, a=None, b=None: Kantorovich().value(x, y + 1e-3 * torch.rand(1), a, b)},
            "expected",
        ),
        (
            {"value": lambda self, x, y, a=None, b=None: Kantorovich().value(torch.nan_to_num(x), y, a, b)},
            "InputError for NaN",
        ),
    ],
)
def test_the_suite_sees_a_distance_that_breaks_it(methods, match):
    with pytest.raises(AssertionError, match=match):
        check_ipm(broken(**methods))
