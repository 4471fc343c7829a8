"""Small data and models for training."""

import pytest
import torch
from torch import nn

from danskin.data import load
from danskin.training import SGD, Augment, Constant, OverfittingWatch, Trainer


@pytest.fixture(scope="session")
def digits():
    """((x, y) of 120 training images, (x, y) of 40 others), uint8."""
    data = load("digits")
    return (data.x_train[:120], data.y_train[:120]), (data.x_test[:40], data.y_test[:40])


@pytest.fixture
def make_model():
    """A small network for digits with the same weights at each call."""

    def make(dropout=0.0):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(256, 10)
            )

    return make


@pytest.fixture
def make_trainer():
    """A trainer of two short epochs, with settings that a test changes."""

    def make(**settings):
        watch = OverfittingWatch(every=0, examples=10, steps=2)
        defaults = {
            "epochs": 2, "batch_size": 40, "optimizer": SGD(0.05), "schedule": Constant(), "augment": Augment(),
            "watch": watch, "log_every": 1,
        }  # fmt: skip
        return Trainer(**(defaults | settings))

    return make
