import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch

from danskin.data import cifar, load, load_npz
from danskin.data.unpickle import unpickle_arrays
from danskin.errors import InputError, MissingError

IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def idx_bytes(a):
    return struct.pack(f">I{a.ndim}I", 0x800 + a.ndim, *a.shape) + a.tobytes()


def write_idx(folder, arrays, gz=False):
    folder.mkdir(parents=True, exist_ok=True)
    for key, name in IDX.items():
        body = idx_bytes(arrays[key])
        (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(body) if gz else body)


def same(data, arrays):
    for key in ("x_train", "x_test"):
        assert np.array_equal(getattr(data, key).numpy()[:, 0], arrays[key])
        assert np.array_equal(getattr(data, key.replace("x", "y")).numpy(), arrays[key.replace("x", "y")])
    return True


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("sub", ["", "mnist", "MNIST/raw"])
def test_idx(tmp_path, grey, gz, sub):
    write_idx(tmp_path / sub, grey, gz)
    data = load("mnist", tmp_path)
    assert same(data, grey) and data.canonical is False and data.image_shape == (1, 28, 28)


def test_folder_comes_from_the_environment(tmp_path, grey, monkeypatch):
    write_idx(tmp_path / "cache" / "danskin", grey)
    assert same(load("mnist"), grey)
    monkeypatch.setenv("DANSKIN_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(MissingError, match="elsewhere"):
        load("mnist")


@pytest.mark.parametrize("gz", [False, True])
def test_idx_truncated(tmp_path, grey, gz):
    write_idx(tmp_path, grey, gz)
    path = tmp_path / (IDX["x_train"] + ".gz" * gz)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(InputError, match=r"train-images.*expected 15696 bytes.*got 1\d+ bytes; delete the file"):
        load("mnist", tmp_path)


def test_idx_too_long_wrong_magic_and_garbage(tmp_path, grey):
    write_idx(tmp_path, grey)
    path = tmp_path / IDX["y_test"]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match="expected 18 bytes"):
        load("mnist", tmp_path)
    path.write_bytes(idx_bytes(grey["x_test"]))
    with pytest.raises(InputError, match="0x00000801, got 0x00000803"):
        load("mnist", tmp_path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"got 0x \(0 bytes\)"):
        load("mnist", tmp_path)
    path.rename(path.with_suffix(".gz"))
    path.with_suffix(".gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="labels"):
        load("mnist", tmp_path)


def test_idx_incomplete_is_reported_with_what_is_missing(tmp_path, grey):
    write_idx(tmp_path, grey)
    (tmp_path / IDX["y_train"]).unlink()
    with pytest.raises(MissingError, match="not train-labels-idx1-ubyte"):
        load("mnist", tmp_path)


def test_mnist_is_not_taken_for_fashion(tmp_path, grey):
    mnist = grey | {"y_train": np.array([5, 0, 4, 1, 9, 2, 1, 3, 1, 4] * 2, dtype=np.uint8)}
    write_idx(tmp_path, mnist)
    with pytest.raises(MissingError, match="holds mnist, not fashion_mnist"):
        load("fashion_mnist", tmp_path)
    write_idx(tmp_path / "FashionMNIST" / "raw", grey)
    assert same(load("fashion_mnist", tmp_path), grey) and same(load("mnist", tmp_path), mnist)


@pytest.mark.parametrize(
    ("name", "file"),
    [("mnist", "mnist.npz"), ("fashion_mnist", "fashion_mnist_30k.npz"), ("mnist", "mnist/mnist.npz")],
)
def test_npz(tmp_path, grey, name, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    np.savez_compressed(tmp_path / file, **grey)
    assert same(load(name, tmp_path), grey)


def test_npz_with_validation_part_and_with_medmnist_names(tmp_path, grey):
    two = {k: v % 2 if k[0] == "y" else v for k, v in grey.items()}
    val = {"x_val": grey["x_test"][:3], "y_val": grey["y_test"][:3] % 2}
    np.savez(tmp_path / "pneumonia_mnist.npz", **two, **val)
    data = load("pneumonia_mnist", tmp_path)
    assert same(data, two) and data.x_val.shape == (3, 1, 28, 28) and data.y_val.tolist() == [1, 0, 1]
    (tmp_path / "pneumonia_mnist.npz").unlink()
    parts = {"train": "train", "test": "test", "val": "val"}
    theirs = {f"{p}_images": (two | val)[f"x_{p}"] for p in parts}
    theirs |= {f"{p}_labels": (two | val)[f"y_{p}"][:, None] for p in parts}
    np.savez(tmp_path / "pneumoniamnist.npz", **theirs)
    assert load("pneumonia_mnist", tmp_path).sha256 == data.sha256


def test_npz_of_your_own(tmp_path, rng):
    x, y = rng.random((6, 5)), np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    data = load(f"npz:{tmp_path / 'own.npz'}")
    assert data.name == "npz:own.npz" and data.classes == ("0", "1", "2") and data.image_shape == (5,)
    assert torch.equal(data.x_train, torch.tensor(x, dtype=torch.float32)) and data.canonical is None
    nhwc = rng.integers(0, 256, (6, 9, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x_train=nhwc, y_train=y, x_test=nhwc, y_test=y)
    data = load_npz(tmp_path / "own.npz")
    assert np.array_equal(data.x_test.numpy(), nhwc.transpose(0, 3, 1, 2)) and data.x_test.is_contiguous()


def test_npz_broken(tmp_path, grey):
    path = tmp_path / "mnist.npz"
    np.savez_compressed(path, **grey)
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 5, 0):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=rf"mnist\.npz: expected a complete .npz.*got {cut} bytes.*delete"):
            load("mnist", tmp_path)
    np.savez(path, x_train=grey["x_train"])
    with pytest.raises(InputError, match="store y_train, x_test, y_test too"):
        load("mnist", tmp_path)
    np.savez(path, **(grey | {"x_train": np.array([print], dtype=object)}))
    with pytest.raises(InputError, match="plain arrays"):
        load("mnist", tmp_path)
    np.savez(path, **(grey | {"x_train": grey["x_train"] / 255}))
    with pytest.raises(InputError, match=r"store \(255 \* x\)"):
        load("mnist", tmp_path)
    np.savez(path, **(grey | {"y_train": grey["y_train"] / 2}))
    with pytest.raises(InputError, match="expected integers"):
        load("mnist", tmp_path)
    np.savez(path, **{k: v[:, :20] if v.ndim == 3 else v for k, v in grey.items()})
    with pytest.raises(InputError, match=r"expected images of shape \(1, 28, 28\), got \(1, 20, 28\)"):
        load("mnist", tmp_path)
    with pytest.raises(MissingError, match="check the path"):
        load("npz:/nowhere/own.npz")


# ---- CIFAR-10 batches


@pytest.fixture
def batches(rng, monkeypatch):
    """Six batches of 7 images, in published order."""
    monkeypatch.setattr(cifar, "ROWS", 7)
    x = rng.integers(0, 256, (6, 7, 3072), dtype=np.uint8)
    return x, rng.integers(0, 10, (6, 7))


NAMES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def pickles(batches, protocol):
    for name, x, y in zip(NAMES, *batches, strict=True):
        yield name, pickle.dumps({b"data": x, b"labels": y.tolist(), b"filenames": [b"a.png"]}, protocol=protocol)


def binaries(batches):
    for name, x, y in zip(NAMES, *batches, strict=True):
        yield f"{name}.bin", np.concatenate([y.astype(np.uint8)[:, None], x], 1).tobytes()


def same_cifar(data, batches):
    x, y = batches
    assert np.array_equal(data.x_train.numpy(), x[:5].reshape(35, 3, 32, 32))
    assert np.array_equal(data.x_test.numpy(), x[5].reshape(7, 3, 32, 32))
    assert np.array_equal(data.y_train.numpy(), y[:5].ravel()) and np.array_equal(data.y_test.numpy(), y[5])
    return True


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("sub", ["", "cifar-10-batches-py", "cifar10/cifar-10-batches-py"])
def test_cifar_pickles(tmp_path, batches, protocol, sub):
    (tmp_path / sub).mkdir(parents=True, exist_ok=True)
    for name, body in pickles(batches, protocol):
        (tmp_path / sub / name).write_bytes(body)
    assert same_cifar(load("cifar10", tmp_path), batches)


def python2_pickle(x, y):
    """As Python 2 wrote the published files: byte strings everywhere, numpy.core.multiarray."""

    def text(s):
        return b"U" + bytes([len(s)]) + s

    body = b"\x80\x02}(" + text(b"data") + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    body += b"K\x00\x85" + text(b"b") + b"\x87R(K\x01(K" + bytes([len(x)]) + b"M\x00\x0ct"
    body += b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    body += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    body += b"\x89T" + struct.pack("<i", x.size) + x.tobytes() + b"tb"
    return body + text(b"labels") + b"](" + b"".join(b"K" + bytes([int(k)]) for k in y) + b"eu."


def test_cifar_pickles_of_python_2(tmp_path, batches):
    for name, x, y in zip(NAMES, *batches, strict=True):
        (tmp_path / name).write_bytes(python2_pickle(x, y))
        assert np.array_equal(pickle.loads(python2_pickle(x, y), encoding="bytes")[b"data"], x)  # a true pickle
    assert same_cifar(load("cifar10", tmp_path), batches)


def test_cifar_binaries_and_archives(tmp_path, batches):
    binary, archives = tmp_path / "b", tmp_path / "a"
    binary.mkdir()
    for name, body in binaries(batches):
        (binary / name).write_bytes(body)
    assert same_cifar(load("cifar10", binary), batches)
    for file, inside, members in (
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", list(binaries(batches))),
        ("cifar-10-python.tar.gz", "cifar-10-batches-py", list(pickles(batches, 2))),
    ):
        place = archives / inside
        place.mkdir(parents=True)
        with tarfile.open(place / file, "w:gz") as archive:
            for name, body in members[::-1]:
                entry = tarfile.TarInfo(f"{inside}/{name}")
                entry.size = len(body)
                archive.addfile(entry, io.BytesIO(body))
        assert same_cifar(load("cifar10", place), batches)
        assert {p.name for p in place.iterdir()} == {file}  # nothing is extracted
        whole = (place / file).read_bytes()
        (place / file).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=rf"{file}.*expected a complete.*got {len(whole) // 2} bytes"):
            load("cifar10", place)


