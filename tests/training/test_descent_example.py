"""The lecture's synthetic problem: what examples/descent_direction.py shows."""

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "examples" / "descent_direction.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("descent_direction", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kink(example):
    return example.summary((1.0, 0.0))


@pytest.fixture(scope="module")
def off(example):
    return example.summary((1.0, 0.37))


def at(values, *steps):
    return [values[:, t].mean().item() for t in steps]


def point(*x):
    return torch.tensor(x, dtype=torch.float64)


def test_f_is_the_maximum_over_a_grid(example):
    ys = torch.linspace(0, 1, 101, dtype=torch.float64)
    for _ in range(20):
        x = torch.randn(2, dtype=torch.float64)
        assert example.f(x).item() == pytest.approx(example.phi(x, ys).max().item(), abs=1e-12)


def test_one_gradient_climbs_and_the_shortest_vector_descends(example):
    x = point(1.0, 0.0)
    hull = example.exact(x)
    assert sorted(hull.generators.tolist()) == [[2, -2], [2, 2]]
    assert hull.shortest().tolist() == pytest.approx([2, 0], abs=1e-12)
    assert float(hull.directional_derivative(hull.descent_direction())) == pytest.approx(-2)
    for g in hull.generators:
        d = -g / g.norm()
        assert float(hull.directional_derivative(d)) == pytest.approx(0, abs=1e-12)
        for t in (0.01, 0.1, 1.0):
            assert example.f(x + t * d).item() == pytest.approx(2 + t * t)


def test_the_exact_trace(example):
    x, trace = point(1.0, 0.0), []
    for _ in range(11):
        trace.append(example.f(x).item())
        x = x + example.LENGTH * example.exact(x).descent_direction()
    assert trace == pytest.approx([2, 1.81, 1.64, 1.49, 1.36, 1.25, 1.16, 1.09, 1.04, 1.01, 1], abs=1e-9)


def test_on_the_kink(example, kink):
    """20 runs of the reference: 2.010/1.355/1.153/1.231, 24 of 49 steps up; DDi 1.810/1.000/1.000/1.000, none."""
    one, ddi, active = (kink[name][0] for name in ("one maximiser", "DDi", "DDi, active"))
    assert at(one, 1) == pytest.approx([2.01]) and at(ddi, 1) == at(active, 1) == pytest.approx([1.81])
    assert at(one, 10, 20, 49) == pytest.approx([1.355, 1.153, 1.231], abs=0.08)
    assert at(ddi, 10, 20, 49) == pytest.approx([1, 1, 1], abs=0.03)
    assert at(active, 10, 20, 49) == pytest.approx([1, 1, 1], abs=1e-9)
    assert example.increases(one) == pytest.approx(24, abs=2)
    assert example.increases(ddi) < 2 and example.increases(active) == 0


def test_off_the_kink(example, off):
    """There one y is the only maximiser. Reference: 1.09 against 1.21 in the end, 19 and 22 steps up."""
    one, ddi, active = (off[name][0] for name in ("one maximiser", "DDi", "DDi, active"))
    assert at(one, 1) == at(ddi, 1) == at(active, 1)
    assert [*at(one, 49), *at(ddi, 49)] == pytest.approx([1.21, 1.09], abs=0.04)
    assert [example.increases(one), example.increases(ddi)] == pytest.approx([22, 19], abs=2)
    assert at(active, 10)[0] < at(ddi, 10)[0] - 0.08 < at(one, 10)[0] - 0.16


def test_ascent_goes_to_the_corner_on_its_side(example):
    x = point(1.0, 0.0).expand(3, 2)
    ends = example.ascents(x, 200, 0)
    assert ((ends == 0) | (ends == 1)).all()
    assert ends.mean().item() == pytest.approx(0.5, abs=0.1)
