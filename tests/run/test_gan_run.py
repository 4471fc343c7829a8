"""`danskin gan`: a folder that survives a kill, numbers beside their floors, a report, errors in a sentence."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from danskin.data import load
from danskin.errors import CheckpointError, ConfigError, DivergenceError, MissingError
from danskin.report.gan import result_lines, write_gan_report
from danskin.run import checkpoint
from danskin.run.gan import GANConfig, gan_config_of, load_gan_config, train_gan
from danskin.run.gan_judging import Judge, JudgingConfig
from danskin.run.gan_plan import plan
from danskin.run.recipe import GAN_RECIPES
from danskin.run.record import Record, read_config
from danskin.run.runtime import Runtime
from danskin.run.schema import build, plain

FEW = ["data.train=400", "data.test=160", "trainer.steps=30", "judging.live=40", "judging.examples=60", "threads=1",
       "checkpoint_every=10", "trainer.batch_size=16"]  # fmt: skip
RUNTIME = Runtime(torch.device("cpu"))


def run_in(folder, *words, recipe="gan_8_gaussians", listen=lambda event: None):
    config = load_gan_config(recipe, [*FEW, *words])
    return train_gan(config, Record.create(config, folder.parent, folder), RUNTIME, listen)


def same(one, other):
    """The weights in two files, bit for bit."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def lines(folder):
    return (folder / "metrics.jsonl").read_text()


def test_a_run_writes_its_folder_and_its_numbers_stand_beside_their_floors(tmp_path):
    events = []
    result = run_in(tmp_path / "a", listen=events.append)
    found = result["judged"]
    assert found["n"] == 60 and 0 < found["w1_floor"] < found["w1"] and found["w1"] <= found["w2"]
    assert 0 <= found["certified"] <= found["w1"] and found["coverage"]["modes"] == 8
    assert {e["event"] for e in events} == {"step", "judged", "evaluate"}
    step = next(e for e in events if e["event"] == "step")
    assert step["critic_loss"] == pytest.approx(-step["gap"], abs=1e-6) and "slope" in step
    names = {p.name for p in (tmp_path / "a" / "samples").iterdir()}
    assert {"real.npz", "000000.npz", "000030.npz"} <= names
    with np.load(tmp_path / "a/samples/000030.npz") as file:
        assert file["samples"].shape == (500, 2)
    page = write_gan_report(tmp_path / "a").read_text()
    assert "floor" in page and "W1 to held-out" in page and "<svg" in page and "http:" not in page
    assert any("proves" in line for line in result_lines(result))
    assert json.loads((tmp_path / "a/status.json").read_text())["state"] == "finished"
    record, config = Record.open(tmp_path / "a", GANConfig)
    assert train_gan(config, record, RUNTIME) == result  # a finished run is left alone


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path):
    whole = run_in(tmp_path / "whole", recipe="gan_digits")

    def stop(event):
        if event["event"] == "step" and event["step"] == 20:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "cut", recipe="gan_digits", listen=stop)
    assert json.loads((tmp_path / "cut/status.json").read_text())["state"] == "interrupted"
    page = write_gan_report(tmp_path / "cut").read_text()
    assert "ended early (interrupted)" in page and page.count("data:image/png") >= 5  # real ones and looks, two figures
    assert {"real.png", "000000.png", "000018.png"} <= {p.name for p in (tmp_path / "cut/samples").iterdir()}
    record, config = Record.open(tmp_path / "cut", GANConfig)
    resumed = train_gan(config, record, RUNTIME)
    drop = {"seconds", "environment"}
    assert {k: v for k, v in resumed.items() if k not in drop} == {k: v for k, v in whole.items() if k not in drop}
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")
    for name in ("generator.safetensors", "critic.safetensors"):
        assert same(tmp_path / "whole" / name, tmp_path / "cut" / name)


def test_what_was_flagged_and_the_time_it_took_outlive_a_stop(tmp_path):
    def stop(event):
        if event["event"] == "step" and event["step"] == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "cut", listen=stop)
    last = tmp_path / "cut/checkpoints/last.pt"
    saved = checkpoint.load(last)
    assert saved["run"]["t"] == 20 and len(saved["watch"]["past"]) == 3 and saved["seconds"] > 0
    saved["watch"]["seen"], saved["seconds"] = {"stuck": 3}, 1000.0
    checkpoint.save(last, saved)
    result = train_gan(Record.open(tmp_path / "cut", GANConfig)[1], Record(tmp_path / "cut"), RUNTIME)
    assert [(f["flag"], f["step"]) for f in result["flags"]] == [("stuck", 3)] and result["seconds"] > 1000


def test_samples_are_judged_by_held_out_examples():
    data = load("gaussians_8").limit(50, 40)
    judge = Judge(JudgingConfig(examples=20), data, seed=3)
    assert torch.equal(judge.test.sort(0).values, data.x_test.sort(0).values)
    assert not torch.equal(judge.test, data.x_test)  # in an order of the seed


