"""`danskin train` as a whole: resumed runs equal uninterrupted ones, and stop, full disk and broken files end well."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from danskin.errors import MissingError
from danskin.run import checkpoint
from danskin.run.record import Record


@pytest.fixture
def whole(tmp_path, cli, small):
    """Folder of a run that nothing disturbed."""
    folder = tmp_path / "whole"
    done = cli(*small, "checkpoint_every=2", "--out", folder)
    assert done.code == 0, done.err
    return folder


def weights(folder, name="last", label="adversarial"):
    return load_file(folder / "checkpoints" / label / f"{name}.safetensors")


def same(folder, other, numbers):
    for name in ("last", "best"):
        a, b = weights(folder, name), weights(other, name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert numbers(folder) == numbers(other)
    assert status(folder)["state"] == "finished"
    assert not list(folder.rglob("*.tmp"))


def status(folder):
    return json.loads((folder / "status.json").read_text())


def test_layout_of_a_run(whole):
    files = {str(p.relative_to(whole)) for p in whole.rglob("*") if p.is_file() and "figures" not in p.parts}
    folder = "checkpoints/adversarial/"
    assert files == {
        "config.yaml", "command.txt", "environment.json", "status.json", "metrics.jsonl", "result.json", "report.html",
        f"{folder}last.pt", f"{folder}last.safetensors", f"{folder}best.safetensors",
    }  # fmt: skip


def test_result_says_what_was_trained_and_judged(whole):
    result = json.loads((whole / "result.json").read_text())
    model = result["models"]["adversarial"]
    assert result["data"] | {"sha256_test": 0, "classes": 0} == {
        "name": "digits", "test": 40, "train": 200, "validation": 60, "sha256_test": 0, "classes": 0,
    }  # fmt: skip
    assert (model["epochs"], len(model["history"]), model["clean"]["n"]) == (2, 2, 40)
    assert model["worst_case"]["hits"] <= min(model["clean"]["hits"], *(a["accuracy"]["hits"] for a in model["attacks"].values()))  # fmt: skip # noqa: E501


def test_same_seed_same_run(whole, tmp_path, cli, small, numbers):
    assert cli(*small, "checkpoint_every=2", "--out", tmp_path / "again").code == 0
    same(tmp_path / "again", whole, numbers)


@pytest.mark.parametrize("line", [1, 4, 7, 11, 15])
def test_interrupted_run_resumes_to_the_same_end(line, whole, tmp_path, cli, small, numbers, monkeypatch):
    """SIGINT at any event: a first step, a step before a checkpoint, a watch, an epoch, the last epoch."""
    folder, left, write = tmp_path / "cut", [line], Record.event
    handler = signal.getsignal(signal.SIGINT)

    def event(self, event):
        write(self, event)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Record, "event", event)
    cut = cli(*small, "checkpoint_every=2", "--out", folder)
    assert cut.code == 130
    assert cut.err.strip() == f"danskin: interrupted; go on with danskin train --resume {folder}"
    assert status(folder)["state"] == "interrupted"
    assert checkpoint.load(folder / "checkpoints/adversarial/last.pt")["state"]["step"] >= 1
    assert signal.getsignal(signal.SIGINT) is handler  # SIG_IGN where a shell started this in the background
    assert cli("train", "--resume", folder, "-q").code == 0
    same(folder, whole, numbers)


def test_second_interrupt_breaks_off_at_once(tmp_path, cli, small, monkeypatch):
    def event(self, event):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Record, "event", event)
    assert cli(*small, "--out", tmp_path / "cut").code == 130
    assert status(tmp_path / "cut")["state"] == "interrupted"


def test_interrupt_between_two_models(tmp_path, cli, small, numbers, monkeypatch):
    """Stopped at the end of the first model: the second is not begun; resumed, it is trained."""
    words = [w if not w.startswith("objectives") else "objectives=[standard, adversarial]" for w in small]
    assert cli(*words, "--out", tmp_path / "whole").code == 0
    write = Record.event

    def event(self, event):
        write(self, event)
        if (event["event"], event["model"], event.get("epoch")) == ("epoch", "standard", 2):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as m:
        m.setattr(Record, "event", event)
        assert cli(*words, "--out", tmp_path / "cut").code == 130
    assert not (tmp_path / "cut/checkpoints/adversarial").exists()
    assert cli("train", "--resume", tmp_path / "cut", "-q").code == 0
    same(tmp_path / "cut", tmp_path / "whole", numbers)


def test_resume_of_a_finished_run_only_tells(whole, cli):
    before = {p: p.read_bytes() for p in whole.rglob("*.*") if p.is_file() and p.suffix in (".json", ".pt", ".jsonl")}
    started = time.perf_counter()
    done = cli("train", "--resume", whole, "-q", "--json")
    assert done.code == 0
    assert time.perf_counter() - started < 5
    assert json.loads(done.out)["models"] == json.loads((whole / "result.json").read_text())["models"]
    assert {p: p.read_bytes() for p in before} == before


def test_resume_after_evaluation_was_cut(whole, cli, numbers):
    before = numbers(whole)
    (whole / "result.json").unlink()
    assert cli("train", "--resume", whole, "-q").code == 0
    assert numbers(whole) == before


def unfinished(folder):
    Record(folder).status("running", "as if")
    return folder / "checkpoints" / "adversarial" / "last.pt"


def test_truncated_checkpoint(whole, cli):
    path = unfinished(whole)
    path.write_bytes(path.read_bytes()[:500])
    done = cli("train", "--resume", whole, "-q")
    assert done.code == 2
    assert f"{path}: expected a checkpoint, got a file of 500 bytes" in done.err
    assert "delete it and start again" in done.err
    assert "Traceback" not in done.err


def test_checkpoint_of_another_kind(whole, cli):
    torch.save({"weights": torch.zeros(2)}, unfinished(whole))
    done = cli("train", "--resume", whole, "-q")
    assert done.code == 2
    assert "last.pt: expected a checkpoint of danskin train, got a file with 'weights'" in done.err


@pytest.mark.parametrize("change", [("width: 4", "width: 5"), ("epochs: 2", "epochs: 3")])
def test_checkpoint_of_another_config(change, whole, cli):
    path, config = unfinished(whole), whole / "config.yaml"
    assert change[0] in config.read_text()
    config.write_text(config.read_text().replace(*change))
    done = cli("train", "--resume", whole, "-q")
    assert done.code == 2
    assert f"{path}: expected a checkpoint of this very config, got one of another" in done.err


def test_full_disk_keeps_the_last_checkpoint(tmp_path, cli, small, whole, numbers, monkeypatch):
    """The third checkpoint does not fit: exit code 4, and after clearing up the run goes on to the same end."""
    folder, save, calls = tmp_path / "cut", checkpoint.save, []

    def third_fails(path, value):
        calls.append(path)
        if len(calls) == 3:
            raise MissingError(f"{path}: expected to write the file, got [Errno 28]", "free some space")
        save(path, value)

    monkeypatch.setattr(checkpoint, "save", third_fails)
    done = cli(*small, "checkpoint_every=2", "--out", folder)
    assert (done.code, status(folder)["state"]) == (4, "failed")
    assert "free some space" in done.err
    assert checkpoint.load(folder / "checkpoints/adversarial/last.pt")["state"]["step"] == 4
    assert cli("train", "--resume", folder, "-q").code == 0
    same(folder, whole, numbers)


def test_full_disk_of_the_metrics(tmp_path, cli, small, monkeypatch):
    create = Record.create

    def on_a_full_disk(*args):
        record = create(*args)
        (record.folder / "metrics.jsonl").symlink_to("/dev/full")
        return record

    monkeypatch.setattr(Record, "create", on_a_full_disk)
    done = cli(*small, "--out", tmp_path / "run")
    assert done.code == 4
    assert "No space left on device" in done.err
    assert "Traceback" not in done.err


def test_divergence_is_exit_code_1_and_told(tmp_path, cli, small):
    done = cli(*small, "trainer.optimizer.lr=1e9", "--out", tmp_path / "run")
    assert done.code == 1
    assert done.err.startswith("danskin: training: expected ")
    assert status(tmp_path / "run")["state"] == "failed"


def test_folder_with_content_is_not_overwritten(whole, cli, small):
    done = cli(*small, "--out", whole)
    assert done.code == 2
    assert f"or go on with danskin train --resume {whole}" in done.err


def test_vectors_from_recipe_to_report(tmp_path, cli, small):
    words = [w for w in small if not w.startswith(("digits", "model.options"))]
    words += ["data.name=two_moons", "data.train=260", "data.validation=60", "data.test=40", "model.name=mlp"]
    done = cli(*words, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["data"]["name"] == "two_moons"
    assert not (tmp_path / "run" / "examples.npz").exists()


def test_evaluation_with_a_list_of_attacks_keeps_every_row(tmp_path, cli, small):
    words = [w for w in small if not w.startswith("evaluation.attacks")]
    attack = "{name: pgd, ball: {name: linf, radius: 0.1}, steps: 2, step: %s}"
    listed = ", ".join(attack % step for step in (0.01, 0.02, 0.03))
    done = cli(*words, f"evaluation.attacks=[{listed}]", "--out", tmp_path / "run", "--json")
    rows = json.loads(done.out)["models"]["adversarial"]["attacks"]
    assert list(rows) == ["PGD-2 linf 0.1", "PGD-2 linf 0.1 #2", "PGD-2 linf 0.1 #3"]
    assert ["step=0.01" in r["attack"] for r in rows.values()] == [True, False, False]


def start(words, folder=None):
    """The command line in a process of its own."""
    more = ["--out", str(folder)] if folder else []
    return subprocess.Popen(
        [sys.executable, "-m", "danskin.cli", *map(str, words), *more],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def send_after(process, folder, number, lines, delay):
    """Send a signal a moment after metrics.jsonl has so many lines."""
    path = folder / "metrics.jsonl"
    while process.poll() is None:
        if path.is_file() and len(path.read_bytes().splitlines()) >= lines:
            time.sleep(delay)
            process.send_signal(number)
            break
        time.sleep(0.002)
    return process.communicate(timeout=120)


def check_files(folder):
    """What a kill leaves is readable: whole files, and at most one torn line."""
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    for path in folder.rglob("last.pt"):
        checkpoint.load(path)
    for path in folder.rglob("*.tmp"):
        assert path.name.startswith(".")
    for line in (folder / "metrics.jsonl").read_bytes().split(b"\n")[:-1]:
        json.loads(line)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_9_loses_nothing(seed, tmp_path, cli, small, numbers):
    """Killed for real at random moments until it gets through: the same weights, results and metrics."""
    words = [*small, "trainer.epochs=6", "checkpoint_every=2", "trainer.augment.crop=1", "trainer.ema=0.9"]
    whole, folder = tmp_path / "whole", tmp_path / "cut"
    assert cli(*words, "--out", whole).code == 0
    total, chance = len((whole / "metrics.jsonl").read_text().splitlines()), random.Random(seed)
    process, kills = start(words, folder), 0
    for at in sorted(chance.sample(range(1, total), 3)):
        send_after(process, folder, signal.SIGKILL, at, chance.uniform(0, 0.05))
        kills += process.returncode == -signal.SIGKILL
        check_files(folder)
        process = start(["train", "--resume", folder, "-q"])
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert kills >= 2
    same(folder, whole, numbers)


SEVERAL = ["sam", "asam", "gsam", "friendlysam", "looksam", "aesam", "esam", "bisam", "saf", "mesa", "sampa"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL)
def test_kill_9_under_every_optimiser(name, tmp_path, cli, small, numbers):
    """Killed inside an epoch: what the optimiser keeps is there again, bit for bit."""
    words = [
        *small,
        f"trainer.optimizer.name={name}",
        "trainer.optimizer.base={name: sgd, lr: 0.05}",
        "trainer.epochs=4",
    ]
    whole, folder = tmp_path / "whole", tmp_path / "cut"
    assert cli(*words, "checkpoint_every=1", "--out", whole).code == 0
    process = start([*words, "checkpoint_every=1"], folder)
    send_after(process, folder, signal.SIGKILL, 6, 0.02)
    assert process.returncode == -signal.SIGKILL
    check_files(folder)
    assert cli("train", "--resume", folder, "-q").code == 0
    same(folder, whole, numbers)


def test_kill_9_once(tmp_path, cli, small, numbers, whole):
    folder = tmp_path / "cut"
    process = start([*small, "checkpoint_every=2"], folder)
    send_after(process, folder, signal.SIGKILL, 6, 0.0)
    assert process.returncode == -signal.SIGKILL
    check_files(folder)
    assert cli("train", "--resume", folder, "-q").code == 0
    same(folder, whole, numbers)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_from_outside_ends_with_130(number, tmp_path, cli, small, numbers):
    words = [*small, "trainer.epochs=6", "checkpoint_every=2"]
    assert cli(*words, "--out", tmp_path / "whole").code == 0
    process = start(words, tmp_path / "cut")
    _, err = send_after(process, tmp_path / "cut", number, 8, 0.02)
    assert process.returncode == 130, err
    assert status(tmp_path / "cut")["state"] == "interrupted"
    assert cli("train", "--resume", tmp_path / "cut", "-q").code == 0
    same(tmp_path / "cut", tmp_path / "whole", numbers)


def test_training_begins_with_given_weights(whole, tmp_path, cli, small):
    """Steps too short to matter show what it began with; a resumed run does not need the file any more."""
    file, folder = tmp_path / "w.safetensors", tmp_path / "tuned"
    file.write_bytes((whole / "checkpoints/adversarial/last.safetensors").read_bytes())
    words = [*small, f"model.weights={file}", "trainer.optimizer.lr=1e-30"]
    assert cli(*words, "--out", folder).code == 0
    begun, tuned = weights(whole), weights(folder)
    assert all(torch.equal(begun[k], tuned[k]) for k in begun if "running" not in k and "num_batches" not in k)
    assert json.loads((folder / "result.json").read_text())["model"]["weights"] == str(file)
    file.unlink()
    (folder / "result.json").unlink()
    assert cli("train", "--resume", folder, "-q").code == 0
    gone = cli(*words, "--out", tmp_path / "gone")
    assert gone.code != 0 and "expected weights, got nothing there" in gone.err
    other = cli(*small, f"model.weights={whole}/checkpoints/adversarial/last.safetensors", "model.options.width=5",
                "--out", tmp_path / "other")  # fmt: skip
    assert other.code != 0 and "expected weights of this architecture" in other.err
