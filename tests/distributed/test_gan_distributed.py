"""A GAN trained by two processes, on half of each batch each, is that of one process on the whole."""

import json
import os
import signal

import gan_worker
import pytest
import torch
from processes import danskin, finish, in_two, torchrun, wait_for_lines
from safetensors.torch import load_file

from danskin.run.runtime import Runtime

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def two(tmp_path_factory, meeting):
    """What each of two processes found."""
    return in_two(gan_worker.__file__, tmp_path_factory.mktemp("gan"), meeting())


@pytest.mark.parametrize("name", gan_worker.TABLE)
def test_weights_are_those_of_one_process(name, two):
    one = gan_worker.work(Runtime(torch.device("cpu")))
    for a, b, whole in zip(two[0][name], two[1][name], one[name], strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, whole, atol=1e-6, rtol=0)


def test_batchnorm_runs_without_sending_buffers_around(two):
    for a, b in zip(two[0]["batchnorm"], two[1]["batchnorm"], strict=True):
        assert torch.equal(a, b)  # the weights agree
    pairs = list(zip(two[0]["buffers"], two[1]["buffers"], strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)  # each has seen examples of its own


# whole runs, through torchrun and the command line

WORDS = [
    "gan_digits", "data.train=300", "data.test=100", "trainer.steps=120", "trainer.batch_size=16", "trainer.ema=0.9",
    "judging.live=40", "judging.examples=60", "checkpoint_every=20", "log_every=5", "-q",
    # Adam divides by the size of a gradient: where that is rounding, it makes steps of it
    "trainer.generator_optimizer={name: sgd, lr: 0.1}", "trainer.critic_optimizer={name: sgd, lr: 0.1}",
]  # fmt: skip


def weights(folder):
    return {k: v for name in ("generator", "critic") for k, v in load_file(folder / f"{name}.safetensors").items()}


def judged(folder):
    return json.loads((folder / "result.json").read_text())["judged"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two processes that nobody interrupted, and what it printed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, finish(torchrun("gan", *WORDS, "--out", folder))[0]


@pytest.mark.slow
def test_torchrun_gives_the_gan_of_one_process(whole, tmp_path):
    two, out = whole
    assert out.count("run:") == 1 and out.count("W1 to held-out examples") == 1
    finish(danskin("gan", *WORDS, "--out", tmp_path / "one"))
    a, b = weights(two), weights(tmp_path / "one")
    assert a.keys() == b.keys()
    for name, value in b.items():
        torch.testing.assert_close(a[name], value, atol=1e-5, rtol=0)
    for name in ("w1", "w1_floor", "w2", "gap"):
        assert judged(two)[name] == pytest.approx(judged(tmp_path / "one")[name], abs=1e-5)
    events = [json.loads(line) for line in (two / "metrics.jsonl").read_text().splitlines()]
    keys = [(e["event"], e["step"], e.get("flag")) for e in events]
    assert len(keys) == len(set(keys))  # one process writes


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGINT to torchrun", "SIGTERM to one worker", "SIGKILL to both"])
def test_a_gan_that_is_stopped_goes_on_under_torchrun_bit_for_bit(how, whole, tmp_path):
    process = torchrun("gan", *WORDS, "--out", tmp_path / "cut")
    wait_for_lines(process, tmp_path / "cut", 12)
    pid = json.loads((tmp_path / "cut/status.json").read_text())["pid"]
    os.kill(process.pid if how == "SIGINT to torchrun" else pid, getattr(signal, how.split()[0]))
    process.communicate(timeout=60)  # torchrun ends the other one
    assert process.returncode != 0 and not (tmp_path / "cut/result.json").exists()
    state = json.loads((tmp_path / "cut/status.json").read_text())["state"]
    assert state == ("running" if "KILL" in how else "interrupted")
    finish(torchrun("gan", "--resume", tmp_path / "cut", "-q"))
    a, b = weights(tmp_path / "cut"), weights(whole[0])
    assert all(torch.equal(a[name], b[name]) for name in b) and judged(tmp_path / "cut") == judged(whole[0])
