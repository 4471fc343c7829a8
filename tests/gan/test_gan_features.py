"""The project's own small networks: what ships is what is named, and Fréchet distances on it behave."""

import hashlib

import pytest
import torch

from danskin.data import load, to_float
from danskin.errors import CheckpointError, InputError
from danskin.gan import features
from danskin.gan.features import FEATURE_NETS, FOLDER, classes_seen, feature_net, frechet_on


@pytest.mark.parametrize("name", FEATURE_NETS)
def test_the_files_are_those_named_and_small(name):
    content = (FOLDER / f"{name}.safetensors").read_bytes()
    info = FEATURE_NETS[name]
    assert hashlib.sha256(content).hexdigest() == info.sha256 and len(content) < 2**20
    assert info.sha256[:8] in info.name and name in info.name
    net = feature_net(name)
    assert not net.training and net.features(torch.rand(3, *info.shape)).shape == (3, 32)


def test_the_network_knows_digits_as_well_as_it_says():
    data = load("digits")
    with torch.no_grad():
        said = feature_net("digits")(to_float(data.x_test)).argmax(1)
    assert float((said == data.y_test).float().mean()) == pytest.approx(FEATURE_NETS["digits"].accuracy, abs=1e-3)


def test_distances_order_fresh_digits_before_noise_and_a_set_is_at_0_from_itself():
    data = load("digits")
    x, other = to_float(data.x_test), to_float(data.x_train[:360])
    fresh, noise = frechet_on("digits", x, other), frechet_on("digits", x, torch.rand(360, 1, 8, 8))
    assert frechet_on("digits", x, x).value == 0 < fresh.value < 0.1 * noise.value
    assert "danskin-digits-cnn32 sha256:e18f90df" in str(fresh) and "not FID" in str(fresh)
    with pytest.raises(InputError, match="more examples than the 32"):
        frechet_on("digits", x[:32], other)


@pytest.mark.parametrize("judge", [frechet_on, classes_seen])
def test_images_that_the_network_does_not_take_are_refused(judge):
    x = torch.rand(40, 1, 8, 8)
    for bad in (x[:0], x * float("nan"), torch.rand(40, 1, 28, 28), x.flatten(1)):
        for pair in ((x, bad), (bad, x)):
            with pytest.raises(InputError, match="expected finite images"):
                judge("digits", *pair)


def test_classes_that_are_missing_are_seen():
    data = load("digits")
    x = to_float(data.x_test)
    whole, half = classes_seen("digits", x, x), classes_seen("digits", x[data.y_test < 5], x)
    assert whole.covered == whole.classes == 10 and whole.variation == 0
    assert half.covered in (5, 6) and half.variation == pytest.approx(0.5, abs=0.05)


def test_a_broken_file_and_an_unknown_set_are_told(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        feature_net("mnits")
    (tmp_path / "digits.safetensors").write_bytes(b"other")
    monkeypatch.setattr(features, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="install it again"):
        feature_net("digits")
