"""Step by step against the released Auto-PGD, where its repackaging (pyautoattack) is installed.

bench/peers/.venv/bin/python -m pytest tests/peers
"""

import pytest
import torch

from danskin.attacks import APGD
from danskin.minmax import L1, L2, Linf, Streams
from danskin.minmax.adaptive import AdaptiveAscent
from danskin.testing.models import mlp

autopgd = pytest.importorskip("pyautoattack.autopgd_base")


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
@pytest.mark.parametrize(
    ("ball", "norm", "tolerance"), [(Linf(0.08), "Linf", 1e-5), (L2(0.5), "L2", 1e-3), (L1(1.5), "L1", 0.05)]
)
def test_same_path_from_the_same_start(ball, norm, tolerance, loss):
    model, steps = mlp(64, 10, seed=1, width=64), 60
    x = torch.rand(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1).detach()
    attack = APGD(ball, steps=steps, loss=loss, quirks="reference")
    batch, problem = attack.batch(x, y), attack.problem(model)
    short = {"cross_entropy": "ce", "dlr": "dlr"}[loss]
    theirs = autopgd.APGDAttack(model, n_iter=steps, norm=norm, eps=ball.value, loss=short, device="cpu", verbose=False)
    theirs.init_hyperparam(x)
    with problem.guard():
        f, Y = problem.adversary_payoff(batch), problem.feasible(batch)
        start = Y.project(Streams.of_content(0, x).normal(x))
        step = ball.value if norm == "L1" else 2 * ball.value
        run = AdaptiveAscent(steps, step, start="given", quirks="reference")
        ours = run(f, start, Y)
        by_value = AdaptiveAscent(steps, step, start="given", quirks="reference", keep="value")(f, start, Y)
    _, robust, best, _ = theirs.attack_single_run(x, y, x_init=(x + start).clamp(0, 1))
    assert torch.equal(ours.settled, ~robust)
    assert 0 < int(robust.sum()) < len(x)
    assert (by_value.value - best).abs().median() <= tolerance
