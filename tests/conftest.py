"""Every test starts from the same seed, xdist workers do not fight over cores, and the command line runs in-process."""

import os
import random
import secrets
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

#: A training run of about a second.
SMALL = [
    "digits", "objectives=[adversarial]", "data.train=260", "data.validation=60", "data.test=40", "trainer.epochs=2",
    "trainer.batch_size=40", "trainer.log_every=1", "trainer.watch={every: 3, examples: 10, steps: 2}", "threads=1",
    "attack.steps=2", "model.options={width: 4}", "evaluation.curve=[]", "evaluation.pictures=0",
    "evaluation.attacks=[{name: fgsm, ball: {name: linf, radius: 0.15}}]",
    "monitor={name: pgd, ball: {name: linf, radius: 0.15}, steps: 3}",
]  # fmt: skip


if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_seed():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries draw from the global state
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def small_words():
    """Recipe and overrides of a small training run."""
    return list(SMALL)


@pytest.fixture(scope="session")
def meeting():
    """Environment in which two processes find each other, anew at every call."""

    def place():
        port = 20_000 + secrets.randbelow(12_000)  # below those the system hands out, which others may be given next
        return {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    return place


@pytest.fixture
def small(small_words):
    """Words of a small training run."""
    return ["train", *small_words, "-q"]


@pytest.fixture
def cli(monkeypatch, capsys):
    """`danskin words...` in this process."""

    def run(*words):
        from danskin.cli import main

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
