"""Weight, share, schedule and memory: what the call makes of the values."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from danskin.errors import InputError
from danskin.minmax import L2, Linf, Template
from danskin.regularizers import CURE, ELLE, ELLE_A, LLR, REGULARIZERS, GradAlign, LLRRandom, OnOff, Regularizer

BALL = Linf(0.1)


class Counting(nn.Module):
    """A model that notes how many examples pass, with gradients on and off, and what it sees."""

    def __init__(self, net):
        super().__init__()
        self.net, self.on, self.off, self.seen = net, 0, 0, []

    def forward(self, x):
        if torch.is_grad_enabled():
            self.on += len(x)
        else:
            self.off += len(x)
        self.seen.append(x.detach().clone())
        return self.net(x)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_what_every_class_says_of_itself(name):
    kind = REGULARIZERS[name]
    term = kind(BALL)
    assert isinstance(term, Regularizer)
    assert isinstance(kind.template, Template)
    assert kind.template.x == "weights"
    assert isinstance(kind.moves, str)
    assert kind.double_backward is (name not in ("elle", "elle_a"))
    assert (term.begin() == {}) is (name != "elle_a")
    assert [f.name for f in fields(kind)][:2] == ["ball", "weight"]
    assert kind(L2(1), 2.0, share=0.5, loss="margin", box=(0, 1)).weight == 2
    assert "Lecture: row" in kind.__doc__
    assert "Reference: " in kind.__doc__


@pytest.mark.parametrize("name", REGULARIZERS)
def test_the_call_weighs_the_values(smooth, name):
    s = smooth()
    schedule = {"schedule": None} if name == "elle_a" else {}
    options = {"mu": 0.0} if name == "llr" else {}
    term = REGULARIZERS[name](BALL, 3.0, **schedule, **options)
    values = term.values(s.net, s.x, s.y, seed=2)
    weighted = term(s.net, s.x, s.y, seed=2)
    torch.testing.assert_close(weighted, 3 * values)
    assert weighted.requires_grad


def test_no_weight_no_work(smooth):
    s = smooth()
    model = Counting(s.net)
    assert GradAlign(BALL, 0.0)(model, s.x, s.y).tolist() == [0.0] * 6
    assert model.on == model.off == 0


@pytest.mark.parametrize(("share", "rows"), [(0.25, 2), (0.3, 2), (0.5, 3), (0.01, 1), (0.99, 6)])
def test_a_share_is_a_few_rows_scaled(smooth, share, rows):
    s = smooth()
    model = Counting(s.net)
    part, whole = ELLE(BALL, 1000.0, share=share), ELLE(BALL, 1000.0)
    for seed in range(20):
        found, full = part(model, s.x, s.y, seed=seed).detach(), whole(s.net, s.x, s.y, seed=seed).detach()
        assert int((found != 0).sum()) == rows
        torch.testing.assert_close(found, torch.where(found != 0, full * 6 / rows, 0))
    assert model.on == 20 * 3 * rows


def test_every_row_is_picked_equally_often(smooth):
    s = smooth()
    picked = sum((ELLE(BALL, share=0.5)(s.net, s.x, s.y, seed=seed) != 0).double() for seed in range(400))
    assert bool(((picked - 200).abs() < 4 * 10).all())  # standard deviation 10


def test_a_share_does_not_depend_on_order_and_takes_radius_and_gradient_along(smooth):
    s = smooth()
    radius, g = torch.rand(6, dtype=torch.float64) * 0.3, torch.randn(6, 1, 2, 3, dtype=torch.float64)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for seed in range(5):
        found = GradAlign(Linf(radius), 1.0, share=0.5)(s.net, s.x, s.y, seed=seed, gradient=g)
        full = GradAlign(Linf(radius), 1.0)(s.net, s.x, s.y, seed=seed, gradient=g)
        torch.testing.assert_close(found, torch.where(found != 0, 2 * full, 0))
        turned = GradAlign(Linf(radius[order]), 1.0, share=0.5)(
            s.net, s.x[order], s.y[order], seed=seed, gradient=g[order]
        )
        torch.testing.assert_close(found[order], turned)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_points_stay_in_the_box_only_if_there_is_one(smooth, name):
    s = smooth()
    s.x = s.x.round()
    options = {"h": 1.0} if name == "cure" else {}
    for box, inside in (((0, 1), True), (None, False)):
        model = Counting(s.net)
        REGULARIZERS[name](BALL, box=box, **options).values(model, s.x, s.y)
        seen = torch.cat(model.seen)
        assert bool(((seen >= -1e-12) & (seen <= 1 + 1e-12)).all()) is inside


def slow_lambdas(values, most, decay=0.99, deviations=2.0, off_below=1e-3):
    """Lambda before every step, by the whole list of past values."""
    now, past, out = 0.0, [], []
    for value in values:
        out.append(now)
        jump = len(past) > 2 and value > np.mean(past) + deviations * np.std(past)
        now = most if jump else decay * now
        if now < off_below * most:
            now = 0.0
        past.append(value)
    return out


@pytest.mark.parametrize("options", [{}, {"decay": 0.5}, {"decay": 0.3, "deviations": 1.0, "off_below": 0.1}])
def test_the_schedule_is_that_of_the_whole_list(options):
    schedule, rng = OnOff(**options), np.random.default_rng(0)
    values = rng.exponential(size=300) * np.where(np.arange(300) % 70 > 60, 8, 1)
    memory, found = schedule.begin(), []
    for value in values:
        found.append(schedule.weight(memory, 4000.0))
        schedule.update(memory, float(value))
    truth = slow_lambdas(values, 4000.0, **options)
    assert found == pytest.approx(truth, rel=1e-9, abs=1e-12)
    assert 4000.0 in found
    if options:
        assert 0.0 in found[found.index(4000.0) :]


def test_the_deviation_is_that_of_the_population():
    """1, 2, 3: mean 2 and deviation 0.816, so 3.63 is the threshold; with 1 (of a sample) it would be 4."""
    for value, jumps in ((3.6, False), (3.7, True)):
        memory = OnOff().begin()
        for past in (1.0, 2.0, 3.0, value):
            OnOff().update(memory, past)
        assert bool(memory["switch"] == 1) is jumps


def test_values_that_are_not_finite_stay_out_of_the_statistics():
    schedule = OnOff()
    memory = schedule.begin()
    for value in (1.0, 2.0, 3.0):
        schedule.update(memory, value)
    held = {k: v.clone() for k, v in memory.items()}
    schedule.update(memory, float("nan"))
    assert memory == held
    schedule.update(memory, float("inf"))
    assert schedule.weight(memory, 7.0) == 7.0
    assert all(memory[k] == held[k] for k in ("count", "mean", "m2"))


def steps_of(term, s, memory, numbers, scale=lambda k: 1.0, **options):
    """(lambda, batch value) of some training steps; the last layer's scale makes the term jump."""
    held, out = s.net[-1].weight.data.clone(), []
    for k in numbers:
        s.net[-1].weight.data.copy_(held * scale(k))
        values = term.values(s.net, s.x, s.y, seed=k).detach()
        weighted = term(s.net, s.x, s.y, seed=k, memory=memory, **options)
        ratio = (weighted.detach() / values).unique()
        out.append((float(ratio.mean()), float(values.mean()), weighted.requires_grad))
        assert ratio.max() - ratio.min() <= 1e-6 * ratio.max()
    s.net[-1].weight.data.copy_(held)
    return out


