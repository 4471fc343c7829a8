"""Densities for generators: their samples lie around their supports, equally in all modes."""

import pytest
import torch

import danskin.data
from danskin.data import DATASETS, SUPPORTS, load


@pytest.mark.parametrize("name", SUPPORTS)
def test_densities_lie_around_their_supports(name):
    data, support = load(name), SUPPORTS[name]
    assert (len(data.x_train), len(data.x_test)) == (20_000, 4096)
    assert data.sha256 == load(name).sha256 and data.image_shape == DATASETS[name].shape
    draw = getattr(danskin.data, name)
    assert not torch.equal(draw(50, seed=1)[0], draw(50, seed=2)[0])
    distance, nearest = torch.cdist(data.x_test, support.points).min(1)
    assert 0.98 < float((distance <= 3 * support.sigma).float().mean())  # 98.9 % of a Gaussian in the plane
    if name != "swiss_roll":  # around points: Rayleigh's median
        assert float(distance.median()) == pytest.approx(support.sigma * 1.1774, rel=0.05)
        assert float((support.labels[nearest] == data.y_test).float().mean()) == 1
    modes = len(data.classes)
    shares = data.y_train.bincount(minlength=modes) * modes / len(data.y_train)
    assert 0.8 < float(shares.min()) and float(shares.max()) < 1.2  # independent draws: not exactly even
    assert int(support.labels.max()) + 1 == modes


def test_the_eight_lie_on_their_circle_and_the_25_on_their_grid():
    ring, grid = SUPPORTS["gaussians_8"].points, SUPPORTS["gaussians_25"].points
    assert torch.allclose(ring.norm(dim=1), torch.full((8,), 2**0.5))
    assert float(torch.cdist(grid, grid).fill_diagonal_(9).min()) == pytest.approx(0.5**0.5, rel=1e-5)
    assert torch.allclose(grid.mean(0), torch.zeros(2), atol=1e-6)
