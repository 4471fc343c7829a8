"""Values on a quadratic that were worked out by hand."""

import pytest
import torch

from danskin.regularizers.elle import interpolation_error
from danskin.regularizers.gradalign import misalignment

H = torch.tensor([[2, 0.5], [0.5, 1]], dtype=torch.float64)
G = torch.tensor([0.3, -0.7], dtype=torch.float64)
A = torch.tensor([[0.2, -0.1]], dtype=torch.float64)
B = torch.tensor([[-0.4, 0.5]], dtype=torch.float64)


def value(at):
    return ((at @ H) * at).sum(1) / 2 + at @ G


def slope(at):
    return at @ H + G


def test_the_interpolation_error():
    t = torch.tensor([0.3], dtype=torch.float64)
    e = interpolation_error(value(A), value(B), value(0.7 * A + 0.3 * B), t)
    assert e.item() == pytest.approx(-0.0756, abs=1e-12)


def test_the_misalignment():
    assert misalignment(slope(A), slope(B)).item() == pytest.approx(0.7392307, abs=5e-8)