def jumpy(k):
    return 5.0 if k in (12, 13, 30) else 1.0


def test_elle_a_switches_as_the_slow_twin_and_resumes_from_a_copy(smooth):
    s = smooth(20)
    term = ELLE_A(BALL, 4000.0, schedule=OnOff(decay=0.5))
    memory = term.begin()
    assert all(isinstance(v, torch.Tensor) and v.dtype == torch.float64 for v in memory.values())
    trace = steps_of(term, s, memory, range(20), jumpy)
    copied = {k: torch.as_tensor(v.item(), dtype=v.dtype) for k, v in memory.items()}
    rest = steps_of(term, s, memory, range(20, 45), jumpy)
    assert steps_of(term, s, copied, range(20, 45), jumpy) == rest
    assert copied == memory
    lambdas, values, graphs = zip(*trace, *rest, strict=True)
    assert lambdas == pytest.approx(slow_lambdas(values, 4000.0, decay=0.5), rel=1e-9)
    assert lambdas[:4] == (0.0,) * 4
    assert lambdas[12] < 100  # decided before the jump was seen
    assert lambdas[13] == pytest.approx(4000.0)
    assert graphs == tuple(value > 0 for value in lambdas)
    assert 0.0 in lambdas[14:]


def test_elle_a_looks_without_gradients_while_it_is_off(smooth):
    s = smooth()
    model, term = Counting(s.net), ELLE_A(BALL)
    memory = term.begin()
    out = term(model, s.x, s.y, memory=memory)
    assert (model.on, model.off) == (0, 18)
    assert out.tolist() == [0.0] * 6
    assert memory["count"] == 1
    assert memory["mean"] == pytest.approx(float(ELLE(BALL).values(s.net, s.x, s.y).mean().detach()), rel=1e-12)
    memory["switch"].fill_(1.0)
    assert term(model, s.x, s.y, memory=memory).requires_grad
    assert (model.on, model.off) == (18, 18)


