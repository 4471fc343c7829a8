"""Schedules and optimisers: golden values."""

import math

import pytest
import torch
from torch import nn

from danskin.errors import InputError
from danskin.training import SGD, AdamW, Constant, Cosine, OneCycle, Piecewise


@pytest.mark.parametrize(
    ("schedule", "golden"),
    [
        (Constant(), {0: 1, 0.5: 1, 1: 1}),
        (OneCycle(0.4), {0: 0, 0.1: 0.25, 0.4: 1, 0.7: 0.5, 1: 0}),
        (OneCycle(0.25, start=0.2, end=0.1), {0: 0.2, 0.125: 0.6, 0.25: 1, 0.625: 0.55, 1: 0.1}),
        (Piecewise(), {0: 1, 0.4999: 1, 0.5: 0.1, 0.7499: 0.1, 0.75: 0.01, 1: 0.01}),
        (Piecewise((0.2,), 0.5), {0.19: 1, 0.2: 0.5, 1: 0.5}),
        (Cosine(), {0: 1, 0.25: (1 + math.sqrt(0.5)) / 2, 0.5: 0.5, 0.75: (1 - math.sqrt(0.5)) / 2, 1: 0}),
        (Cosine(warmup=0.2, end=0.1), {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.55, 1: 0.1}),
    ],
)
def test_golden_values(schedule, golden):
    assert {p: schedule(p) for p in golden} == pytest.approx(golden, abs=1e-12)


def test_momentum_falls_to_the_peak_and_rises_again():
    cycle = OneCycle(0.25, momenta=(0.9, 0.8))
    golden = {0: 0.9, 0.125: 0.85, 0.25: 0.8, 0.4: 0.82, 1: 0.9}
    assert {p: cycle.momentum(p) for p in golden} == pytest.approx(golden, abs=1e-12)
    assert OneCycle(0.25).momentum(0.5) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneCycle(peak=1.0), r"OneCycle.peak: expected a share of training between 0 and 1, got 1.0"),
        (lambda: Piecewise((0.75, 0.5)), r"Piecewise.milestones: expected increasing shares"),
        (lambda: Piecewise((50, 75)), r"Piecewise.milestones: expected increasing shares"),
        (lambda: Cosine(warmup=1.0), r"Cosine.warmup: expected a share of training in \[0, 1\), got 1.0"),
        (lambda: SGD(lr=0), r"SGD.lr: expected a number above 0, got 0"),
        (lambda: SGD(lr=math.nan), r"SGD.lr: expected a number above 0, got nan"),
        (lambda: AdamW(weight_decay=-1), r"AdamW.weight_decay: expected a number >= 0, got -1"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()


def two_steps(optimizer, gradient=2.0, start=1.0):
    p = nn.Parameter(torch.tensor([start], dtype=torch.float64))
    o, out = optimizer([p]), []
    for _ in range(2):
        p.grad = torch.tensor([gradient], dtype=torch.float64)
        o.step()
        out.append(p.item())
    return out


def test_sgd_by_hand():
    # v = g + wd p; v <- mu v + (g + wd p); p <- p - lr v
    first = 1 - 0.1 * (2 + 0.5 * 1)
    second = first - 0.1 * (0.9 * 2.5 + 2 + 0.5 * first)
    assert two_steps(SGD(0.1, momentum=0.9, weight_decay=0.5)) == pytest.approx([first, second], abs=1e-14)


def test_nesterov_by_hand():
    first = 1 - 0.1 * (2 + 0.9 * 2)
    second = first - 0.1 * (2 + 0.9 * (0.9 * 2 + 2))
    assert two_steps(SGD(0.1, weight_decay=0, nesterov=True)) == pytest.approx([first, second], abs=1e-14)


def test_adamw_by_hand():
    # a constant gradient makes the corrected ratio 1; the decay is decoupled
    first = 1 * (1 - 0.1 * 0.5) - 0.1
    assert two_steps(AdamW(0.1, weight_decay=0.5)) == pytest.approx([first, first * 0.95 - 0.1], abs=1e-7)
