import time

import pytest
import torch

from danskin.data import batch_indices, crop_flip, draw_crop_flip
from danskin.errors import InputError


def crop_flip_slow(x, dy, dx, flip, padding):
    """The obvious twin: one image after the other."""
    out = torch.empty_like(x)
    n, c, h, w = x.shape
    for i in range(n):
        padded = torch.zeros(c, h + 2 * padding, w + 2 * padding, dtype=x.dtype)
        padded[:, padding : padding + h, padding : padding + w] = x[i]
        image = padded[:, dy[i] : dy[i] + h, dx[i] : dx[i] + w]
        out[i] = image.flip(2) if flip[i] else image
    return out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(40, 3, 32, 32), (9, 1, 5, 7), (1, 2, 4, 3)])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_fast_equals_slow(dtype, shape, padding):
    g = torch.Generator().manual_seed(padding)
    x = torch.randint(0, 256, shape, generator=g).to(dtype)
    draw = draw_crop_flip(shape[0], padding, g)
    out = crop_flip(x, *draw, padding)
    assert out.dtype == dtype and torch.equal(out, crop_flip_slow(x, *draw, padding))


def test_channels_last_input():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(8, 3, 6, 6, generator=g)
    draw = draw_crop_flip(8, 2, g)
    got = crop_flip(x.contiguous(memory_format=torch.channels_last), *draw, 2)
    assert torch.equal(got, crop_flip_slow(x, *draw, 2))


def test_draws_cover_their_range_and_are_seeded():
    dy, dx, flip = draw_crop_flip(4000, 2, torch.Generator().manual_seed(0))
    assert set(dy.tolist()) == set(dx.tolist()) == set(range(5)) and 1800 < int(flip.sum()) < 2200
    assert not torch.equal(dy, dx)
    dy2, dx2, none = draw_crop_flip(4000, 2, torch.Generator().manual_seed(0), flip=False)
    assert torch.equal(dy, dy2) and torch.equal(dx, dx2) and not none.any()


def test_bad_arguments():
    x, zero, no = torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.bool)
    for args, text in (
        ((x[0], zero, zero, no, 1), "expected images"),
        ((x, zero, zero, no, -1), "padding"),
        ((x, zero[:1], zero, no, 1), "dy: expected shape"),
        ((x, zero, zero, zero, 1), "expected bool"),
        ((x, zero, zero + 3, no, 1), "dx: expected 0 to 2, got 3"),
        ((x, zero - 1, zero, no, 1), "dy: expected 0 to 2, got -1"),
    ):
        with pytest.raises(InputError, match=text):
            crop_flip(*args)


def test_fast_enough():
    """A loop over the images takes about 5 ms. One thread, since threads wait for each other on a busy machine."""
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (128, 3, 32, 32), generator=g, dtype=torch.uint8)
    draw = draw_crop_flip(128, 4, g)

    def fastest(f):
        times = []
        for _ in range(50):
            start = time.perf_counter()
            f(x, *draw, 4)
            times.append(time.perf_counter() - start)
        return min(times)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert fastest(crop_flip) < 0.002
    finally:
        torch.set_num_threads(threads)


def test_batches_visit_each_example_once():
    batches = batch_indices(10, 4, seed=0, epoch=0)
    assert [len(b) for b in batches] == [4, 4, 2]
    assert sorted(torch.cat(batches).tolist()) == list(range(10))
    assert [len(b) for b in batch_indices(10, 4, seed=0, epoch=0, drop_last=True)] == [4, 4]
    assert torch.cat(batch_indices(10, 4, seed=0, epoch=3, shuffle=False)).tolist() == list(range(10))


def test_batches_depend_on_seed_and_epoch_only():
    before = torch.get_rng_state()
    orders = {(s, e): tuple(batch_indices(50, 50, seed=s, epoch=e)[0].tolist()) for s in range(4) for e in range(4)}
    assert torch.equal(before, torch.get_rng_state())
    assert len(set(orders.values())) == 16  # (0, 1) is not (1, 0)
    assert orders[2, 3] == tuple(batch_indices(50, 50, seed=2, epoch=3)[0].tolist())
    assert torch.equal(torch.cat(batch_indices(50, 7, seed=2, epoch=3)), torch.tensor(orders[2, 3]))


@pytest.mark.parametrize("bad", [{"n": 0}, {"batch_size": 0}, {"seed": -1}, {"epoch": -1}, {"batch_size": 9}])
def test_batches_refuse(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        batch_indices(**({"n": 8, "batch_size": 4, "seed": 0, "epoch": 0} | bad), drop_last=True)
