"""Weights from strangers: what fits is loaded strictly, what would run code is refused."""

import argparse
import collections
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from danskin.errors import CheckpointError, ConfigError, MissingError
from danskin.foreign import open_model
from danskin.foreign.weights import load_weights, read_weights
from danskin.run import checkpoint


def net(classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, classes)).eval()


STATE = net(seed=1).state_dict()


def written(path, value):
    """A file of the kind its ending says."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in value.items()}, path)
    else:
        torch.save(value, path)
    return path


def same(model):
    return all(torch.equal(v, STATE[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("file", ["w.safetensors", "w.pt", "w.pth"])
def test_plain_state(tmp_path, file):
    model = net()
    assert load_weights(written(tmp_path / file, STATE), model) == [] and same(model)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_state_in_a_checkpoint(tmp_path, key):
    model = net()
    path = written(tmp_path / "w.pt", {"epoch": 3, key: STATE, "optimizer": {"lr": 0.1}})
    assert load_weights(path, model) == [f"weights under {key!r} in w.pt"] and same(model)


def test_old_torch_files(tmp_path):
    model = net()
    torch.save(STATE, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert load_weights(tmp_path / "w.pt", model) == [] and same(model)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "model.module."])
@pytest.mark.parametrize("file", ["w.safetensors", "w.pt"])
def test_prefixes_of_wrappers(tmp_path, file, prefix):
    model = net()
    path = written(tmp_path / file, {prefix + k: v for k, v in STATE.items()})
    assert load_weights(path, model) == [f"names in {file} without their prefix {prefix!r}"] and same(model)


def test_prefixes_stay_where_taking_them_away_does_not_make_it_match(tmp_path):
    for state in (
        {("module." if i else "") + k: v for i, (k, v) in enumerate(STATE.items())},
        {f"module.{k}": v for k, v in list(STATE.items())[1:]},
        {f"other.{k}": v for k, v in STATE.items()},
    ):
        with pytest.raises(CheckpointError, match="missing in the file"):
            load_weights(written(tmp_path / "w.pt", state), net())
    wrapped = nn.DataParallel(net())  # the prefix is the model's own
    path = written(tmp_path / "w.pt", {f"module.{k}": v for k, v in STATE.items()})
    assert load_weights(path, wrapped) == [] and same(wrapped.module)


def test_what_does_not_fit_is_named(tmp_path):
    path = written(tmp_path / "w.pt", {("x" if k == "3.bias" else "") + k: v for k, v in STATE.items()})
    with pytest.raises(CheckpointError, match=r"1 missing in the file \(3.bias\), 1 not in the model \(x3.bias\)"):
        load_weights(path, net())
    path = written(tmp_path / "w.pt", STATE)
    words = r"2 of other shape \(3.weight is \(3, 72\) in the file and \(5, 72\) in the model, 3.bias"
    with pytest.raises(CheckpointError, match=words):
        load_weights(path, net(classes=5))
    with pytest.raises(
        CheckpointError, match=r"9 missing in the file \(1.0.weight, .*, \.\.\.\).*before normalisation"
    ):
        load_weights(path, nn.Sequential(nn.Identity(), net()))
    untouched = net(classes=5)
    before = {k: v.clone() for k, v in untouched.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_weights(path, untouched)
    assert all(torch.equal(v, before[k]) for k, v in untouched.state_dict().items())


def test_shared_tensors_may_lack(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    state = {k: v.clone() for k, v in model.state_dict().items() if k != "1.weight"}
    state["0.weight"] += 1
    assert load_weights(written(tmp_path / "w.safetensors", state), model) == []
    assert torch.equal(model[1].weight, state["0.weight"])
    with pytest.raises(CheckpointError, match=r"1 missing in the file \(1.bias\)"):
        load_weights(written(tmp_path / "w.safetensors", {k: v for k, v in state.items() if k != "1.bias"}), model)


def test_half_weights_are_told(tmp_path):
    model = net()
    path = written(tmp_path / "w.pt", {k: v.half() if v.is_floating_point() else v for k, v in STATE.items()})
    assert load_weights(path, model) == ["weights converted from torch.float16 to torch.float32"]
    assert torch.equal(model[3].weight, STATE["3.weight"].half().float())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


BAD = {
    "a module": lambda bomb: net(),
    "numpy numbers": lambda bomb: {"state_dict": STATE, "accuracy": np.float64(1)},
    "arguments": lambda bomb: {"state_dict": STATE, "args": argparse.Namespace(lr=1)},
    "a bomb": lambda bomb: {"state_dict": STATE, "x": Bomb(bomb)},
}


@pytest.mark.parametrize("what", BAD)
def test_objects_are_refused_and_never_run(tmp_path, what):
    bomb = tmp_path / "exploded"
    for old in (False, True):
        torch.save(BAD[what](bomb), tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
        with pytest.raises(CheckpointError, match=r"expected tensors only.*never does.*convert it once"):
            load_weights(tmp_path / "w.pt", net())
        with pytest.raises(CheckpointError, match="expected tensors only"):
            open_model(str(tmp_path / "w.pt"), device=torch.device("cpu"))
    with open(tmp_path / "w.pkl", "wb") as stream:
        pickle.dump(BAD[what](bomb), stream)
    with pytest.raises(CheckpointError, match="as pickle writes them"):
        load_weights(tmp_path / "w.pkl", net())
    assert not bomb.exists()


def convert(path):
    """Do what the refusal says; it runs as it stands."""
    with pytest.raises(CheckpointError, match="never does") as caught:
        load_weights(path, net())
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert len(lines) == 3
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=60)
    return path.with_suffix(".safetensors")


OTHERS = {"epoch": np.int64(3), "counts": collections.Counter(), "args": argparse.Namespace()}


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", None])
def test_the_way_out_works(tmp_path, key):
    torch.save(OTHERS | ({key: STATE} if key else STATE), tmp_path / "w.pt")
    model = net()
    load_weights(convert(tmp_path / "w.pt"), model)
    assert same(model)


@pytest.mark.parametrize("key", ["model", None])
def test_the_way_out_of_a_whole_module(tmp_path, key):
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    torch.save({"epoch": np.int64(3), key: module} if key else module, tmp_path / "w.pt")
    found, _ = read_weights(convert(tmp_path / "w.pt"))
    assert all(torch.equal(v, found[k]) for k, v in module.state_dict().items()) and len(found) == 4


# What torch itself loads, and hints for the rest.


@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_modules_fill_in_may_lack(tmp_path, prefix):
    """BatchNorm of before torch 1.0 has no count; torch loads it, strictly."""
    old = {k: v for k, v in STATE.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(STATE)
    model = net()
    net().load_state_dict(dict(old))
    notes = load_weights(written(tmp_path / "w.pt", {prefix + k: v for k, v in old.items()}), model)
    assert len(notes) == bool(prefix) and all(torch.equal(model.state_dict()[k], v) for k, v in old.items())


def test_names_that_modules_translate(tmp_path):
    """Old weight_norm calls its parts weight_g and weight_v; the new one takes such files."""
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    state = {"0.weight_g": torch.rand(3, 1), "0.weight_v": torch.rand(3, 4), "0.bias": torch.rand(3)}
    load_weights(written(tmp_path / "w.pt", state), model)
    wanted = state["0.weight_g"] * state["0.weight_v"] / state["0.weight_v"].norm(dim=1, keepdim=True)
    torch.testing.assert_close(model[0].weight, wanted)


@pytest.mark.parametrize(
    "extra, prefix",
    [
        ({"n_averaged": torch.tensor(3)}, "module."),
        ({"n_averaged": torch.tensor(3)}, "ema.module."),
        ({"head.weight": torch.rand(2)}, ""),
        ({}, "backbone."),
        ({"fc.weight": torch.rand(3), "fc.bias": torch.rand(3)}, "backbone."),
    ],
)
def test_prefixes_and_entries_that_are_too_many_are_named(tmp_path, extra, prefix):
    path = written(tmp_path / "w.pt", extra | {prefix + k: v for k, v in STATE.items()})
    with pytest.raises(CheckpointError) as caught:
        load_weights(path, net())
    hint = str(caught.value).rpartition("they would fit ")[2]
    assert (f"without their prefix {prefix!r}" in hint) is bool(prefix)
    assert (f"but for {len(extra)} more ({', '.join(extra)})" in hint) is bool(extra)
    state, model = torch.load(path, weights_only=True), net()
    kept = eval(hint.partition("save ")[2], {"state": state, "model": model})
    model.load_state_dict(kept)
    assert same(model)


def test_averaged_models(tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(net())
    path = written(tmp_path / "w.pt", averaged.state_dict())
    with pytest.raises(CheckpointError, match=r"without their prefix 'module.', but for 1 more \(n_averaged\)"):
        load_weights(path, net())


BROKEN = {
    "text.pt": (b"not weights at all, but some text", "a file of another kind"),
    "empty.pt": (b"", "a file of another kind"),
    "text.safetensors": (b"not weights at all, but some text", "expected safetensors, got a file that does not read"),
    "empty.safetensors": (b"", "expected safetensors, got a file that does not read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    content, words = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_truncated_files(tmp_path, name):
    path = written(tmp_path / name, STATE)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match=r"does not read.*fetch it again"):
        read_weights(path)


def test_other_things_than_states(tmp_path):
    for value, words in (
        ([STATE], "got list"),
        ({"state_dict": [1, 2]}, "got a list under 'state_dict'"),
        ({"model": {"a": [STATE["3.bias"]]}}, "got a list as 'a' under 'model'"),
        ({"net": {}}, "got an empty dictionary under 'net'"),
        ({"epoch": 3}, "got keys 'epoch'"),
        ({}, "got keys"),
        (STATE["3.bias"], "Tensor"),
    ):
        with pytest.raises(CheckpointError, match=f"expected tensors by name.*{words}.*save model.state_dict"):
            read_weights(written(tmp_path / "w.pt", value))
    with pytest.raises(CheckpointError, match="expected a torch module to load weights into, got function"):
        load_weights(written(tmp_path / "w.pt", STATE), lambda x: x)


def test_missing_files(tmp_path):
    written(tmp_path / "weights.pt", STATE)
    with pytest.raises(MissingError, match=r"got nothing there; did you mean 'weights.pt'\?"):
        read_weights(tmp_path / "weihgts.pt")
    with pytest.raises(MissingError, match="check the path"):
        read_weights(tmp_path / "no/such.pt")
    with pytest.raises(MissingError, match="got a folder"):
        read_weights(tmp_path)


def test_weights_alone_are_no_model(tmp_path):
    path = written(tmp_path / "w.pt", STATE)
    with pytest.raises(ConfigError, match=r"write --model package.module:factory --weights .*w.pt"):
        open_model(str(path), device=torch.device("cpu"))


def test_weights_that_danskin_wrote(tmp_path):
    path = tmp_path / "w.safetensors"
    checkpoint.save_weights(path, STATE, {"config": "{}", "model": "standard"})
    model = net()
    assert load_weights(path, model) == [] and same(model)
    with pytest.raises(CheckpointError, match=f"danskin evaluate {path}"):
        load_weights(path, net(classes=5))
    with pytest.raises(ConfigError, match=f"danskin evaluate {path}"):
        open_model(str(path), device=torch.device("cpu"))
