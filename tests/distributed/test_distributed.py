"""Two processes give what one gives: gradients, per-example outcomes, weights, whole runs; and stop together."""

import json
import os
import signal

import pytest
import torch
import worker
from processes import danskin, finish, in_two, torchrun, wait_for_lines
from safetensors.torch import load_file

from danskin.run.runtime import Runtime

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def two(tmp_path_factory, meeting):
    """What each of two processes found."""
    return in_two(worker.__file__, tmp_path_factory.mktemp("two"), meeting())


@pytest.fixture(scope="module")
def one():
    """What a single process finds."""
    return worker.work(Runtime(torch.device("cpu")))


def same_rows(row, truth, tolerance):
    assert row.get("classes") == truth.get("classes")  # counts
    numbers, wanted = ({k: v for k, v in r.items() if k != "classes"} for r in (row, truth))
    assert numbers == pytest.approx(wanted, abs=tolerance)


def close(a, b, tolerance=1e-5):
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=tolerance, rtol=0)


def test_who_is_who(two):
    assert [t["who"] for t in two] == [(0, 2, True, "cpu"), (1, 2, False, "cpu")]
    assert [t["sum"].item() for t in two] == [3, 3]
    assert [t["shared"] for t in two] == [{"from": 0}] * 2


def test_attacks_run_on_the_raw_module(two):
    """The wrapper sees the outer forward alone; the raw module the three of the attack, too."""
    assert [t["calls"] for t in two] == [{"wrapped": 1, "raw": 4}] * 2


def test_gradients_are_those_of_the_whole_batch(two, one):
    for t in two:
        for a, b in zip(t["gradient"], one["gradient"], strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_outcomes_do_not_depend_on_the_number_of_processes(two, one):
    for rank, t in enumerate(two):
        assert torch.equal(t["correct"], one["correct"][rank::2])
    assert 0 < one["correct"].sum() < len(one["correct"])


def test_attacked_points_do_not_depend_on_the_number_of_processes(two, one):
    for rank, t in enumerate(two):
        torch.testing.assert_close(t["points"], one["points"][rank::2], atol=1e-6, rtol=0)


def test_training_with_augmentation_and_average_is_that_of_one_process(two, one):
    for t in two:
        close(t["plain"]["model"], one["plain"]["model"])
        close(t["plain"]["ema"], one["plain"]["ema"])
        assert t["plain"]["best"]["epoch"] == one["plain"]["best"]["epoch"]
        for row, truth in zip(t["plain"]["history"], one["plain"]["history"], strict=True):
            same_rows(row, truth, 1e-5)


@pytest.mark.parametrize("kind", ["plain", "norm"])
@pytest.mark.parametrize("part", ["model", "ema"])
def test_processes_end_with_the_same_weights_and_running_statistics(kind, part, two):
    """With BatchNorm, too: each saw other examples, and the mean of both is kept."""
    a, b = (t[kind][part] for t in two)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert two[0][kind]["history"] == two[1][kind]["history"]


def test_what_places_in_the_batch_keep_outlives_a_stop(two, one):
    """A checkpoint of the main process has the perturbations of all, in the order of the batch."""
    assert one["free"]["steps"] == [4, 6, 8]
    for t in two:
        close(t["free, cut"]["model"], t["free"]["model"], 0)
        close(t["free"]["model"], one["free"]["model"])
        close(t["free"]["kept"], one["free"]["kept"], 1e-6)
    assert one["free"]["kept"]["free.delta"].shape == (20, 1, 8, 8) and one["free"]["kept"]["free.delta"].any()


# whole runs, through torchrun and the command line

WORDS = [
    "digits", "objectives=[standard, adversarial]", "data.train=260", "data.validation=61", "data.test=40",
    "trainer.epochs=3", "trainer.batch_size=40", "trainer.log_every=1", "threads=1", "attack.steps=2",
    "trainer.watch={every: 3, examples: 10, steps: 2}", "trainer.augment={crop: 1}", "model.options={width: 4}",
    "evaluation.curve=[]", "evaluation.pictures=0", "checkpoint_every=2", "-q",
]  # fmt: skip


def read(folder):
    result = json.loads((folder / "result.json").read_text())["models"]
    weights = {label: load_file(folder / "checkpoints" / label / "last.safetensors") for label in result}
    return result, weights


def same_runs(folder, other, tolerance):
    (result, weights), (truth, true_weights) = read(folder), read(other)
    for label in truth:
        close(weights[label], true_weights[label], tolerance)
        for row, true_row in zip(result[label]["history"], truth[label]["history"], strict=True):
            same_rows(
                *({k: v for k, v in r.items() if k not in ("seconds", "cpu_seconds")} for r in (row, true_row)),
                tolerance,
            )
        assert result[label]["clean"] == truth[label]["clean"]
        assert result[label]["worst_case"] == truth[label]["worst_case"]


@pytest.mark.slow
def test_torchrun_gives_the_run_of_one_process(tmp_path):
    out, _ = finish(torchrun("train", *WORDS, "--out", tmp_path / "two"))
    assert out.count("run:") == 1
    finish(danskin("train", *WORDS, "--out", tmp_path / "one"))
    same_runs(tmp_path / "two", tmp_path / "one", 1e-5)
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    keys = [(e["model"], e["event"], e["step"]) for e in lines]
    assert len(keys) == len(set(keys))  # one process writes


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["torchrun", "one worker"])
def test_interrupt_stops_both_and_resume_goes_on(whom, tmp_path):
    words = [*WORDS, "trainer.epochs=8"]
    finish(torchrun("train", *words, "--out", tmp_path / "whole"))
    process = torchrun("train", *words, "--out", tmp_path / "cut")
    wait_for_lines(process, tmp_path / "cut", 8)
    pid = process.pid if whom == "torchrun" else json.loads((tmp_path / "cut/status.json").read_text())["pid"]
    os.kill(pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert json.loads((tmp_path / "cut/status.json").read_text())["state"] == "interrupted"
    assert not (tmp_path / "cut/result.json").exists()
    finish(torchrun("train", "--resume", tmp_path / "cut", "-q"))
    same_runs(tmp_path / "cut", tmp_path / "whole", 0)
