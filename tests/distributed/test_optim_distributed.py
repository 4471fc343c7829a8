"""Sharpness-aware optimisers on two processes: shards and replicas walk the path of one, and stop together."""

import optim_worker
import pytest
import torch
from optim_worker import METHODS, STEPS, base, batch, network
from processes import in_two
from torch.nn import functional as F

from danskin.run.runtime import Runtime

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
every = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def two(tmp_path_factory, meeting):
    """What each of two processes found."""
    return in_two(optim_worker.__file__, tmp_path_factory.mktemp("two"), meeting())


@pytest.fixture(scope="module")
def one():
    """What a single process finds."""
    return optim_worker.work(Runtime(torch.device("cpu")))["shards"]


def close(a, b, tolerance):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=tolerance, rtol=0)


@every
@pytest.mark.parametrize("kind", ["shards", "replicas"])
def test_two_processes_walk_the_path_of_one(two, one, method, kind):
    for found in two:
        close(found[kind][method]["weights"], one[method]["weights"], 1e-10)
        assert found[kind][method]["norm"] == pytest.approx(one[method]["norm"], rel=1e-9)
        assert found[kind][method]["taken"] == one[method]["taken"]


@every
@pytest.mark.parametrize("kind", ["shards", "replicas"])
def test_the_two_hold_the_same_weights_bit_for_bit(two, method, kind):
    a, b = (found[kind][method]["weights"] for found in two)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", ["shards", "replicas"])
def test_micro_batches_on_two_processes_walk_the_path_of_one(two, one, kind):
    for found in two:
        close(found["parts"][kind]["weights"], one["sam"]["weights"], 1e-10)
        assert found["parts"][kind]["taken"] == 2


def test_the_adversary_matters(one):
    """Otherwise the tests above would compare plain descent with itself; AE-SAM takes both kinds of steps."""
    for method in METHODS:
        if method != "plain":
            assert (
                max((a - b).abs().max() for a, b in zip(one[method]["weights"], one["plain"]["weights"], strict=True))
                > 1e-3
            )
    assert set(one["ae"]["taken"]) == {1, 2}


def by_hand(scaled):
    """m-sharpness with m of half a batch: each process's own shift, then the mean of the two gradients."""
    model = network()
    opt = base(model)
    weights = list(model.parameters())
    for step in range(STEPS):
        slopes = []
        for rank in range(2):
            x, y = batch(step, Runtime(torch.device("cpu"), rank, 2))
            g = torch.autograd.grad(F.mse_loss(model(x)[:, 0], y), weights)
            t = [w.detach().abs() + 0.01 if scaled else torch.ones_like(w) for w in weights]
            length = sum((a * b).square().sum() for a, b in zip(t, g, strict=True)).sqrt()
            before = [w.detach().clone() for w in weights]
            with torch.no_grad():
                for w, a, b in zip(weights, t, g, strict=True):
                    w += (0.7 if scaled else 0.3) * a**2 * b / length
            slopes.append(torch.autograd.grad(F.mse_loss(model(x)[:, 0], y), weights))
            with torch.no_grad():
                for w, kept in zip(weights, before, strict=True):
                    w.copy_(kept)
        for w, a, b in zip(weights, *slopes, strict=True):
            w.grad = (a + b) / 2
        opt.step()
    return [w.detach() for w in weights]


@pytest.mark.parametrize("method", ["sam", "asam"])
def test_local_shifts_are_those_by_hand_and_other_than_global_ones(two, one, method):
    wanted = by_hand(method == "asam")
    for found in two:
        close(found["local"][method]["weights"], wanted, 1e-10)
    assert max((a - b).abs().max() for a, b in zip(wanted, one[method]["weights"], strict=True)) > 1e-4


def test_processes_with_shifts_of_their_own_take_the_same_branch_and_stay_equal(two):
    a, b = (found["local"]["ae"] for found in two)
    assert a["taken"] == b["taken"] and set(a["taken"]) == {1, 2}
    assert all(torch.equal(x, y) for x, y in zip(a["weights"], b["weights"], strict=True))


@pytest.mark.parametrize("kind", ["shards", "replicas", "local"])
@pytest.mark.parametrize("bad", [0, 1])
def test_a_nan_on_one_process_skips_the_step_on_both(two, kind, bad):
    for found in two:
        assert found["bad"][f"{kind} {bad}"] == {"skipped": 1, "calls": bad + 1, "same": True}


@every
def test_a_distributed_checkpoint_taken_with_gradients_set_goes_on_bit_for_bit(two, method):
    for found in two:
        kept = found["checkpoint"][method]
        assert kept["steps"] == STEPS
        assert all(torch.equal(a, b) for a, b in zip(kept["whole"], kept["resumed"], strict=True))
