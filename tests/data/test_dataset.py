import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from danskin.data import DATASETS, Dataset, load, to_float
from danskin.errors import InputError


def make(n=10, m=4, name="own"):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n + m, 1, 8, 8), generator=g, dtype=torch.uint8)
    y = torch.arange(n + m) % 3
    return Dataset(name, x[:n], y[:n], x[n:], y[n:], ("a", "b", "c"))


def test_digest_is_over_the_bytes_of_the_four_arrays():
    data = make()
    parts = (data.x_train, data.y_train, data.x_test, data.y_test)
    assert data.sha256 == hashlib.sha256(b"".join(t.numpy().tobytes() for t in parts)).hexdigest()
    assert data.sha256 != data.limit(train=9).sha256
    assert data.sha256_test == data.limit(train=9).sha256_test != data.limit(test=3).sha256_test


def test_limit_takes_the_first():
    data = make().limit(train=3, test=2)
    assert torch.equal(data.x_train, make().x_train[:3]) and torch.equal(data.y_test, make().y_test[:2])
    assert len(make().limit(train=99).y_train) == 10 and len(make().limit().y_test) == 4
    with pytest.raises(InputError, match="expected at least 1, got 0"):
        make().limit(train=0)


def test_split_holds_out_a_seeded_part():
    data = make()
    rest, x_val, y_val = data.split(4, seed=1)
    assert len(rest.y_train) == 6 and len(y_val) == 4 and torch.equal(rest.x_test, data.x_test)
    rows = torch.cat([rest.x_train, x_val]).flatten(1).tolist()
    assert sorted(rows) == sorted(data.x_train.flatten(1).tolist())
    where = {tuple(r): int(k) for r, k in zip(data.x_train.flatten(1).tolist(), data.y_train, strict=True)}
    assert [where[tuple(r)] for r in x_val.flatten(1).tolist()] == y_val.tolist()
    again = data.split(4, seed=1)
    assert torch.equal(again[1], x_val) and not torch.equal(data.split(4, seed=2)[1], x_val)


@pytest.mark.parametrize("n", [0, -1, 10, 11])
def test_split_refuses_what_leaves_nothing(n):
    with pytest.raises(InputError, match="expected between 1 and 9"):
        make().split(n, seed=0)


def test_split_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    make().split(3, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_what_does_not_fit_is_refused():
    data = make()
    for change, text in (
        ({"x_train": data.x_train[:0], "y_train": data.y_train[:0]}, "at least one example"),
        ({"y_train": data.y_train[:-1]}, "one label per example"),
        ({"x_test": data.x_test[..., :4]}, "as in train"),
        ({"x_train": data.x_train.float()}, "uint8 images"),
        ({"y_test": data.y_test.int()}, "expected int64"),
        ({"y_test": data.y_test + 3}, "expected 0 to 2"),
        ({"x_val": data.x_test}, "both x_val and y_val"),
    ):
        with pytest.raises(InputError, match=text):
            replace(data, **change)


def test_to_float():
    x = torch.arange(256, dtype=torch.uint8)
    assert np.array_equal(to_float(x).numpy(), np.arange(256, dtype=np.float32) / 255)
    f = torch.rand(3, dtype=torch.float64)
    assert to_float(f) is f
    with pytest.raises(InputError, match="int64"):
        to_float(torch.arange(3))


def test_digits_are_always_the_same():
    data = load("digits")
    assert data.canonical and data.canonical_test and not data.limit(train=5).canonical
    assert data.image_shape == (1, 8, 8) and len(data.y_train) == 1437
    assert data.y_test.bincount().tolist() == [36] * 10
    assert data.x_train.dtype == torch.uint8 and int(data.x_train.max()) == 255
    from sklearn.datasets import load_digits

    source = load_digits()
    assert data.x_train.sum() + data.x_test.sum() == np.rint(source.images * 255 / 16).sum()
    assert "1437 train" in repr(data)


@pytest.mark.parametrize("name", ["two_moons", "circles", "blobs", "spirals"])
def test_toys(name):
    import danskin.data

    data, draw = load(name), getattr(danskin.data, name)
    assert data.sha256 == load(name).sha256 and data.canonical is None
    x, y = torch.cat([data.x_train, data.x_test]), torch.cat([data.y_train, data.y_test])
    assert x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
    assert (x.amax(0) - x.amin(0)).min() > 0.5  # fills the square
    assert data.image_shape == DATASETS[name].shape == (2,)
    assert y.bincount(minlength=len(data.classes)).min() > 600
    near = torch.cdist(data.x_test, data.x_train).argmin(1)  # the classes are apart, and learnable
    assert (data.y_train[near] == data.y_test).float().mean() > 0.97
    assert not torch.equal(draw(50, seed=1)[0], draw(50, seed=2)[0])
    clean = draw(50, noise=0.0)[0]
    assert (clean > 0).all() and (clean < 1).all()  # nothing is clamped but noise
    with pytest.raises(InputError, match="at least 1 point"):
        draw(0)


def test_circles_have_their_radii():
    from danskin.data import circles

    x, y = circles(200, noise=0.0)
    assert torch.allclose((x - 0.5).norm(dim=1), 0.4 - 0.2 * y.float(), atol=1e-6)


def test_registry_is_filled_in():
    for name, info in DATASETS.items():
        assert name == info.name and info.description and info.source and len(info.classes) >= 2
