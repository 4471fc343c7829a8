"""Every integral probability metric keeps the contract of IPMs, and the suite sees what breaks it."""

import math
from dataclasses import dataclass

import pytest
import torch

from danskin.critics import (
    IMQ,
    MMD,
    RBF,
    Dudley,
    EnergyDistance,
    FortetMourier,
    Kantorovich,
    Laplace,
    NetworkDistance,
    TotalVariation,
)
from danskin.testing import check_ipm


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
