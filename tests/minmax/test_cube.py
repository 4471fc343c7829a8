"""The cube around inputs is the intersection around 0, moved."""

import pytest
import torch

from danskin.minmax import Box, Cube, Intersection, Linf, Streams

BOX = (0.0, 1.0)


def pair(radius, box):
    """A cube, the set of its shifts, and the centre."""
    x = torch.rand(6, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ball = Linf(radius)
    shifts = ball if box is None else Intersection(ball, Box(box[0] - x, box[1] - x))
    return Cube(x, ball, box), shifts, x


@pytest.mark.parametrize("box", [None, BOX], ids=str)
@pytest.mark.parametrize("radius", [0.0, "8/255", 0.7, torch.linspace(0, 0.5, 6)], ids=str)
def test_moved_by_its_centre_it_is_ball_and_box(radius, box):
    cube, shifts, x = pair(radius, box)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    v[:, 0] = 0
    streams, close = Streams.of(0, torch.arange(6)), {"rtol": 0, "atol": 1e-12}
    assert torch.allclose(cube.project(x + v), x + shifts.project(v), **close)
    assert torch.allclose(cube.lmo(v), x + shifts.lmo(v), **close)
    assert torch.equal(cube.steepest(v), shifts.steepest(v))
    assert torch.allclose(cube.sample(x, streams), x + shifts.sample(x, streams), **close)
    assert torch.allclose(cube.violation(x + v), shifts.violation(v), **close)
    some = torch.tensor([4, 1])
    assert torch.equal(cube.rows(some).project((x + v)[some]), cube.project(x + v)[some])


def test_a_centre_outside_the_box_by_rounding_is_moved_inside():
    x = torch.tensor([[-1e-7, 1 + 2e-7]])
    for radius in (0.0, 0.1):
        cube = Cube(x, Linf(radius), BOX)
        assert torch.equal(cube.project(x), x.clamp(*BOX))


@pytest.mark.parametrize("box", [None, BOX], ids=str)
@pytest.mark.parametrize("radius", [0.0, "8/255", torch.linspace(0, 0.5, 64)], ids=str)
def test_projection_in_place_is_the_same_to_rounding_and_never_beyond_the_bounds(radius, box):
    draw = torch.Generator().manual_seed(3)
    x = torch.rand(64, 50, generator=draw)
    y = x + torch.randn(x.shape, generator=draw)
    cube = Cube(x, Linf(radius), box)
    low, high = cube.bounds(x)
    there = y.clone()
    assert cube.project_(there) is there
    assert torch.allclose(there, cube.project(y), rtol=0, atol=1e-7)
    assert bool((there >= low).all()) and bool((there <= high).all())
