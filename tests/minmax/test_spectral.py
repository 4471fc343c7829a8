"""The ball of the spectral norm."""

import math

import pytest
import torch

from danskin.errors import InputError
from danskin.minmax import Spectral
from danskin.testing import check_set


@pytest.mark.parametrize("shape", [(4, 3, 5), (3, 4, 2), (2, 1, 6), (2, 3, 3)])
def test_the_spectral_ball_keeps_the_contract_of_sets(shape):
    check_set(lambda like: Spectral(0.7), shape)


def test_one_radius_for_each_matrix():
    check_set(lambda like: Spectral(torch.tensor([0.5, 1.0, 2.0])), (3, 2, 4))
    y = torch.diag_embed(torch.tensor([[3.0, 0.2], [3.0, 0.2]]))
    got = Spectral(torch.tensor([1.0, 2.0])).project(y)
    assert torch.allclose(got, torch.diag_embed(torch.tensor([[1.0, 0.2], [2.0, 0.2]])))
    assert torch.allclose(Spectral(torch.tensor([1.0, 2.0])).rows(torch.tensor([1])).project(y[1:]), got[1:])


def test_norms_are_those_of_torch():
    y = torch.randn(5, 3, 4, dtype=torch.float64)
    assert torch.allclose(Spectral(1.0).norm(y), torch.linalg.matrix_norm(y, 2))
    assert torch.allclose(Spectral(1.0).dual_norm(y), torch.linalg.matrix_norm(y, "nuc"))


def test_what_is_no_matrix_is_refused():
    with pytest.raises(InputError, match="matrices"):
        Spectral(1.0).project(torch.zeros(2, 3))
    with pytest.raises(InputError, match="radius"):
        Spectral(-1.0)
    assert float(Spectral(1.0).violation(torch.full((1, 2, 2), math.nan))) == math.inf
