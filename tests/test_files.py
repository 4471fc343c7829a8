"""Files and checkpoints: a failed write leaves the old file, a broken file is told by name."""

import errno
import os
import resource
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from danskin.errors import CheckpointError, ConfigError, MissingError
from danskin.files import write_atomically, write_json, write_text
from danskin.run import checkpoint
from danskin.run.config import TrainConfig
from danskin.run.record import Record


@contextmanager
def no_file_above(size):
    """The kernel refuses to let a file grow beyond `size` bytes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def full_disk(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_write_leaves_nothing_beside_the_file(tmp_path):
    write_json(tmp_path / "a.json", {"ε": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "ε": 1\n}\n'


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(MissingError, match=r"a.txt: expected to write the file, got .*No space left.*--resume"):
        write_atomically(path, full_disk)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_disk_that_is_full_only_at_fsync(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(MissingError, match="No space left"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_interrupted_write_leaves_the_old_file(tmp_path):
    def interrupted(stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.txt", interrupted)
    assert (tmp_path / "a.txt").read_text() == "old"


def test_programming_errors_are_not_taken_for_a_full_disk(tmp_path):
    def broken(stream):
        raise RuntimeError("another matter")

    with pytest.raises(RuntimeError, match="another matter"):
        write_atomically(tmp_path / "a.txt", broken)


def test_checkpoint_that_no_longer_fits_on_the_disk(tmp_path):
    """torch.save meets the kernel's refusal, not a mock."""
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"w": torch.zeros(10)})
    with no_file_above(50_000), pytest.raises(MissingError, match=r"last.pt: expected to write the file.*untouched"):
        checkpoint.save(path, {"w": torch.zeros(100_000)})
    assert checkpoint.load(path)["w"].shape == (10,)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_weights_that_no_longer_fit_on_the_disk(tmp_path):
    path = tmp_path / "best.safetensors"
    checkpoint.save_weights(path, nn.Linear(2, 2).state_dict(), {})
    with no_file_above(50_000), pytest.raises(MissingError, match=r"best.safetensors: expected to write"):
        checkpoint.save_weights(path, nn.Linear(200, 200).state_dict(), {})
    checkpoint.load_weights(path, nn.Linear(2, 2))


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingError, match=r"expected to make the folder .*, got .*; choose another with --out"):
        Record.create(TrainConfig(), tmp_path, tmp_path / "file" / "run")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_truncated_checkpoint(tmp_path, keep):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"w": torch.randn(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"last.pt: expected a checkpoint, got a file of \d+ bytes.*start again"):
        checkpoint.load(path)


def test_checkpoint_that_is_not_a_mapping(tmp_path):
    torch.save([1, 2], tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"last.pt: expected a checkpoint, got a list"):
        checkpoint.load(tmp_path / "last.pt")


def test_missing_checkpoint_and_weights(tmp_path):
    with pytest.raises(MissingError, match=r"last.pt: expected a checkpoint, got nothing there"):
        checkpoint.load(tmp_path / "last.pt")
    with pytest.raises(MissingError, match=r"a.safetensors: expected weights, got nothing there"):
        checkpoint.load_weights(tmp_path / "a.safetensors", nn.Linear(1, 1))


class Hostile:
    """Its pickle writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_hostile_checkpoint_runs_no_code(tmp_path):
    torch.save({"state": Hostile(tmp_path / "owned")}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"last.pt"):
        checkpoint.load(tmp_path / "last.pt")
    assert not (tmp_path / "owned").exists()


def test_weights_round_trip_with_their_card(tmp_path):
    from safetensors import safe_open

    model, twin = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    model(torch.randn(5, 3))
    checkpoint.save_weights(tmp_path / "a.safetensors", model.state_dict(), {"model": "x"})
    checkpoint.load_weights(tmp_path / "a.safetensors", twin)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"model": "x"}


def test_weights_of_another_architecture(tmp_path):
    checkpoint.save_weights(tmp_path / "a.safetensors", nn.Linear(2, 2).state_dict(), {})
    with pytest.raises(CheckpointError, match=r"a.safetensors: expected weights of this architecture, got others"):
        checkpoint.load_weights(tmp_path / "a.safetensors", nn.Linear(3, 2))


def record(tmp_path):
    return Record.create(TrainConfig(), tmp_path, tmp_path / "run")


def test_two_runs_never_share_a_folder(tmp_path):
    folders = {Record.create(TrainConfig(), tmp_path).folder for _ in range(3)}
    assert len(folders) == 3


def test_half_a_line_of_metrics_is_cut(tmp_path):
    one = record(tmp_path)
    one.event({"event": "step", "step": 1})
    one.close()
    path = one.folder / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "st')
    again, _ = Record.open(one.folder, TrainConfig)
    assert path.read_bytes() == whole
    again.event({"event": "step", "step": 2})
    again.close()
    assert len(path.read_text().splitlines()) == 2


def test_open_removes_what_a_kill_left_half_written(tmp_path):
    one = record(tmp_path)
    left = one.folder / "figures" / ".a.svg.123.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half")
    Record.open(one.folder, TrainConfig)
    assert not left.exists()
    assert (one.folder / "config.yaml").is_file()


def test_metrics_on_a_full_disk(tmp_path):
    """/dev/full says ENOSPC to every write; the error stays the typed one when the file is closed, too."""
    one = record(tmp_path)
    (one.folder / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(MissingError, match=r"metrics.jsonl: expected to append a line, got .*No space left.*--resume"):
        one.event({"event": "step", "step": 1})
    one.close()


def test_status_keeps_its_start_and_ends(tmp_path):
    import json

    one = record(tmp_path)
    first = json.loads((one.folder / "status.json").read_text())
    one.status("finished", "done")
    last = json.loads((one.folder / "status.json").read_text())
    assert (first["state"], first["ended"]) == ("running", None)
    assert (last["state"], last["started"]) == ("finished", first["started"])
    assert last["ended"] >= last["started"]


def test_result_is_only_that_of_a_finished_run(tmp_path):
    one = record(tmp_path)
    assert one.result() is None
    write_json(one.folder / "result.json", {"seed": 3})
    assert one.result() is None
    one.status("finished", "done")
    assert one.result() == {"seed": 3}


@dataclass(frozen=True)
class Game:
    """The config of another kind of run."""

    kind: ClassVar[str] = "play"
    name: str = "game"
    steps: int = 3


def test_a_run_of_another_kind_is_recorded_alike(tmp_path):
    one = Record.create(Game(steps=5), tmp_path, tmp_path / "game")
    assert (one.folder / "config.yaml").read_text() == "{kind: play, name: game, steps: 5}\n"
    assert Record.open(one.folder, Game)[1] == Game(steps=5)
    with pytest.raises(ConfigError, match=r"game: expected a run of danskin train, got one of danskin play"):
        Record.open(one.folder, TrainConfig)
    with pytest.raises(ConfigError, match=r"danskin play --resume"):
        Record.create(Game(), tmp_path, one.folder)


def test_a_run_of_before_has_no_kind_and_is_training(tmp_path):
    one = record(tmp_path)
    path = one.folder / "config.yaml"
    path.write_text(path.read_text().removeprefix("kind: train\n"))
    assert Record.open(one.folder, TrainConfig)[1] == TrainConfig()
