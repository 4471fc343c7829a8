"""Minimum-norm attacks with gradients: closed forms of affine models, targets, and each algorithm's own promises."""

import dataclasses
import itertools
import math

import pytest
import torch

from danskin.attacks.carlini_wagner import CarliniWagner, Constants, Progress
from danskin.attacks.closest import annealed
from danskin.attacks.ddn import DDN
from danskin.attacks.deepfool import DeepFool
from danskin.attacks.ead import EAD
from danskin.attacks.fmn import FMN
from danskin.minmax import L1, L2, Linf, Streams
from danskin.minmax.sets import vector_norm
from danskin.testing.models import Counted, RowwiseLinear, convnet, mlp

D, CLASSES = 16, 4
DUAL = {Linf: 1, L2: 2, L1: math.inf}
WIDE = {Linf: Linf(0.9), L2: L2(3.0), L1: L1(9.0)}


def affine(n=12, outputs=CLASSES, seed=2):
    """An affine model in float64, inputs near the middle of the box and not far from the boundary, their labels."""
    model = RowwiseLinear(D, outputs, seed).double()
    model.bias.data -= 0.5 * model.weight.data.sum(1)
    x = 0.4 + 0.2 * torch.rand(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z = model(x).detach()
    y = z.argmax(1) if outputs > 1 else torch.where(z[:, 0] >= 0, 1, -1)
    return model, x, y


def distances(model, x, y, norm, targets=None):
    """min over classes of |margin| / dual norm of the difference of rows; with targets to where they win over all."""
    z, w, q = model(x).detach(), model.weight.detach(), DUAL[norm]
    if len(w) == 1:
        return z[:, 0].abs() / torch.linalg.vector_norm(w, q)
    per_class = torch.stack(
        [
            (z[torch.arange(len(y)), y] - z[:, j]) / torch.linalg.vector_norm(w[j] - w[y], q, dim=1).clamp_min(1e-30)
            for j in range(len(w))
        ],
        1,
    )
    per_class[torch.arange(len(y)), y] = math.inf
    return per_class.amin(1) if targets is None else per_class[torch.arange(len(y)), targets]


EXACT = {  # attack, and how far above the closed form its worst example may end
    "deepfool l2": (DeepFool(WIDE[L2], refine=0), 0.0203),
    "deepfool linf": (DeepFool(WIDE[Linf], refine=0), 0.0203),
    "deepfool, refined": (DeepFool(WIDE[L2], refine=12), 3e-4),
    "ddn": (DDN(WIDE[L2], steps=200, norm=0.3), 0.02),
    "fmn linf": (FMN(WIDE[Linf], steps=100), 2e-3),
    "fmn l2": (FMN(WIDE[L2], steps=100), 2e-3),
    "fmn l1": (FMN(WIDE[L1], steps=100), 2e-3),
    "carlini wagner": (CarliniWagner(WIDE[L2], steps=250, searches=6, first_constant=0.05), 0.02),
    "ead l1": (EAD(WIDE[L1], steps=250, searches=7, first_constant=0.05, sparsity=0.05, rule="l1"), 0.05),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("outputs", [1, 2], ids=["one output", "two classes"])
def test_closest_point_of_an_affine_model(name, outputs):
    attack, tolerance = EXACT[name]
    attack = dataclasses.replace(attack, loss="logistic" if outputs == 1 else "cross_entropy")
    model, x, y = affine(outputs=outputs)
    out = attack(model, x, y)
    ratio = attack.ball.norm(out.delta) / distances(model, x, y, type(attack.ball))
    assert bool(out.success.all())
    assert float(ratio.min()) >= 1 - 1e-9 and float(ratio.max()) <= 1 + tolerance
    if name.startswith("deepfool l"):  # exactly the overshoot, and the slack of 1e-4 against rounding
        assert torch.allclose(ratio, torch.full_like(ratio, 1.02 * 1.0001), rtol=1e-9)


@pytest.mark.parametrize("norm", [L2, Linf])
def test_deepfool_finds_the_nearest_of_several_classes(norm):
    """Not the likeliest: each wrong class is weighed by its gradient."""
    model, x, y = affine(40)
    out = DeepFool(WIDE[norm], refine=0)(model, x, y)
    ratio = WIDE[norm].norm(out.delta) / distances(model, x, y, norm)
    assert float(ratio.min()) >= 1.02 and float(ratio.max()) <= 1.02 * 1.0001 * (1 + 1e-9)
    likeliest = model(x).scatter(1, y[:, None], -math.inf).argmax(1)
    assert not torch.equal(model(out.x).argmax(1), likeliest)
    one = DeepFool(WIDE[norm], refine=0, candidates=1)(model, x, y)
    assert float((WIDE[norm].norm(one.delta) / distances(model, x, y, norm)).max()) > 1.05


def test_ead_perturbs_fewer_pixels_than_an_l2_attack():
    model, x, y = affine()
    sparse = EAD(WIDE[L2], steps=100, searches=5, first_constant=0.1)(model, x, y).delta
    dense = DDN(WIDE[L2])(model, x, y).delta
    assert float((sparse != 0).double().mean()) < 0.5 < 0.9 < float((dense != 0).double().mean())


def test_ead_ranks_by_its_rule():
    model, x, y = affine()
    options = {"steps": 100, "searches": 5, "first_constant": 0.1, "sparsity": 0.02, "refine": 0}
    en = EAD(WIDE[L1], rule="en", **options)(model, x, y).delta
    l1 = EAD(WIDE[L1], rule="l1", **options)(model, x, y).delta

    def elastic(d):
        return vector_norm(d, 2) ** 2 + 0.02 * vector_norm(d, 1)

    assert bool((elastic(en) <= elastic(l1) + 1e-12).all()) and bool(
        (vector_norm(l1, 1) <= vector_norm(en, 1) + 1e-12).all()
    )
    assert not torch.equal(en, l1)


def test_ead_makes_its_first_steps():
    """By hand for an affine lead <w, d> - gap: gradient 2 u - c w, threshold, clip, momentum k / (k + 3)."""
    model, x, y = affine(1, outputs=1)
    w, at = -float(y) * model.weight[0].detach(), []

    def watched(z):
        at.append((z.detach() - x)[0])
        return model(z)

    options = {"searches": 1, "first_constant": 0.5, "sparsity": 1e-3, "abort": False, "refine": 0, "step": 0.02}
    EAD(L1(9.0), steps=8, loss="logistic", **options)(watched, x, y)
    u = before = torch.zeros(D, dtype=torch.float64)
    for k in range(6):
        assert torch.allclose(at[k], u)
        z = u - 0.02 * math.sqrt(1 - k / 8) * (
            2 * u - 0.5 * w * (w @ u < w @ w * distances(model, x, y, L2)[0] / w.norm())
        )
        delta = torch.where(z > 1e-3, z - 1e-3, torch.where(z < -1e-3, z + 1e-3, 0.0)).clamp(-x[0], 1 - x[0])
        u, before = (delta + k / (k + 3) * (delta - before)).clamp(-x[0], 1 - x[0]), delta
    assert float(u.abs().max()) > 0.01


TARGETED = {
    "ddn": DDN(WIDE[L2], steps=200),
    "fmn": FMN(WIDE[L2], steps=200),
    "carlini wagner": CarliniWagner(WIDE[L2], steps=100, searches=4, first_constant=0.5),
    "ead": EAD(WIDE[L1], steps=100, searches=4, first_constant=0.5),
}


@pytest.mark.parametrize("name", TARGETED)
def test_targets_are_reached_and_are_farther(name):
    attack = TARGETED[name]
    model, x, y = affine()
    targets = (y + 1) % CLASSES
    out = attack(model, x, y, targets=targets)
    assert bool(out.success.all()) and torch.equal(model(out.x).argmax(1), targets)
    norms = attack.ball.norm(out.delta)
    # a lower bound: at least as far as the plane between label and target
    assert bool((norms >= distances(model, x, y, type(attack.ball), targets) * (1 - 1e-9)).all())
    free = attack.ball.norm(attack(model, x, y).delta)
    assert float(norms.mean()) > float(free.mean())


@pytest.mark.parametrize(
    "name", ["fmn linf", "fmn l2", "fmn l1", "ddn", "carlini wagner", "deepfool l2", "deepfool linf"]
)
def test_pixels_at_the_ends_of_the_box(name):
    """Half of the pixels cannot move one way: peers leave many such examples unbroken."""
    attack = EXACT[name][0]
    model = mlp(D, CLASSES, 5, width=32).double()
    x = torch.rand(24, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).round()
    x[:, ::4] = 0.5
    y = model(x).argmax(1)
    out = dataclasses.replace(attack, ball=type(attack.ball)({Linf: 1.0, L2: 4.0, L1: 16.0}[type(attack.ball)]))(
        model, x, y
    )
    assert float(out.success.double().mean()) >= 0.95


def test_carlini_wagner_keeps_the_confidence():
    model, x, y = affine()
    attack = CarliniWagner(WIDE[L2], steps=150, searches=6, first_constant=0.1, confidence=1.0)
    out = attack(model, x, y)
    z = model(out.x).detach()
    rival = z.scatter(1, y[:, None], -math.inf).amax(1) - z[torch.arange(len(y)), y]
    assert bool(out.success.all()) and bool((rival >= 1.0 - 1e-9).all())


def test_carlini_wagner_runs_each_example_on_its_own():
    """One whose loss stalls at once does not end the runs of others, nor they its own (a sum over the batch would)."""
    model, x, y = affine(6)

    def half_dead(z):
        return torch.where(z[:, :1] > 0.55, torch.tensor([9.0, 0.0, 0.0, 0.0]).to(z), model(z))

    x[:3, 0], x[3:, 0], y[:3] = 0.9, 0.45, 0
    attack = CarliniWagner(L2(3.0), steps=40, searches=4, first_constant=0.5)
    whole = attack(half_dead, x, y)
    passes = 0
    for i in range(6):
        one = attack(half_dead, x[i : i + 1], y[i : i + 1])
        passes += one.cost.forwards
        assert torch.equal(one.x[0], whole.x[i]) and bool(one.success[0]) == bool(whole.success[i])
    assert whole.cost.forwards == passes


def test_constants_bracket_then_halve():
    constants = Constants.begin(torch.zeros(3), 0.1)
    yes, no = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    constants = constants.next(yes, no)  # the first succeeded, the second failed, the third still runs
    assert constants.c.tolist() == pytest.approx([0.05, 1.0, 0.1]) and constants.tried.tolist() == [1, 1, 0]
    constants = constants.next(yes, torch.tensor([False, True, False]))
    assert constants.c.tolist() == pytest.approx([0.075, 0.55, 0.1])


def test_progress_compares_the_lowest_losses():
    progress = Progress.begin(torch.zeros(2))
    idle = torch.zeros(2, dtype=torch.bool)
    losses = [(1.0, 1.0), (0.5, 2.0), (0.9, 0.9999), (0.4, 3.0), (0.8, 1.5), (0.6, 5.0)]
    seen = []
    for k, loss in enumerate(losses):
        progress, idle = progress.after(torch.tensor(loss), torch.full((2,), k + 1), 2)
        seen.append(idle.tolist())
    # checks at steps 2, 4 and 6: the first falls from 0.5 to 0.4 and then stays; the second never by 0.01 %
    assert seen == [[False, False], [False, False], [False, False], [False, True], [False, False], [True, True]]
    assert progress.restarted(torch.tensor([True, False])).lowest.tolist() == pytest.approx([math.inf, 0.9999])


def test_annealed_is_half_a_cosine():
    assert [annealed(k, 4, 1.0, 0.01) for k in (0, 2, 4)] == pytest.approx([1.0, 0.505, 0.01])


def test_ddn_follows_its_norms():
    """By hand: norms 0.5 * (1.05, 1.05^2, ...) until adversarial, along one direction (an affine model)."""
    model, x, y = affine(1)
    at = []

    def watched(z):
        at.append(float((z.detach() - x).norm()))
        return model(z)

    DDN(L2(3.0), steps=6, norm=0.1, shrink=0.2, refine=0)(watched, x, y)
    norms = [0.0]
    size, edge = 0.1, float(distances(model, x, y, L2))
    for _ in range(5):
        size *= 0.8 if norms[-1] > edge else 1.2
        norms.append(size)
    assert at == pytest.approx(norms)


@pytest.mark.parametrize("norm", [Linf, L2, L1])
def test_fmn_goes_to_the_linear_boundary_first(norm):
    model, x, y = affine(1)
    at = []

    def watched(z):
        at.append(float(WIDE[norm].norm(z.detach() - x)))
        return model(z)

    FMN(WIDE[norm], steps=3, refine=0, shrink=0.1, last_shrink=0.1)(watched, x, y)
    edge = 1.001 * float(distances(model, x, y, norm))
    assert at[:2] == pytest.approx([0.0, edge], rel=1e-6)
    if norm is L2:
        assert at[2] == pytest.approx(0.9 * edge, rel=1e-6)


def test_fmn_never_goes_beyond_its_record_after_a_success():
    """The box takes part of a step, the point is nearer than its radius: the next radius starts from the point."""
    w, at = torch.tensor([[1.0, 0.9]], dtype=torch.float64), []
    x = torch.tensor([[0.3, 0.97]], dtype=torch.float64)

    def model(z):
        at.append((z.detach() - x).norm())
        return (z * w).sum(1) - 1.3

    FMN(L2(1.0), steps=12, shrink=1e-4, last_shrink=1e-4, refine=0, loss="hinge")(model, x, torch.tensor([-1]))
    edge = math.hypot(1.3 - 0.3 - 0.9, 0.03)
    record, hits = math.inf, 0
    for norm, after in itertools.pairwise(map(float, at)):
        if norm >= edge * (1 - 1e-12):
            record, hits = min(record, norm), hits + 1
            assert after <= record * (1 + 1e-12)
    assert hits >= 1


def test_fmn_steps_along_signs_in_linf():
    model, x, y = affine(1)
    at = []

    def watched(z):
        at.append((z - x).detach())
        return model(z)

    FMN(Linf(0.9), steps=2, step=1e-3, refine=0)(watched, x, y)
    assert torch.allclose(at[1].abs(), torch.full((1, D), 1e-3 / math.sqrt(D), dtype=torch.float64))


def test_carlini_wagner_minimizes_its_objective():
    """With a c too small to succeed: |d|^2 - c <w, d> is least at d = c w / 2."""
    model, x, y = affine(1, outputs=1)
    w, at = -float(y) * model.weight[0].detach(), []

    def watched(z):
        at.append((z - x).detach())
        return model(z)

    c = 0.5 * float(distances(model, x, y, L2) / w.norm())
    CarliniWagner(L2(1.0), steps=500, searches=1, first_constant=c, abort=False, loss="logistic")(watched, x, y)
    assert torch.allclose(at[499][0], c * w / 2, atol=2e-4)
    assert float(w.norm() * c) > 0.02


def test_carlini_wagner_reaches_the_far_end_of_the_box():
    out = CarliniWagner(L2(1.0), steps=1000, searches=1, first_constant=10.0, stop=True)(
        lambda z: torch.cat([torch.full_like(z, 0.97), z], 1), torch.zeros(1, 1), torch.tensor([0])
    )
    assert bool(out.success) and 0.97 <= float(out.x) <= 0.99


@pytest.mark.parametrize("name", EXACT)
def test_points_are_in_ball_and_box_before_anybody_clips_them(name):
    attack = EXACT[name][0]
    model = mlp(D, CLASSES, 5).double()
    x = torch.rand(6, D, dtype=torch.float64).round()
    batch = attack.batch(x, model(x).argmax(1))
    problem = attack.problem(model)
    with problem.guard():
        payoff, Y = problem.adversary_payoff(batch), problem.feasible(batch)
        found = attack.maximizer()(payoff, problem.start(batch), Y, Streams.of_content(0, x))
    assert bool((Y.violation(found.y) <= 1e-12).all())


def test_deepfool_costs_one_forward_and_a_backward_for_each_candidate():
    model, x, y = affine()
    for candidates, backwards in ((None, 3), (1, 1), (2, 2)):
        counted = Counted(model)
        DeepFool(WIDE[L2], candidates=candidates, refine=0)(counted, x, y)
        assert counted.backwards == backwards * 12 and counted.calls == 2


def test_saturated_cross_entropy_does_not_stop_ddn():
    model, x, y = affine()
    sharp = lambda z: 1e4 * model(z.double())  # noqa: E731  gradient exactly 0 in float32
    out = DDN(L2(3.0))(lambda z: sharp(z).float(), x.float(), y)
    assert float(out.success.float().mean()) > 0.9


def test_more_work_is_never_farther():
    """A longer path of DeepFool, more values of c, more refinement: the same points and then some."""
    model = convnet(CLASSES, 3).double()
    x = torch.rand(8, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)

    def norms(attack):
        out = attack(model, x, y)
        return torch.where(out.success, attack.ball.norm(out.delta), math.inf)

    for less, more in (
        (DeepFool(L2(6.0), steps=2, refine=0), DeepFool(L2(6.0), steps=9, refine=0)),
        (
            CarliniWagner(L2(6.0), steps=40, searches=2, refine=0),
            CarliniWagner(L2(6.0), steps=40, searches=5, refine=0),
        ),
        (EAD(L1(40.0), steps=40, searches=2, refine=0), EAD(L1(40.0), steps=40, searches=5, refine=0)),
        (FMN(L2(6.0), steps=20, refine=0), FMN(L2(6.0), steps=20, refine=9)),
    ):
        assert bool((norms(more) <= norms(less) + 1e-12).all())