def test_a_checkpoint_has_the_mean_of_all_processes_running_statistics(tmp_path):
    class Watched(Runtime):
        def average_buffers(self, model):
            for buffer in model.buffers():
                buffer.fill_(7)  # as if the others had seen something else

    conv = ["generator={name: conv, options: {width: 2}}", "critic={name: conv, options: {width: 2}}"]
    config = load_gan_config("gan_digits", [*FEW, *conv, "trainer.steps=2", "trainer.ema=0"])
    train_gan(config, Record.create(config, tmp_path, tmp_path / "a"), Watched(torch.device("cpu")))
    saved = checkpoint.load(tmp_path / "a/checkpoints/last.pt")["run"]["generator"]
    assert (saved["2.running_mean"] == 7).all()
    assert (load_file(tmp_path / "a/generator.safetensors")["2.running_var"] == 7).all()


_RUN = """
import sys, torch
from pathlib import Path
from danskin.run.gan import load_gan_config, train_gan
from danskin.run.record import Record
from danskin.run.runtime import Runtime
config = load_gan_config("gan_8_gaussians", sys.argv[2:])
train_gan(config, Record.create(config, Path("."), Path(sys.argv[1])), Runtime(torch.device("cpu")))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    words = [*FEW, "trainer.steps=150"]
    process = subprocess.Popen([sys.executable, "-c", _RUN, str(tmp_path / "killed"), *words])
    last = tmp_path / "killed/checkpoints/last.pt"
    for _ in range(6000):
        if last.is_file() and checkpoint.load(last)["run"]["t"] >= 40:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/result.json").is_file()
    record, config = Record.open(tmp_path / "killed", GANConfig)
    resumed = train_gan(config, record, RUNTIME)
    whole = run_in(tmp_path / "whole", "trainer.steps=150")
    assert resumed["judged"] == whole["judged"]
    for name in ("generator.safetensors", "critic.safetensors"):
        assert same(tmp_path / "whole" / name, tmp_path / "killed" / name)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run_in(tmp_path / "a")
    run_in(tmp_path / "b", "seed=1")
    os.replace(tmp_path / "a/checkpoints/last.pt", tmp_path / "b/checkpoints/last.pt")
    (tmp_path / "b/result.json").unlink()
    record, config = Record.open(tmp_path / "b", GANConfig)
    with pytest.raises(CheckpointError, match="of this very run"):
        train_gan(config, record, RUNTIME)


@pytest.mark.parametrize("look", ["log_every=1", "judging.every=1", "checkpoint_every=1"])
def test_divergence_is_told_with_the_step_and_keeps_the_checkpoint_from_before(look, tmp_path):
    fast = "{name: sgd, lr: 1.0e+4}"
    words = ["trainer.constraint={name: clip, c: 1.0e+30}", "trainer.critic_steps=1",
             f"trainer.critic_optimizer={fast}", f"trainer.generator_optimizer={fast}",
             "log_every=1000", "judging.every=1000", "checkpoint_every=1000", look]  # fmt: skip
    with pytest.raises(DivergenceError, match=r"step \d+: expected finite numbers"):
        run_in(tmp_path / "a", *words)
    status = json.loads((tmp_path / "a/status.json").read_text())
    assert status["state"] == "failed" and "DivergenceError" in status["message"]
    write_gan_report(tmp_path / "a")


@pytest.mark.parametrize("name", GAN_RECIPES)
def test_shipped_recipes_are_read_back_as_they_are_written(name):
    config = load_gan_config(name)
    assert build(GANConfig, plain(config)) == config and config.name == name


def test_the_plan_says_what_it_will_cost():
    told = plan(load_gan_config("gan_8_gaussians", FEW))
    assert "30 generator steps, 5 critic steps before each, of 16 examples" in told and "s of training" in told


@pytest.mark.parametrize(("word", "text"), [
    ("trainer.objective=wasserstien", "did you mean 'wasserstein'"),
    ("trainer.constraint.wieght=1", "did you mean 'weight'"),
    ("trainer.constraint.weight=-1", "lambda >= 0"),
    ("trainer.critic_steps=0", "at least 1"),
    ("data.name=gausians_8", "did you mean 'gaussians_8'"),
    ("judging.live=1", "at least 2"),
    ("latent=0", "at least 1"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_named(word, text):
    with pytest.raises(ConfigError, match=text):
        load_gan_config("gan_8_gaussians", [word])


def test_networks_that_do_not_fit_are_named(tmp_path):
    from danskin.errors import InputError

    for words, text in ((["generator.name=mpl"], "did you mean 'mlp'"), (["critic.name=conv"], "use mlp"),
                        (["generator.options={hiden: [3]}"], "did you mean 'hidden'"),
                        (["critic.options={hidden: 3}"], "iterable"),
                        (["critic.options={shape: [2]}"], "choose from hidden")):  # fmt: skip
        with pytest.raises(InputError, match=text):
            run_in(tmp_path / text, *words)


def test_own_networks_are_named_by_module_and_factory(tmp_path, monkeypatch):
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\ndef critic(width=4):\n    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), "
        "nn.Linear(width, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    result = run_in(tmp_path / "a", "critic={name: 'mynets:critic', options: {width: 6}}")
    assert result["parameters"]["critic"] == 2 * 6 + 6 + 6 + 1


def test_a_folder_without_a_run_is_no_report(tmp_path):
    with pytest.raises(MissingError, match="folder of a run"):
        write_gan_report(tmp_path)
    with pytest.raises(MissingError):
        read_config(tmp_path, GANConfig)
    assert gan_config_of({"name": "x"}).trainer.steps == 1500
