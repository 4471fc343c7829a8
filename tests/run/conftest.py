"""Runs of the command line inside this process: exit code, stdout, stderr."""

import json
import sys
from types import SimpleNamespace

import pytest

from danskin.cli import main

#: A training run of about a second.
SMALL = [
    "digits", "objectives=[adversarial]", "data.train=260", "data.validation=60", "data.test=40", "trainer.epochs=2",
    "trainer.batch_size=40", "trainer.log_every=1", "trainer.watch={every: 3, examples: 10, steps: 2}", "threads=1",
    "attack.steps=2", "model.options={width: 4}", "evaluation.curve=[]", "evaluation.pictures=0",
    "evaluation.attacks=[{name: fgsm, ball: {name: linf, radius: 0.15}}]",
    "monitor={name: pgd, ball: {name: linf, radius: 0.15}, steps: 3}",
]  # fmt: skip


@pytest.fixture
def small():
    """Words of a small training run."""
    return ["train", *SMALL, "-q"]


@pytest.fixture
def cli(monkeypatch, capsys):
    """`danskin words...` in this process."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["danskin", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture
def numbers():
    """What result.json and metrics.jsonl of a run say, times left out; repeated events once."""

    def read(folder):
        def timeless(value):
            if isinstance(value, dict):
                return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "train_seconds")}
            return [timeless(v) for v in value] if isinstance(value, list) else value

        result = timeless(json.loads((folder / "result.json").read_text()))
        events = {}
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            event = timeless(json.loads(line))
            key = event["model"], event["event"], event["step"]
            assert events.setdefault(key, event) == event
        return result, events

    return read
