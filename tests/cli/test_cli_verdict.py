"""`danskin evaluate --suite`: a model of one's own, its verdict, asking twice, wrong words, two processes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from danskin.evaluation import Verdict

MODULE = """
import torch

def net(width=8):
    torch.manual_seed(0)
    front = torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.ReLU()
    return torch.nn.Sequential(*front, torch.nn.Linear(width, 10))

def means():
    "The nearest class mean; its bias is still what the layer drew."
    from danskin.data import load, to_float
    digits, layer = load("digits"), torch.nn.Linear(64, 10)
    x = to_float(digits.x_train).flatten(1)
    mean = torch.stack([x[digits.y_train == k].mean(0) for k in range(10)])
    layer.weight.data.copy_(20 * (mean - mean.mean(0)))
    return torch.nn.Sequential(torch.nn.Flatten(), layer)
"""
BASE = ["--model", "mine:net", "--arg", "width=12", "--data", "digits", "--ball", "linf:0.06", "--suite", "fast"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a user's module and weights of it, trained for a moment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODULE)
    scope = {}
    exec(MODULE, scope)
    model = scope["net"](12)
    from danskin.data import load, to_float

    digits = load("digits")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(to_float(digits.x_train)), digits.y_train).backward()
        optimizer.step()
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    return tmp_path


def run(*words, **environment):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "danskin.cli", "evaluate", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=300)


def test_verdict_of_ones_own_model(home):
    words = [*BASE, "--weights", "mine.safetensors", "--examples", "60", "--certify", "auto"]
    first = run(*words)
    assert first.returncode == 0, first.stderr
    assert "robust accuracy" in first.stdout and "certified at least" in first.stdout and "report.html" in first.stdout
    assert "chunk 0: apgd-ce broke" in first.stderr
    (folder,) = (home / "verdicts").iterdir()
    found = json.loads((folder / "verdict.json").read_text())
    verdict = Verdict.from_dict(found)
    assert verdict.to_dict() == {k: found[k] for k in verdict.to_dict()}
    assert verdict.certified.hits <= verdict.robust.hits < verdict.clean.hits == found["clean"]["hits"]
    assert not (verdict.certificates & ~verdict.outcomes).any()
    card = json.loads((folder / "card.json").read_text())
    assert card["best_known_acc"] == f"{100 * verdict.robust.value:.2f}" and card["autoattack_acc"] is None
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    page = (folder / "report.html").read_text()
    assert f"{verdict.robust.hits}" in page and "<script" not in page
    again = run(*words, "--json")
    assert again.returncode == 0 and "broke" not in again.stderr  # nothing was redone
    assert json.loads(again.stdout)["robust"] == found["robust"]


def test_weights_that_nobody_trained_and_normalisation_are_told(home):
    got = run(*BASE, "--examples", "5", "--mean", "0.5", "--std", "0.25", "--out", "here", "-q")
    assert got.returncode == 0, got.stderr
    assert "warning: weights: random, as the factory made them" in got.stdout
    assert (
        "to quote" not in got.stdout.replace("not to quote", "")
        and not Verdict.from_dict(json.loads((home / "here" / "verdict.json").read_text())).quotable
    )
    found, card = (json.loads((home / "here" / name).read_text()) for name in ("verdict.json", "card.json"))
    assert "random_weights" in [flag["name"] for flag in found["flags"]] and card["unreliable"]
    assert "weights: random" in card["footnote"] and "weights: random" in (home / "here/report.html").read_text()
    assert "first layer Normalize(mean=(0.5), std=(0.25))" in found["model"]["note"]


def test_random_weights_are_not_to_be_quoted_however_good_the_accuracy(home):
    words = ["--model", "mine:means", "--data", "digits", "--ball", "linf:0.01", "--suite", "fast", "--examples", "60"]
    got = run(*words, "--out", "here", "-q")
    assert got.returncode == 0, got.stderr
    assert "<- not to be quoted" in got.stdout and "the number to quote" not in got.stdout
    found, card = (json.loads((home / "here" / name).read_text()) for name in ("verdict.json", "card.json"))
    assert [flag["name"] for flag in found["flags"] if flag["level"] == "warning"] == ["random_weights"]
    assert found["clean"]["value"] > 0.5 and not found["quotable"] and not card["danskin"]["quotable"]
    page = (home / "here" / "report.html").read_text()
    assert "robust accuracy: not to be quoted" in page and "quote this" not in page and "Not to be quoted:" in page
    scope = {}
    exec(MODULE, scope)
    save_file(scope["means"]().state_dict(), home / "means.safetensors")
    loaded = run(*words, "--weights", "means.safetensors", "--out", "there", "-q")
    assert "<- the number to quote" in loaded.stdout, loaded.stderr
    assert json.loads((home / "there" / "verdict.json").read_text())["quotable"]


def test_two_processes_give_one_verdict(home, meeting):
    words = [*BASE, "--weights", "mine.safetensors", "--examples", "40", "-q"]
    assert run(*words, "--out", "one").returncode == 0
    shared = os.environ | meeting() | {"GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "danskin.cli", "evaluate", *words, "--out", "two"]
    children = [
        subprocess.Popen(command, env=shared | {"RANK": r, "LOCAL_RANK": r}, stdout=subprocess.PIPE, text=True,
                         stderr=subprocess.PIPE) for r in "01"
    ]  # fmt: skip
    outputs = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert outputs[1][0] == ""  # one process speaks
    one, two = (json.loads((home / k / "verdict.json").read_text()) for k in ("one", "two"))
    assert one["outcomes"] == two["outcomes"]
    assert sorted(p.name for p in (home / "two" / "journal").glob("outcomes-*")) == [
        "outcomes-0000.jsonl", "outcomes-0001.jsonl"]  # fmt: skip
    third = run(*words, "--out", "two")  # another number of processes finds it answered
    assert third.returncode == 0 and "robust accuracy" in third.stdout


def test_the_form_of_the_search_is_chosen_once_for_a_folder(home, meeting):
    words = [*BASE, "--weights", "mine.safetensors", "--examples", "20", "--precision", "auto"]
    first = run(*words, "--out", "timed")
    assert first.returncode == 0 and "search: " in first.stderr and "the quickest here" in first.stderr
    found = json.loads((home / "timed" / "search.json").read_text())
    assert set(found) == {"precision", "channels_last", "seconds"} and "bfloat16" in found["seconds"]
    settings = json.loads((home / "timed" / "verdict.json").read_text())["settings"]
    assert {k: settings[k] for k in ("precision", "channels_last")} == {k: found[k] for k in settings if k in found}
    (home / "begun").mkdir()  # an evaluation that another machine has begun
    chosen = {"precision": "bfloat16", "channels_last": True, "seconds": {}}
    (home / "begun" / "search.json").write_text(json.dumps(chosen))
    shared = os.environ | meeting() | {"GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "danskin.cli", "evaluate", *words, "--out", "begun"]
    children = [
        subprocess.Popen(command, env=shared | {"RANK": r, "LOCAL_RANK": r}, stderr=subprocess.PIPE, text=True)
        for r in "01"
    ]
    spoken = [child.communicate(timeout=300)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], spoken
    assert ["search: bfloat16, channels_last" in text for text in spoken] == [True, False]
    assert json.loads((home / "begun" / "search.json").read_text()) == chosen
    settings = json.loads((home / "begun" / "verdict.json").read_text())["settings"]
    assert settings["precision"] == "bfloat16" and settings["channels_last"]


@pytest.mark.parametrize(("words", "code", "text"), [
    (["--suite", "fast"], 2, "expected a SOURCE, or --model, --data and --ball"),
    ([*BASE[:-2], "--suite", "fats"], 2, "--suite: expected one of standard, plus, rand, fast, deep, got 'fats'"),
    ([*BASE, "--ball", "l3:1"], 2, "--ball: expected a norm and a radius such as linf:8/255"),
    ([*BASE, "--ball", "linf:8"], 2, "radius: expected at most 1"),
    ([*BASE, "--certify", "crwn"], 2, "--certify: expected one of"),
    ([*BASE, "--certify-budget", "1e9"], 2, "--certify-budget: expected only with --certify auto, got --certify no"),
    ([*BASE, "--certify", "auto", "--certify-budget", "-1"], 2, "expected more than 0 multiplications, got -1"),
    ([*BASE, "--precision", "fp8"], 2, "--precision: expected one of model, bfloat16"),
    ([*BASE, "--precision", "auto", "--channels-last"], 2, "--channels-last: expected without --precision auto"),
    ([*BASE, "--arg", "width"], 2, "--arg: expected key=value"),
    ([*BASE, "--mean", "half", "--std", "1"], 2, "--mean: expected numbers such as"),
    ([*BASE, "--mean", "0.5"], 2, "expected both or none"),
    ([*BASE, "seed=3"], 2, "expected --weights, --arg and --data only without SOURCE"),
    ([*BASE, "--model", "mine:nett"], 2, "did you mean 'net'?"),
    ([*BASE, "--data", "digit"], 2, "did you mean 'digits'?"),
    ([*BASE, "--weights", "none.safetensors"], 4, "none.safetensors"),
])  # fmt: skip
def test_wrong_words(home, words, code, text):
    done = run(*words)
    assert done.returncode == code, done.stderr
    assert text in done.stderr and "Traceback" not in done.stderr


def test_an_archive_of_float_test_examples_and_fewer_of_them_than_asked_for(home):
    from danskin.data import load, to_float

    digits = load("digits").limit(test=20)
    x, y = to_float(digits.x_test).numpy(), digits.y_test.numpy()
    np.savez(home / "own.npz", x_test=x, y_test=y)
    words = [w if w != "digits" else "own.npz" for w in BASE] + ["--weights", "mine.safetensors", "--json"]
    found = run(*words, "--examples", "9999", "--out", "own")
    assert found.returncode == 0, found.stderr
    assert "--examples: 9999 asked for, 20 there" in found.stderr
    again = run(*BASE, "--weights", "mine.safetensors", "--json", "--examples", "20", "--out", "same")
    a, b = json.loads(found.stdout), json.loads(again.stdout)
    assert "asked for" not in again.stderr
    assert a["clean"] == b["clean"] and a["robust"] == b["robust"] and a["clean"]["n"] == 20


def test_the_budget_of_certificates(home):
    words = [*BASE, "--weights", "mine.safetensors", "--examples", "20", "--certify", "auto", "-q", "--out"]
    proved = {}
    for budget in ("1", "1e9"):
        done = run(*words, f"proved{budget}", "--certify-budget", budget)
        assert done.returncode == 0, done.stderr
        found = json.loads((home / f"proved{budget}" / "verdict.json").read_text())
        verdict = Verdict.from_dict(found)
        assert found["asked"]["certify_budget"] == verdict.budget == float(budget)
        proved[budget] = sum(step.proved for step in verdict.certifying)
    assert proved["1"] <= proved["1e9"] > 0


def test_folder_of_another_question(home):
    words = [*BASE, "--weights", "mine.safetensors", "--examples", "20", "-q", "--out", "here"]
    assert run(*words).returncode == 0
    other = run(*words, "--seed", "1")
    assert other.returncode == 2 and "another seed" in other.stderr


CALLABLE = (
    MODULE
    + """
from safetensors.torch import load_file

def make():
    model = net(12)
    model.load_state_dict(load_file("mine.safetensors"))
    return {returned}
"""
)


@pytest.mark.parametrize("returned", ["lambda x: model(SIGN * x)", "Signed(model)"])
def test_a_changed_model_behind_a_factory_gets_a_verdict_of_its_own(home, returned):
    words = ["--model", "mine:make", "--data", "digits", "--ball", "linf:0.01", "--suite", "fast", "--examples", "30"]
    signed = """
class Signed(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.sign = model, SIGN

    def forward(self, x):
        return self.model(self.sign * x)
"""

    def verdict(sign):
        (home / "mine.py").write_text(CALLABLE.format(returned=returned) + signed + f"SIGN = {sign}\n")
        found = run(*words, "--json", PYTHONDONTWRITEBYTECODE="1")
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    right, wrong, again = verdict(1.0), verdict(-1.0), verdict(1.0)
    assert right["clean"]["value"] > 0.5 > wrong["clean"]["value"]
    assert again["clean"] == right["clean"] and again["folder"] == right["folder"] != wrong["folder"]
    assert len(list((home / "verdicts").iterdir())) == 2