@pytest.mark.parametrize("term", [CURE, LLRRandom, GradAlign])
def test_any_term_runs_on_the_schedule(smooth, term):
    s = smooth()
    term = term(BALL, 50.0, schedule=OnOff())
    memory = term.begin()
    trace = steps_of(term, s, memory, range(20), jumpy)
    lambdas, values, _ = zip(*trace, strict=True)
    assert lambdas == pytest.approx(slow_lambdas(values, 50.0), rel=1e-9)
    assert max(lambdas) > 0


def test_two_processes_decide_as_one(smooth):
    """Each holds half of the batch; `mean` averages what they saw."""
    s, term = smooth(20), ELLE_A(BALL)
    one, halves = term.begin(), [term.begin(), term.begin()]
    held = s.net[-1].weight.data.clone()
    for k in range(25):
        s.net[-1].weight.data.copy_(held * jumpy(k))
        whole = term(s.net, s.x, s.y, seed=k, memory=one)
        parts = [slice(0, 10), slice(10, 20)]
        seen = [term.values(s.net, s.x[p], s.y[p], seed=k).detach().mean() for p in parts]
        asked = []

        def mean(t, seen=seen, asked=asked):
            asked.append(t)
            return torch.stack(seen).mean()

        both = [term(s.net, s.x[p], s.y[p], seed=k, memory=m, mean=mean) for p, m in zip(parts, halves, strict=True)]
        torch.testing.assert_close(torch.cat(both), whole, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(asked, seen)
        assert halves[0] == halves[1]
    assert float(one["switch"]) > 0
    assert all(float(one[k]) == pytest.approx(float(halves[0][k]), rel=1e-9) for k in one)
    assert asked[0].ndim == 0
    assert not asked[0].requires_grad


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GradAlign(BALL, -1.0), "GradAlign.weight: expected a finite number >= 0, got -1"),
        (lambda: ELLE(BALL, float("nan")), "ELLE.weight: expected"),
        (lambda: ELLE(BALL, share=0.0), r"ELLE.share: expected a number in \(0, 1\], got 0"),
        (lambda: ELLE(BALL, share=1.5), "ELLE.share"),
        (lambda: ELLE(BALL, endpoints="one"), "ELLE.endpoints: expected 'both_random' or 'clean_random', got 'one'"),
        (lambda: ELLE_A(BALL, endpoints="one"), "ELLE_A.endpoints"),
        (lambda: ELLE(BALL, loss="targeted_margin"), "ELLE.loss: expected"),
        (lambda: ELLE(BALL, loss="zero_one"), "ELLE.loss: expected"),
        (lambda: ELLE(BALL, loss="nonsense"), "loss: expected one of"),
        (lambda: ELLE(BALL, box=(1, 0)), "box: expected"),
        (lambda: LLR(BALL, steps=0), "LLR.steps: expected at least 1, got 0"),
        (lambda: LLR(BALL, mu=-1.0), "LLR.mu: expected"),
        (lambda: LLR(BALL, 0.0), "LLR.weight: expected a number > 0 beside mu"),
        (lambda: LLRRandom(BALL, quirks="all"), "LLRRandom.quirks: expected 'none' or 'released', got 'all'"),
        (lambda: CURE(BALL, quirks="all"), "CURE.quirks"),
        (lambda: CURE(BALL, h=0.0), "CURE.h: expected"),
        (lambda: OnOff(decay=1.0), "OnOff.decay"),
        (lambda: OnOff(deviations=-1.0), "OnOff.deviations"),
        (lambda: OnOff(off_below=1.0), "OnOff.off_below"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize("name", REGULARIZERS)
def test_bad_batches_are_refused(smooth, name):
    s, term = smooth(), REGULARIZERS[name](BALL)
    for act in (lambda *a, **k: term(*a, memory=term.begin(), **k), term.values):
        with pytest.raises(InputError, match="floating-point"):
            act(s.net, (255 * s.x).to(torch.uint8), s.y)
        with pytest.raises(InputError, match="y: expected one label per example"):
            act(s.net, s.x, s.y[:3])
        with pytest.raises(InputError, match="empty batch"):
            act(s.net, s.x[:0], s.y[:0])
        with pytest.raises(InputError, match="expected classes 0 to 2"):
            act(s.net, s.x, s.y + 1)
    with pytest.raises(InputError, match="radius: expected one number, or one for each of 6"):
        REGULARIZERS[name](Linf(torch.rand(4))).values(s.net, s.x, s.y)


def test_a_gradient_of_another_shape_and_a_missing_memory_are_refused(smooth):
    s = smooth()
    with pytest.raises(InputError, match="gradient: expected the shape of x"):
        GradAlign(BALL).values(s.net, s.x, s.y, gradient=s.x.flatten(1))
    for memory in (None, {}):
        with pytest.raises(InputError, match=r"ELLE_A.memory: expected the tensors that begin\(\) returned"):
            ELLE_A(BALL)(s.net, s.x, s.y, memory=memory)


def test_the_shift_of_cure_grows_for_so_many_steps_each(smooth):
    s = smooth()
    term = CURE(BALL, 2.0, 0.5, rise=(0.1, 0.2), rise_steps=2)
    memory = term.begin()
    lengths = [0.1, 0.1, 0.2, 0.2, 0.5, 0.5]
    for h in lengths:
        torch.testing.assert_close(term(s.net, s.x, s.y, memory=memory), 2 * CURE(BALL, 1, h).values(s.net, s.x, s.y))
    assert (term.horizon, int(memory["rise"])) == (4, 4)
    torch.testing.assert_close(term.values(s.net, s.x, s.y), CURE(BALL, 1, 0.5).values(s.net, s.x, s.y))
    with pytest.raises(InputError, match="tensors that begin"):
        term(s.net, s.x, s.y)
    for wrong in ({"rise": (0.1,)}, {"rise": (0.1,), "rise_steps": 3, "h": None}, {"rise": (-1.0,), "rise_steps": 1}):
        with pytest.raises(InputError, match=r"CURE\.rise"):
            CURE(BALL, **({"h": 0.5} | wrong))
