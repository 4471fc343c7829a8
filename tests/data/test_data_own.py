"""Data of one's own: float images, test examples alone, channels that are plain, folders with other things in them."""

import numpy as np
import pytest
import torch

from danskin.data import load, load_npz
from danskin.data.loading import spelled
from danskin.errors import ConfigError, InputError, MissingError
from danskin.run.config import config_of

Y = np.array([0, 1, 2, 1])


def images(rng, *shape):
    x = rng.integers(0, 256, (4, *shape), dtype=np.uint8)
    x.flat[0] = 255
    return x


def saved(path, **arrays):
    np.savez(path, **arrays)
    return load_npz(path)


def test_test_examples_alone(tmp_path, rng):
    x, path = images(rng, 5, 6, 3), tmp_path / "own.npz"
    for names in (("x_test", "y_test"), ("x", "y"), ("test_images", "test_labels")):
        data = saved(path, **dict(zip(names, (x, Y), strict=True)))
        assert data.test_only and len(data.y_train) == 0 and data.image_shape == (3, 5, 6)
        assert np.array_equal(data.x_test.numpy(), x.transpose(0, 3, 1, 2)) and data.y_test.tolist() == Y.tolist()
        assert len(data.limit(test=2).y_test) == 2
        for refused in (data.check_trainable, lambda data=data: data.split(1, seed=0)):
            with pytest.raises(InputError, match="expected training examples, got test examples only; add x_train"):
                refused()
    with pytest.raises(InputError, match="store y_train, x_test, y_test too"):
        saved(path, x_train=x)
    with pytest.raises(InputError, match="at least one example"):
        saved(path, x_test=x[:0], y_test=Y[:0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_images(tmp_path, rng, dtype):
    x = rng.random((4, 5, 6, 3)).astype(dtype)
    data = saved(tmp_path / "own.npz", x_train=x, y_train=Y, x_test=x[:2], y_test=Y[:2])
    assert data.x_test.dtype == torch.float32
    assert np.array_equal(data.x_train.numpy(), x.astype(np.float32).transpose(0, 3, 1, 2))
    assert saved(tmp_path / "own.npz", x_test=x[..., 0], y_test=Y).image_shape == (1, 5, 6)


@pytest.mark.parametrize(("change", "message"), [
    (lambda x: x * 255.0, "in .0, 1., got torch.float32 from .*divide pixels by 255"),
    (lambda x: x / 127.5 - 1.0, "in .0, 1."),
    (lambda x: np.where(x > 9, np.nan, x / 255), "in .0, 1."),
    (lambda x: x.astype(np.int64), "store .255"),
    (lambda x: (x > 99).astype(np.uint8), "none but 0 and 1; store 255"),
])  # fmt: skip
def test_images_in_other_units_are_refused(tmp_path, rng, change, message):
    with pytest.raises(InputError, match=message):
        saved(tmp_path / "own.npz", x_test=change(images(rng, 5, 6)), y_test=Y)


@pytest.mark.parametrize(("shape", "found"), [
    ((3, 8, 8), (3, 8, 8)), ((8, 8, 3), (3, 8, 8)), ((8, 9), (1, 8, 9)), ((8, 8, 1), (1, 8, 8)),
    ((4, 8, 8), (4, 8, 8)), ((6, 16, 12), (6, 16, 12)),
])  # fmt: skip
def test_channels_that_are_plain(tmp_path, rng, shape, found):
    assert saved(tmp_path / "own.npz", x_test=images(rng, *shape), y_test=Y).image_shape == found


@pytest.mark.parametrize(("shape", "message"), [
    ((8, 8, 4), "RGBA.*drop the last"), ((8, 9, 4), "RGBA"), ((8, 8, 2), "grey and alpha"), ((16, 16, 13), "not plain"),
])  # fmt: skip
def test_channels_that_are_not(tmp_path, rng, shape, message):
    with pytest.raises(InputError, match=f"got shape .4, .*{message}"):
        saved(tmp_path / "own.npz", x_test=images(rng, *shape), y_test=Y)


@pytest.mark.parametrize(("labels", "message"), [
    (Y + 0.5, "fractional"), (np.eye(3)[Y], "one-hot rows"), (Y > 0, r"use y_test.long"),
    (np.array(list("abca")), "number the classes"),
])  # fmt: skip
def test_labels_are_read_as_everywhere(tmp_path, rng, labels, message):
    with pytest.raises(InputError, match=message):
        saved(tmp_path / "own.npz", x_test=images(rng, 5, 6), y_test=labels)
    assert saved(tmp_path / "own.npz", x_test=images(rng, 5, 6), y_test=Y[:, None].astype(">i2")).y_test.tolist() == [
        0,
        1,
        2,
        1,
    ]


def test_a_path_alone_will_do(tmp_path, rng, monkeypatch):
    np.savez(tmp_path / "own.npz", x_test=images(rng, 5, 6), y_test=Y)
    monkeypatch.chdir(tmp_path)
    for name in ("own.npz", "./own.npz", str(tmp_path / "own.npz"), "npz:own.npz"):
        assert load(name).name == "npz:own.npz"
    with pytest.raises(MissingError, match=r"expected an \.npz file, got nothing"):
        load("other.npz")
    with pytest.raises(InputError, match="did you mean"):
        load("digit")
    assert config_of({"data": {"name": "own.npz"}}).data.name == "own.npz"
    with pytest.raises(ConfigError, match="expected a known data set"):
        config_of({"data": {"name": "own"}})


def fill(folder, rng, classes, n=2):
    from PIL import Image

    for name in classes:
        (folder / name).mkdir(parents=True)
        for k in range(n):
            Image.fromarray(images(rng, 9, 11)[0]).save(folder / name / f"{k}.png")


@pytest.mark.parametrize("part", ["test", "."])
def test_a_folder_of_test_examples_alone(tmp_path, rng, part):
    fill(tmp_path / part, rng, ("dog", "cat"))
    data = load(str(tmp_path))
    assert data.test_only and data.classes == ("cat", "dog") and data.y_test.tolist() == [0, 0, 1, 1]
    assert spelled(str(tmp_path)) == f"folder:{tmp_path}"


@pytest.mark.parametrize("test_only", [True, False])
def test_other_things_in_folders_are_no_classes(tmp_path, rng, test_only):
    for part in ("test",) if test_only else ("train", "test"):
        fill(tmp_path / part, rng, ("cat", "dog"))
        (tmp_path / part / "cat" / "._0.png").write_bytes(b"Mac OS X")  # as archives of a Mac hold beside each file
        for name in ("__MACOSX", ".cache", "__pycache__"):
            (tmp_path / part / name).mkdir()
            (tmp_path / part / name / "._0.png").write_bytes(b"Mac OS X")
    data = load(f"folder:{tmp_path}")
    assert data.classes == ("cat", "dog") and len(data.y_test) == 4
    (tmp_path / ("test" if test_only else "train") / "bird").mkdir()
    with pytest.raises(InputError, match="expected images of the class 'bird', got none; put some there, or delete"):
        load(f"folder:{tmp_path}")


def test_a_class_without_test_images_stays_one(tmp_path, rng):
    fill(tmp_path / "train", rng, ("bird", "cat"))
    fill(tmp_path / "test", rng, ("cat",))
    (tmp_path / "test" / "bird").mkdir()
    data = load(f"folder:{tmp_path}")
    assert data.classes == ("bird", "cat") and data.y_test.tolist() == [1, 1]
