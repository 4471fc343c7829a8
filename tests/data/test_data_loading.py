import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from danskin.data import DATASETS, data_folder, download, fetching, load
from danskin.errors import InputError, MissingError


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(InputError, match="got 'minst'; did you mean 'mnist'"):
        load("minst")
    with pytest.raises(InputError, match="choose from blobs, cifar10"):
        load("qqqq")


def test_nothing_found_lists_places_and_command(tmp_path):
    with pytest.raises(MissingError) as caught:
        load("mnist", tmp_path)
    text = str(caught.value)
    assert str(tmp_path / "MNIST" / "raw") in text and "train-images-idx3-ubyte" in text and "mnist.npz" in text
    call = f"danskin.data.download('mnist', {str(tmp_path)!r})"
    assert caught.value.command == f'python -c "import danskin.data; {call}"'
    with pytest.raises(MissingError) as caught:
        load("cifar10")
    assert caught.value.command == "python -c \"import danskin.data; danskin.data.download('cifar10')\""
    with pytest.raises(MissingError, match=r"pneumoniamnist.npz from https://medmnist.com"):
        load("pneumonia_mnist")


def test_data_folder(tmp_path, monkeypatch):
    assert data_folder() == tmp_path / "cache" / "danskin"
    monkeypatch.setenv("DANSKIN_DATA", str(tmp_path))
    assert data_folder() == tmp_path and data_folder("x").name == "x"
    monkeypatch.delenv("DANSKIN_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder() == tmp_path / ".cache" / "danskin"


@pytest.fixture
def openml(monkeypatch, grey):
    """A small MNIST on a small OpenML: the calls that were made, and what it answers."""
    check = replace(
        DATASETS["mnist"].check,
        shape=(20, 10),
        train_rows=20,
        train_sum=int(grey["x_train"].sum()),
        test_sum=int(grey["x_test"].sum()),
        y_train=tuple(grey["y_train"][:10].tolist()),
        y_test=tuple(grey["y_test"][:10].tolist()),
    )
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], check=check))
    x = np.concatenate([grey["x_train"], grey["x_test"]]).reshape(30, -1).astype(np.float64)
    y = np.concatenate([grey["y_train"], grey["y_test"]]).astype(str).astype(object)
    calls, answer = [], {"x": x, "y": y}

    def fetch(data_id):
        calls.append(data_id)
        return answer["x"], answer["y"]

    monkeypatch.setattr(fetching, "_fetch", fetch)
    return calls, answer


def test_download(tmp_path, grey, openml):
    path = download("mnist", tmp_path / "new")
    assert path == tmp_path / "new" / "mnist.npz" and openml[0] == [554]
    data = load("mnist", tmp_path / "new")
    for part in ("train", "test"):
        assert np.array_equal(getattr(data, f"x_{part}").numpy()[:, 0], grey[f"x_{part}"])
        assert np.array_equal(getattr(data, f"y_{part}").numpy(), grey[f"y_{part}"])
    assert [p.name for p in path.parent.iterdir()] == ["mnist.npz"]


def test_load_downloads_only_when_told_and_only_once(tmp_path, openml):
    with pytest.raises(MissingError):
        load("mnist", tmp_path)
    assert openml[0] == []
    assert len(load("mnist", tmp_path, download=True).y_train) == 20
    load("mnist", tmp_path, download=True)
    assert openml[0] == [554]


def test_download_checks_what_came(tmp_path, openml):
    _, answer = openml
    good = dict(answer)
    for bad, text in (
        ({"x": good["x"][:29]}, r"expected \(30, 784\) pixels, got \(29, 784\)"),
        ({"y": np.roll(good["y"], 1)}, "first training labels"),
        ({"y": np.concatenate([good["y"][:20], good["y"][20:][::-1]])}, "first test labels"),
        ({"x": np.where(good["x"] == good["x"][0, 0], 3, good["x"])}, "pixel sum"),
    ):
        answer.update(good | bad)
        with pytest.raises(InputError, match=text):
            download("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_download_without_network(tmp_path, monkeypatch):
    from urllib.error import URLError

    def fetch(data_id):
        raise URLError("no route")

    monkeypatch.setattr(fetching, "_fetch", fetch)
    with pytest.raises(MissingError, match=r"could not be fetched from openml.org .*no route.*check the network"):
        download("mnist", tmp_path)
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        download("minst", tmp_path)
    with pytest.raises(InputError, match="choose from cifar10, fashion_mnist, mnist"):
        download("digits", tmp_path)


def test_an_interrupted_download_leaves_nothing(tmp_path, openml, monkeypatch):
    (tmp_path / "mnist.npz").write_bytes(b"old")

    def interrupted(f, **arrays):
        f.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download("mnist", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mnist.npz"]
    assert (tmp_path / "mnist.npz").read_bytes() == b"old"


@pytest.mark.parametrize(("hidden", "name"), [("sklearn", "digits"), ("PIL", "folder:")])
def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch, hidden, name):
    for module in [m for m in sys.modules if m == hidden or m.startswith(f"{hidden}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, hidden, None)
    for part in ("train", "test"):
        (tmp_path / part / "cat").mkdir(parents=True)
        (tmp_path / part / "cat" / "a.png").write_bytes(b"")
    with pytest.raises(MissingError) as caught:
        load(f"{name}{tmp_path}" if name.endswith(":") else name)
    assert caught.value.command == "pip install 'danskin[data]'"
    if hidden == "sklearn":
        with pytest.raises(MissingError, match=r"danskin\[data\]"):
            download("mnist", tmp_path)


def test_importing_is_light():
    code = "import sys, danskin.data, danskin.models; print([m for m in sys.modules if m in %r])"
    heavy = ("sklearn", "PIL", "scipy", "pandas", "torchvision", "matplotlib")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code % (heavy,)], env=env, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "pneumonia_mnist"])
def test_real_files(real_data, name):
    data = load(name)
    info = DATASETS[name]
    assert data.image_shape == info.shape and data.classes == info.classes
    if name in ("mnist", "cifar10") and len(data.y_train) == info.check.shape[0]:
        assert data.canonical
    if info.check is not None:
        assert data.canonical_test and int(data.x_test.long().sum()) == info.check.test_sum
        assert tuple(data.y_train[:10].tolist()) == info.check.y_train
