"""What every suite of attacks must satisfy, as functions that third parties run on their own suites."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from danskin.attacks.bounds import Ball
from danskin.evaluation import evaluate
from danskin.evaluation.suites import Suite
from danskin.evaluation.verdict import Verdict
from danskin.losses import predict
from danskin.minmax.measured import grown, largest_radius
from danskin.testing.expect import expect_same
from danskin.testing.models import RowwiseLinear

MakeSuite = Callable[[Ball], Suite]


def check_suite(suite: str | MakeSuite, ball: Ball, *, n: int = 8, batch_size: int = 5, seed: int = 0) -> None:
    """A tensor of equal radii gives the verdict of the number, and an example alone the one it has beside others.

    Args:
        suite: a suite by name, or ball -> attacks, on the box (0, 1).
        ball: with one number as its radius that breaks some examples of small random models on images in [0, 1].
        n: examples.
        batch_size: rows in the batch at a time; fewer than n, so that batches are cut.
        seed: of model, data and attacks.

    Raises:
        AssertionError: the suite breaks its contract; the message says how.
    """
    x = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    hidden = [RowwiseLinear(192, 16, seed + 1, 0.3), nn.ReLU()]
    model = nn.Sequential(*hidden, RowwiseLinear(16, 4, seed, 0.3)).double().eval()
    with torch.no_grad():
        y = predict(model(x))
    value = largest_radius(ball)

    def run(radius: float | Tensor, rows: Tensor) -> Verdict:
        own = grown(ball, radius)
        attacks = suite if isinstance(suite, str) else suite(own)
        return evaluate(model, (x[rows], y[rows]), own, attacks, seed=seed, batch_size=batch_size, diagnostics=0)

    every = torch.arange(n)
    wanted = run(value, every)
    same = run(torch.full((n,), value, dtype=x.dtype), every)
    expect_same(same.broken_by, wanted.broken_by, "what broke each example, a tensor of equal radii against the number")
    radii = torch.linspace(1.5 * value, 0, n, dtype=x.dtype)
    whole = run(radii, every)
    for i in every.split(1):
        alone = run(float(radii[i]), i)
        what = f"what broke example {int(i)} alone with its radius against the same in a batch"
        expect_same(alone.broken_by, whole.broken_by[i], what)