def test_cifar_broken(tmp_path, batches):
    for name, body in binaries(batches):
        (tmp_path / name).write_bytes(body)
    (tmp_path / "data_batch_3.bin").write_bytes(body[:-1])
    with pytest.raises(InputError, match=r"data_batch_3.bin: expected 21511 bytes, got 21510 bytes; delete"):
        load("cifar10", tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(MissingError, match=r"but not data_batch_3.bin"):
        load("cifar10", tmp_path)
    for name, body in pickles(batches, 2):
        (tmp_path / name).write_bytes(body)
    for bad, text in (
        (body[:-9], "complete pickle"),
        (b"", "complete pickle"),
        (b"garbage", "complete pickle"),
        (pickle.dumps([1]), "a dict"),
        (pickle.dumps({"data": 3}), "`data` as uint8"),
        (pickle.dumps({"data": batches[0][0][:3], "labels": [1] * 3}), r"got uint8 of shape \(3, 3072\)"),
        (pickle.dumps({"data": batches[0][0], "labels": "x"}), "`labels` as integers"),
        (pickle.dumps({"data": batches[0][0], "labels": [1]}), "7 labels"),
    ):
        (tmp_path / "test_batch").write_bytes(bad)
        with pytest.raises(InputError, match=rf"test_batch: expected.*{text}"):
            load("cifar10", tmp_path)


class Evil:
    def __init__(self, call, *args):
        self.call = call, args

    def __reduce__(self):
        return self.call


def test_pickles_execute_nothing(tmp_path):
    import builtins
    import os

    target = tmp_path / "touched"
    for protocol in range(6):
        for call in ((os.system, f"touch {target}"), (builtins.eval, "1"), (np.load, "x"), (getattr, "a", "b")):
            with pytest.raises(InputError, match="expected arrays, text and numbers only, got a reference to"):
                unpickle_arrays(pickle.dumps({"data": Evil(*call)}, protocol=protocol), "batch")
    with pytest.raises(InputError, match=r"plain|complete"):
        unpickle_arrays(pickle.dumps(np.array([{}], dtype=object)), "batch")
    with pytest.raises(InputError, match="codec 'zlib'"):
        import _codecs

        unpickle_arrays(pickle.dumps(Evil(_codecs.encode, "a", "zlib")), "batch")
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["u1", ">i4", "<f8", "?"])
def test_unpickled_arrays_equal_those_of_pickle(rng, protocol, dtype):
    a = rng.integers(0, 2, (3, 4)).astype(dtype)
    for b in (a, np.asfortranarray(a), a[:, :0], a[0, 0:1]):
        got = unpickle_arrays(pickle.dumps({"k": [b]}, protocol=protocol), "x")["k"][0]
        assert got.dtype == b.dtype and got.shape == b.shape and np.array_equal(got, b)
