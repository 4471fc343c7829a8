"""The verdict: suites, survivors, journal protocol, independence of batches and shards."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from danskin.attacks import APGD, FAB, PGD, MultiTargeted
from danskin.attacks.autoattack import AutoAttack, stages
from danskin.attacks.square import Square
from danskin.errors import DanskinWarning, InputError
from danskin.evaluation import Verdict, certify, evaluate, quicker, robustness_curve
from danskin.evaluation.examples import chunks
from danskin.evaluation.journal import ROBUST, WRONG, Memory
from danskin.losses import predict
from danskin.minmax import L1, L2, Linf
from danskin.testing.models import Counted, RowwiseLinear, convnet, mlp

BALL = Linf(0.12)


def suite(ball=BALL, **others):
    return {
        "apgd": APGD(ball, steps=10, stop=True, **others),
        "targets": MultiTargeted(ball, steps=8, classes=3, stop=True, **others),
        "square": Square(ball, queries=60, stop=True, **others),
    }


@pytest.fixture(scope="module")
def verdict(digits_net):
    model, x, y = digits_net
    return evaluate(model, (x, y), BALL, suite(), keep_points=True, diagnostics=0)


def test_verdict_adds_up(digits_net, verdict):
    model, x, y = digits_net
    assert verdict.clean.hits == int((model(x).argmax(1) == y).sum())
    assert 0 < verdict.robust.hits < verdict.clean.hits
    left = verdict.clean.hits
    for stage in verdict.stages:
        assert stage.seen == left
        left -= stage.broken
        assert verdict.by_attack[stage.name].hits == left
    assert left == verdict.robust.hits
    assert verdict.cost.forwards == sum(s.cost.forwards for s in verdict.stages)


def test_every_broken_example_has_a_point_that_shows_it(digits_net, verdict):
    model, x, y = digits_net
    broken = verdict.broken_by > 0
    assert (predict(model(verdict.points[broken])) != y[broken]).all()
    assert (verdict.points - x).abs().max() <= 0.12 + 1e-6
    assert verdict.points.min() >= 0 and verdict.points.max() <= 1
    assert torch.equal(verdict.points[~broken], x[~broken])


def test_points_outside_the_ball_are_not_believed(digits_net):
    """FAB looks at points outside the ball on its way, and tells of those that are adversarial."""
    model, x, y = digits_net
    ball = Linf(0.05)
    got = evaluate(model, (x, y), ball, {"fab": FAB(ball, steps=15, stop=True)}, keep_points=True, diagnostics=0)
    assert 0 < int((got.broken_by > 0).sum()) < got.clean.hits
    assert (got.points - x).abs().max() <= 0.05 + 1e-6


def test_stage_breaks_what_the_attack_alone_breaks(digits_net, verdict):
    model, x, y = digits_net
    alone = suite()["apgd"](model, x, y)
    assert torch.equal((verdict.broken_by == 1) | (verdict.broken_by == WRONG), alone.success)


@pytest.mark.parametrize(("batch_size", "chunk"), [(1, 7), (13, 20), (64, None), (512, 90)])
def test_batch_size_and_chunks_change_nothing(digits_net, verdict, batch_size, chunk):
    model, x, y = digits_net
    n = 24
    got = evaluate(model, (x[:n], y[:n]), BALL, suite(), batch_size=batch_size, chunk=chunk, diagnostics=0)
    assert torch.equal(got.broken_by, verdict.broken_by[:n])


def test_order_loader_and_bytes_change_nothing(digits_net, verdict):
    model, x, y = digits_net
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    pairs = torch.utils.data.TensorDataset(x[:40][order], y[:40][order])
    loader = torch.utils.data.DataLoader(pairs, batch_size=7)
    got = evaluate(model, loader, BALL, suite(), chunk=16, diagnostics=0)
    assert torch.equal(got.broken_by, verdict.broken_by[:40][order])
    raw = (x[:10] * 255).round().to(torch.uint8)
    assert torch.equal(next(chunks((raw, y[:10]), 10, torch.device("cpu"))).x, raw.float() / 255)


def test_shards_merge(digits_net, verdict):
    model, x, y = digits_net
    parts = [evaluate(model, (x, y), BALL, suite(), shard=(r, 3), chunk=20, diagnostics=0) for r in (2, 0, 1)]
    merged = Verdict.merge(parts)
    assert torch.equal(merged.broken_by, verdict.broken_by)
    assert torch.equal(merged.index, torch.arange(90))
    assert [s.broken for s in merged.stages] == [s.broken for s in verdict.stages]
    with pytest.raises(InputError, match="disjoint"):
        Verdict.merge([parts[0], parts[0]])


def test_work_is_exact_and_less_on_fragile_models(digits_net):
    model, x, y = digits_net
    counted = Counted(model)
    small = evaluate(counted, (x, y), Linf(0.02), {"apgd": APGD(Linf(0.02), steps=10, stop=True)}, diagnostics=0)
    assert small.cost.forwards == counted.forwards and small.cost.backwards == counted.backwards
    before = counted.backwards
    wide = evaluate(counted, (x, y), Linf(0.5), {"apgd": APGD(Linf(0.5), steps=10, stop=True)}, diagnostics=0)
    assert wide.robust.hits == 0
    assert counted.backwards - before == wide.cost.backwards < 0.3 * small.cost.backwards


def test_attack_with_its_own_loop_is_cut_into_batches(digits_net):
    model, x, y = digits_net
    sizes = []

    class Watch(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return model(x)

    evaluate(Watch(), (x, y), BALL, [PGD(BALL, steps=2)], batch_size=16, diagnostics=0)
    assert max(sizes) <= 16


class _Told(Memory):
    def __init__(self):
        super().__init__()
        self.found, self.over = {}, {}

    def broken(self, index, stage, points):
        for k, i in enumerate(index.tolist()):
            assert i not in self.found, "an example breaks once"
            self.found[i] = (stage, None if points is None else points[k])

    def passed(self, chunk, index, stage, cost):
        super().passed(chunk, index, stage, cost)
        for i in index.tolist():
            self.over[i] = max(stage, self.over.get(i, -1))


class _Knows(Memory):
    def __init__(self, told, wipe=()):
        super().__init__()
        self.told, self.wipe = told, wipe

    def known(self, chunk):
        index = chunk.index.tolist()
        broken = [self.told.found[i][0] if i in self.told.found and i not in self.wipe else ROBUST for i in index]
        return torch.tensor(broken), torch.tensor([-1 if i in self.wipe else self.told.over.get(i, -1) for i in index])


def test_journal_hears_everything_and_answers_for_nothing(digits_net, verdict):
    model, x, y = digits_net
    told = _Told()
    evaluate(model, (x, y), BALL, suite(), journal=told, diagnostics=0)
    assert {i: s for i, (s, _) in told.found.items()} == {
        i: int(b) for i, b in enumerate(verdict.broken_by) if b != ROBUST
    }
    counted = Counted(model)
    again = evaluate(counted, (x, y), BALL, suite(), journal=_Knows(told), diagnostics=0)
    assert torch.equal(again.broken_by, verdict.broken_by)
    assert counted.calls == 0
    some = evaluate(model, (x, y), BALL, suite(), journal=_Knows(told, wipe=range(30, 60)), diagnostics=0)
    assert torch.equal(some.broken_by, verdict.broken_by)


def test_low_precision_is_confirmed(digits_net, verdict):
    model, x, y = digits_net
    got = evaluate(model, (x, y), BALL, suite(), precision="bfloat16", diagnostics=0, keep_points=True)
    broken = got.broken_by > 0
    assert (predict(model(got.points[broken])) != y[broken]).all()
    assert abs(got.robust.value - verdict.robust.value) < 0.05


def test_quick_model_searches_and_the_model_judges(digits_net, verdict):
    model, x, y = digits_net
    same = evaluate(model, (x[:30], y[:30]), BALL, suite(), quick=quicker(model, channels_last=True), diagnostics=0)
    assert abs(same.robust.hits - int(verdict.outcomes[:30].sum())) <= 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        liar = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    got = evaluate(model, (x, y), BALL, suite(), quick=liar, diagnostics=0, keep_points=True)
    broken = got.broken_by > 0
    assert (predict(model(got.points[broken])) != y[broken]).all()
    with pytest.raises(InputError, match="quicker: expected channels_last, compile or precision"):
        quicker(model)


def test_weights_rounded_once_compute_what_autocast_does(digits_net, verdict):
    model, x, y = digits_net
    quick, weights = quicker(model, precision="bfloat16"), [p.clone() for p in model.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        there = model(x)
    assert there.dtype == torch.bfloat16 and torch.equal(quick(x), there)
    assert all(torch.equal(p, q) and p.dtype == torch.float32 for p, q in zip(model.parameters(), weights, strict=True))
    rounded = [m.weight.dtype for m in quick.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert set(rounded) == {torch.bfloat16}
    low = evaluate(model, (x, y), BALL, suite(), precision="bfloat16", diagnostics=0)
    got = evaluate(model, (x, y), BALL, suite(), quick=quick, diagnostics=0)
    assert torch.equal(got.broken_by, low.broken_by)
    with pytest.raises(InputError, match="precision"):
        quicker(model, precision="half")


def test_compiler_that_fails_is_said_and_left(digits_net, monkeypatch):
    model, x, _ = digits_net

    def compile(module, **options):
        def fails(x):
            raise RuntimeError("no compiler here")

        return fails

    monkeypatch.setattr(torch, "compile", compile)
    quick = quicker(model, compile=True)
    with pytest.warns(DanskinWarning, match="no compiler here"):
        out = quick(x)
    assert torch.allclose(out, model(x))


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5), L1(2.0)])
@pytest.mark.parametrize("shape", [(20,), (1, 6, 6)])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore:model")
def test_standard_suite_takes_any_shape_and_few_classes(ball, shape, classes, monkeypatch):
    short = {k: dataclasses.replace(a, **({"queries": 30} if k == "square" else {"steps": 5}))
             for k, a in stages(ball).items()}  # fmt: skip
    d = math.prod(shape)
    model, x = mlp(d, classes, seed=1), torch.rand(12, *shape, generator=torch.Generator().manual_seed(0))
    got = evaluate(model, (x, model(x).argmax(1)), ball, short, diagnostics=0)
    assert got.clean.hits == 12
    left_out = [s.name for s in got.stages if s.left_out]
    assert left_out == ([] if len(shape) == 3 else ["square"])
    assert ("not images" in str(got)) == (len(shape) == 1)


@pytest.mark.parametrize(
    "case", ["float64", "bfloat16", "channels_last", "box", "no_grad", "inference_mode", "autocast"]
)
def test_suite_in_every_setting(case):
    model, box, ball = convnet(4, 0), (0.0, 1.0), Linf(0.06)
    x = torch.rand(10, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    if case == "float64":
        model, x = model.double(), x.double()
    if case == "bfloat16":
        model, x = model.bfloat16(), x.bfloat16()
    if case == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    if case == "box":
        x, box = 2 * x - 1, (-1.0, 1.0)
    y = model(x).argmax(1)
    members = {k: dataclasses.replace(a, **({"queries": 30} if k == "square" else {"steps": 4}))
               for k, a in stages(ball, box=box).items()}  # fmt: skip
    context = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode,
               "autocast": lambda: torch.autocast("cpu", torch.bfloat16)}.get(case)  # fmt: skip
    if context is None:
        got = evaluate(model, (x, y), ball, members, box=box, diagnostics=0, keep_points=True)
    else:
        with context():
            got = evaluate(model, (x, y), ball, members, box=box, diagnostics=0, keep_points=True)
    broken = got.broken_by > 0
    assert (predict(model(got.points[broken])) != y[broken]).all()
    assert all(p.grad is None for p in model.parameters())


def test_radius_per_example(digits_net):
    model, x, y = digits_net
    radii = torch.tensor([0.02, 0.08, 0.12, 0.16, 0.3]).repeat(6)
    got = evaluate(model, (x[:30], y[:30]), Linf(radii), suite(Linf(radii)), chunk=11, batch_size=4, diagnostics=0)
    for radius in radii.unique().tolist():
        rows = radii == radius
        alone = evaluate(model, (x[:30][rows], y[:30][rows]), Linf(radius), suite(Linf(radius)), diagnostics=0)
        assert torch.equal(alone.broken_by, got.broken_by[rows])
    out = AutoAttack(Linf(radii[:5]))(model, x[:5], y[:5])
    assert ((out.x - x[:5]).abs().flatten(1).amax(1) <= radii[:5] + 1e-6).all()
    assert bool(out.success[4])


def test_published_compositions():
    standard = stages(Linf(0.1))
    assert list(standard) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert (standard["apgd-ce"].steps, standard["apgd-ce"].restarts) == (100, 1)
    assert (standard["apgd-t"].classes, standard["fab-t"].classes, standard["square"].queries) == (9, 9, 5000)
    l1 = stages(L1(12.0))
    assert (l1["apgd-ce"].restarts, l1["apgd-t"].classes) == (5, 5)
    assert list(stages(L2(0.5), "plus")) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert [a.draws for a in stages(L2(0.5), "rand").values()] == [20, 20]
    with pytest.raises(InputError, match="version: expected one of standard, plus, rand"):
        stages(Linf(0.1), "custom")


def test_autoattack_is_the_suite(digits_net, monkeypatch):
    model, x, y = digits_net
    short = {k: dataclasses.replace(a, **({"queries": 40} if k == "square" else {"steps": 5}))
             for k, a in stages(BALL).items()}  # fmt: skip
    monkeypatch.setattr("danskin.attacks.autoattack.stages", lambda *a, **k: short)
    out = AutoAttack(BALL)(model, x[:40], y[:40])
    got = evaluate(model, (x[:40], y[:40]), BALL, short, diagnostics=0)
    assert abs(int((~out.success).sum()) - got.robust.hits) <= 1  # other random numbers: one family per member


def test_random_models_are_judged_over_draws():
    class Noisy(nn.Module):
        def forward(self, x):
            lead = x[:, 0] - 0.5 + 0.2 * torch.randn(len(x))
            return torch.stack([lead, -lead], 1)

    x = torch.tensor([[0.95, 0.5], [0.7, 0.5], [0.55, 0.5], [0.2, 0.5]])
    y = torch.zeros(4, dtype=torch.int64)
    ball = Linf(0.1)
    members = {"a": APGD(ball, steps=4, stop=True, draws=5)}
    got = evaluate(Noisy(), (x, y), ball, members, diagnostics=0)
    assert got.broken_by.tolist()[0] == ROBUST and got.broken_by.tolist()[3] == WRONG
    wrong = torch.distributions.Normal(0, 0.2).cdf(-(x[:, 0] - 0.1 - 0.5))
    assert torch.allclose(got.probability, wrong.double(), atol=0.35)
    assert 0 < got.expected < 1
    again = evaluate(Noisy(), (x, y), ball, members, diagnostics=0)
    assert torch.equal(got.probability, again.probability)


def test_model_is_left_as_found(digits_net):
    model, x, y = digits_net
    training = nn.Sequential(nn.BatchNorm2d(1), model)
    training.train()
    state = {k: v.clone() for k, v in training.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)
        before = torch.get_rng_state()
        evaluate(training, (x[:10], y[:10]), BALL, suite())
        assert torch.equal(torch.get_rng_state(), before)
    assert training.training and all(torch.equal(v, state[k]) for k, v in training.state_dict().items())


@pytest.mark.parametrize(("arguments", "message"), [
    ({"data": torch.rand(3, 4)}, "data: expected"),
    ({"data": []}, "data: expected at least one example"),
    ({"data": [(torch.rand(2, 4), torch.zeros(2), torch.zeros(2))]}, r"data: expected \(x, y\)"),
    ({"data": (torch.rand(3, 4), torch.zeros(2))}, "as many labels as inputs"),
    ({"suite": "full"}, "suite: expected one of standard, plus, rand, fast, deep or attacks, got"),
    ({"suite": []}, "suite: expected at least one attack"),
    ({"suite": [PGD(Linf(0.2))]}, "suite: expected attacks on"),
    ({"batch_size": 0}, "batch_size: expected at least 1"),
    ({"data": (torch.rand(3, 4), torch.full((3,), 7))}, "labels: expected classes 0 to 2"),
    ({"data": (torch.rand(3, 4) + 9, torch.zeros(3))}, "box"),
])  # fmt: skip
def test_bad_input(arguments, message):
    model = RowwiseLinear(4, 3)
    given = {"data": (torch.rand(3, 4), torch.zeros(3)), "suite": [PGD(Linf(0.1))]} | arguments
    with pytest.raises(InputError, match=message):
        evaluate(model, ball=Linf(0.1), diagnostics=0, **given)


def test_verdict_reads_well(verdict):
    text = str(verdict)
    assert "clean accuracy" in text and "robust accuracy" in text and "95 %" in text
    json = verdict.to_dict()
    assert json["robust"]["hits"] == verdict.robust.hits and len(json["outcomes"]["broken_by"]) == 90
    assert [c["class"] for c in json["per_class"]] == list(range(10))


@pytest.mark.parametrize("ball", [Linf(0.03), L2(0.15)])
def test_nothing_is_certified_and_broken(digits_net, ball):
    model, x, y = digits_net
    proved = certify(model, (x, y), ball).certified
    found = evaluate(model, (x, y), ball, "fast", diagnostics=0)
    assert 0 < int(proved.sum()) <= found.robust.hits
    assert not (proved & ~found.outcomes).any()


def test_curve_never_rises(digits_net):
    model, x, y = digits_net
    points = robustness_curve(model, x[:40], y[:40], BALL, factors=(0.5, 1, 4), batch_size=64)
    assert [p.radius for p in points] == [0, 0.06, 0.12, 0.48]
    hits = [p.accuracy.hits for p in points]
    assert hits == sorted(hits, reverse=True) and hits[-1] == 0 and hits[0] > 30
    assert hits[2] == evaluate(model, (x[:40], y[:40]), BALL, "fast", diagnostics=0).robust.hits
    with pytest.raises(InputError, match="curve: expected"):
        robustness_curve(model, x, y, BALL, factors=(0, 1))


@pytest.mark.parametrize("ball", [Linf(0.12), L2(0.6), L1(2.5)])
def test_apgd_is_at_least_as_strong_as_pgd_for_the_same_passes(digits_net, ball):
    model, x, y = digits_net
    auto = APGD(ball, steps=60, loss="margin")(model, x, y)
    plain = PGD(ball, steps=61, loss="margin", first="step")(model, x, y)
    assert auto.cost.backwards <= plain.cost.backwards
    assert 0 < int(plain.success.sum()) <= int(auto.success.sum()) < len(x)
