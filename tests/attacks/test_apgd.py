"""Auto-PGD, its conveyor, targets and BETA."""

import dataclasses

import pytest
import torch

from danskin.attacks import PGD
from danskin.attacks.apgd import APGD, MultiTargeted
from danskin.attacks.beta import BETA
from danskin.errors import InputError
from danskin.minmax import L1, L2, Box, Intersection, Linf, Streams
from danskin.minmax.adaptive import AdaptiveAscent, checkpoints
from danskin.minmax.conveyor import convey
from danskin.minmax.steps import SteppedAscent
from danskin.testing import ATTACK_CHECKS, check_attack
from danskin.testing.models import Counted, CrossEntropyTrap, mlp
from danskin.testing.oracles import linear_worst_case, project

BALLS = {"linf": Linf(0.05), "l2": L2(0.3), "l1": L1(1.0)}
ATTACKS = {
    "apgd": lambda ball: APGD(ball, steps=10),
    "apgd reference, dlr, stop": lambda ball: APGD(ball, steps=10, quirks="reference", loss="dlr", stop=True, width=2),
    "apgd-t": lambda ball: MultiTargeted(ball, steps=6, stop=True, width=7),
    "beta": lambda ball: BETA(ball, steps=4),
    "beta rmsprop": lambda ball: BETA(ball, steps=4, rule="rmsprop", classes=2, stop=True, width=5),
}
# Auto-PGD's checkpoints move with the number of steps, so its path with more is not a continuation of that with fewer
ADAPTIVE = {"more_work_is_never_worse"}


@pytest.mark.parametrize("check", ATTACK_CHECKS)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", BALLS)
def test_conformance(norm, name, check):
    if check in ADAPTIVE and name.startswith("apgd"):
        pytest.skip("checkpoints depend on the number of steps")
    check_attack(ATTACKS[name](BALLS[norm]), only=[check])


def test_published_checkpoints():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [1]


@pytest.mark.parametrize(
    "ball", [Linf(0.05), L2(0.2), L2(torch.linspace(0.1, 0.3, 4))], ids=["linf", "l2", "l2 per row"]
)
def test_the_first_step_is_two_radii_long(ball):
    run = APGD(ball, steps=7).ascent()
    assert torch.allclose(torch.as_tensor(run.step), 2 * torch.as_tensor(ball.value))


@pytest.mark.parametrize(("norm", "order"), [(Linf, "linf"), (L2, "l2"), (L1, "l1")])
def test_exact_on_linear_payoffs(norm, order):
    random = torch.Generator().manual_seed(0)
    g = torch.randn(5, 12, generator=random, dtype=torch.float64)
    high = torch.rand(5, 12, generator=random, dtype=torch.float64)
    radius = {"linf": 0.4, "l2": 0.9, "l1": 1.5}[order]
    Y = Intersection(norm(radius), Box(-high.flip(0), high))

    class Linear:
        def __init__(self, g):
            self.g = g

        def __call__(self, y):
            return (self.g * y).sum(1)

        def rows(self, index):
            return Linear(self.g[index])

    step = radius if order == "l1" else 2 * radius
    found = AdaptiveAscent(200, step, width=2)(Linear(g), torch.zeros_like(g), Y, Streams.of(0, torch.arange(5)))
    for i in range(5):
        most, _ = linear_worst_case(g[i].tolist(), radius, Y.box.low[i].tolist(), Y.box.high[i].tolist(), order)
        assert abs(float(found.value[i]) - most) <= 1e-6 * most, i


def _problem(classes=5, n=23):
    model = mlp(12, classes, seed=3)
    x = torch.rand(n, 12, generator=torch.Generator().manual_seed(4))
    return model, x, model(x).argmax(1).detach()


@pytest.mark.parametrize("attack", [
    APGD(Linf(0.06), steps=12, restarts=2, stop=True), MultiTargeted(Linf(0.06), steps=8, stop=True),
    MultiTargeted(L1(0.6), steps=8, classes=2), BETA(L2(0.12), steps=6, rule="rmsprop"),
])  # fmt: skip
def test_width_changes_nothing(attack):
    model, x, y = _problem()
    wanted = attack(model, x, y)
    assert 0 < int(wanted.success.sum()) < len(x)
    for width in (1, 6, 11):
        got = dataclasses.replace(attack, width=width)(model, x, y)
        assert torch.equal(got.success, wanted.success)
        assert torch.allclose(got.x, wanted.x, atol=1e-5)


def test_work_is_counted_and_saved():
    model, x, y = _problem(n=40)
    counted = Counted(model)
    attack = APGD(Linf(0.06), steps=20, stop=True, width=8)
    out = attack(counted, x, y)
    assert (out.cost.forwards, out.cost.backwards, out.cost.calls) == (
        counted.forwards, counted.backwards, counted.calls)  # fmt: skip
    left = int((~out.success).sum())
    everything = len(x) * 21
    assert left * 20 <= out.cost.backwards < 0.9 * everything
    lonely = dataclasses.replace(attack, width=1)(counted, x, y)
    assert lonely.cost.backwards <= out.cost.backwards  # a full batch keeps a few settled rows for a step or two


def test_no_row_stays_behind_or_comes_twice():
    seen = []

    class Count:
        def begin(self, y0, Y, streams, rows):
            seen.extend(rows.tolist())
            return {"left": rows % 3 + 1, "y": y0}

        def advance(self, belt, state):
            belt.evaluate(state["y"], gradient=False)
            return state | {"left": state["left"] - 1}, state["left"] == 1

    class Sum:
        def __call__(self, y):
            return y.sum(1)

        def rows(self, index):
            return self

    y0 = torch.arange(20.0).view(10, 2)
    found = convey(Count(), Sum(), y0, Box(-100, 100), width=4)
    assert seen == list(range(10))
    assert torch.equal(found.value, y0.sum(1))
    assert found.cost.forwards == sum(i % 3 + 1 for i in range(10))


def test_margin_attacks_solve_what_cross_entropy_does_not():
    model, x, y = CrossEntropyTrap(), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)
    ball = Linf(1.0)
    fooled = PGD(ball, steps=40, restarts=5, keep="value", box=None)(model, x, y)
    assert not bool(fooled.success)
    assert bool(BETA(ball, steps=10, box=None)(model, x, y).success)
    assert bool(MultiTargeted(ball, steps=20, loss="targeted_margin", restarts=2, box=None)(model, x, y).success)


def test_beta_is_the_best_of_targeted_runs():
    model, x, y = _problem()
    attack = BETA(Linf(0.04), steps=8, keep="value")
    each = attack.per_class(model, x, y)
    assert each.classes.shape == (23, 4) and each.delta.shape == (23, 4, 12)
    assert not (each.classes == y[:, None]).any()
    for j in range(4):
        z = model(x + each.delta[:, j]).detach()
        margin = (z.gather(1, each.classes[:, j : j + 1]) - z.gather(1, y[:, None])).squeeze(1)
        assert torch.allclose(margin, each.margin[:, j], atol=1e-5)
    whole = attack(model, x, y)
    best = torch.stack([attack(model, x, y, seed=seed).loss for seed in range(4)]).amax(0)
    assert (best >= each.margin.amax(1) - 0.05).all()  # other random numbers, the same search: one seed may be unlucky
    assert torch.equal(dataclasses.replace(attack, classes=4)(model, x, y).x, whole.x)  # m = K - 1 is exact


def test_the_best_of_each_class_is_by_value_and_nothing_stops_early():
    model, x, y = _problem()
    attack = BETA(Linf(0.2), steps=6)
    plain = dataclasses.replace(attack, keep="value").per_class(model, x, y)
    hurried = dataclasses.replace(attack, keep="best", stop=True).per_class(model, x, y)
    assert (plain.margin > 0).any() and torch.equal(plain.delta, hurried.delta)
    wrong = model((x[:, None] + plain.delta).flatten(0, 1)).argmax(1).view(23, 4) != y[:, None]
    first = dataclasses.replace(attack, steps=1).per_class(model, x, y)
    assert wrong.any() and (plain.margin >= first.margin - 1e-6).all()


def test_smooth_weights_solve_their_program():
    cvxpy = pytest.importorskip("cvxpy")
    model, x, y = _problem(n=1)
    each = BETA(Linf(0.04), steps=3).per_class(model, x, y)
    w = cvxpy.Variable(4)
    m = each.margin[0].double().numpy()
    cvxpy.Problem(cvxpy.Maximize(3 * m @ w + cvxpy.sum(cvxpy.entr(w))), [w >= 0, cvxpy.sum(w) == 1]).solve()
    assert torch.allclose(each.weights(3)[0].double(), torch.as_tensor(w.value), atol=1e-4)
    assert int(each.weights(1e6)[0].argmax()) == int(each.margin[0].argmax())
    assert torch.allclose(each.weights(0), torch.tensor(1 / 4))  # mu = 0 is the mean
    with pytest.raises(InputError, match="mu: expected a number >= 0"):
        each.weights(-1.0)


def test_rmsprop_first_step_is_ten_steps_long():
    y = torch.zeros(1, 3)
    run = SteppedAscent(1, 0.01, "rmsprop", random_start=False, keep="value")
    found = run(lambda y: (y * torch.tensor([1.0, -2.0, 3.0])).sum(1), y, Box(-1, 1))
    assert torch.allclose(found.y, torch.tensor([[0.1, -0.1, 0.1]]), atol=1e-5)


def test_rmsprop_keeps_the_squares_of_before():
    """v <- 0.99 v + 0.01 g^2, step g / sqrt(v), by hand for three gradients that change."""
    scale = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    y = wanted = torch.full((1, 3), 0.5, dtype=torch.float64)
    v = torch.zeros_like(y)
    for _ in range(3):
        g = 3 * scale * wanted**2
        v = 0.99 * v + 0.01 * g * g
        wanted = wanted + 0.02 * g / v.sqrt()
    run = SteppedAscent(3, 0.02, "rmsprop", random_start=False, keep="value")
    ends = []
    run(lambda y: (ends.append(y.detach().clone()), (scale * y**3).sum(1))[1], y, Box(-9, 9))
    assert torch.allclose(ends[-1], wanted, rtol=1e-12)


def test_random_models_are_judged_over_draws():
    class Noisy(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0] + 0.5 * torch.randn(len(x)), torch.zeros(len(x))], 1)

    x, y = torch.tensor([[0.9], [0.1], [0.5]]), torch.zeros(3, dtype=torch.int64)
    out = APGD(Linf(0.05), steps=4, draws=8, stop=True)(Noisy(), x, y)
    normal = torch.distributions.Normal(0, 0.5)
    wanted = normal.cdf(-(x[:, 0] - 0.05))
    assert torch.allclose(out.probability, wanted, atol=0.3)
    assert not bool(out.success[0])  # a single lucky draw is no success
    again = APGD(Linf(0.05), steps=4, draws=8, stop=True)(Noisy(), x, y)
    assert torch.equal(out.probability, again.probability)


@pytest.mark.parametrize(("draws", "wrong", "adversarial"), [(4, 2, False), (4, 3, True), (5, 3, True), (5, 2, False)])
def test_what_errs_in_exactly_half_of_the_draws_is_right(draws, wrong, adversarial):
    calls = []

    def model(x):
        calls.append(len(x))
        says = 3.0 if len(calls) % draws < wrong else -3.0  # errs in `wrong` of every `draws` calls
        return torch.stack([0 * x[:, 0], says + 0 * x[:, 0]], 1)

    x, y = torch.full((3, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    attack = APGD(Linf(0.1), draws=draws)
    payoff = attack.problem(model).adversary_payoff(attack.batch(x, y))
    _, hit = payoff(torch.zeros_like(x))
    assert len(calls) == draws and hit.tolist() == [adversarial] * 3


def test_quick_model_is_not_believed():
    model, x, y = _problem()
    wrong = mlp(12, 5, seed=9)
    out = APGD(Linf(0.06), steps=10, stop=True)(model, x, y, quick=wrong)
    assert torch.equal(out.success, model(out.x).argmax(1) != y)
    same = APGD(Linf(0.06), steps=10, stop=True)(model, x, y, quick=mlp(12, 5, seed=3))
    assert torch.equal(same.success, APGD(Linf(0.06), steps=10, stop=True)(model, x, y).success)


def test_search_goes_on_past_successes_of_the_quick_model_alone():
    model, x, y = _problem(n=90)
    x, y = x[y != 2], y[y != 2]

    class Early(torch.nn.Module):
        """Sees class 2 win well before the model does."""

        def forward(self, x):
            return model(x) + torch.tensor([0.0, 0.0, 0.6, 0.0, 0.0])

    attack = APGD(Linf(0.06), steps=20, stop=True, loss="margin")
    plain, early = attack(model, x, y), attack(model, x, y, quick=Early())
    assert int(plain.success.sum()) > 20
    assert int(early.success.sum()) >= int(plain.success.sum()) - 2
    assert early.cost.forwards > early.cost.backwards + len(x)  # confirmations are counted


def test_fan_keeps_a_settled_row_before_a_higher_one():
    class Fan:
        def __init__(self, rows):
            self.n = rows

        def __call__(self, y):
            first = self.n % 2 == 0
            return torch.where(first, 5.0, 1.0) + 0 * y.sum(1), ~first

        def rows(self, index):
            return Fan(index)

    class Once:
        def begin(self, y0, Y, streams, rows):
            return {"y": y0 + torch.arange(len(y0))[:, None]}

        def advance(self, belt, state):
            belt.evaluate(state["y"], gradient=False)
            return state, torch.ones(len(state["y"]), dtype=torch.bool)

    found = convey(Once(), Fan(torch.arange(6)), torch.zeros(3, 1), Box(-9, 9), fan=2)
    assert found.settled.all() and found.value.tolist() == [1, 1, 1]
    assert found.y.view(-1).tolist() == [1, 3, 5]


def test_witness_hears_of_every_success_at_once():
    model, x, y = _problem()
    heard = {}

    def witness(rows, points):
        for row, point in zip(rows.tolist(), points, strict=True):
            heard.setdefault(row, point)

    out = MultiTargeted(Linf(0.06), steps=8, stop=True)(model, x, y, witness=witness)
    assert sorted(heard) == out.success.nonzero().flatten().tolist()
    for row, point in heard.items():
        assert int(model(point[None]).argmax()) != int(y[row])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: APGD(Linf(0.1), steps=0), "steps: expected at least 1"),
    (lambda: APGD(Linf(0.1), start="here"), "start: expected"),
    (lambda: APGD(Linf(0.1), quirks="all"), "quirks: expected"),
    (lambda: APGD(Linf(0.1), shrinking=True), "shrinking: expected an L1 ball"),
    (lambda: APGD(Linf(0.1), restarts=2, start="given"), "restarts: expected 1"),
    (lambda: APGD(Linf(0.1), width=0), "width: expected at least 1"),
    (lambda: APGD(Linf(0.1), draws=0), "draws: expected at least 1"),
    (lambda: MultiTargeted(Linf(0.1), classes=0), "classes: expected at least 1"),
    (lambda: MultiTargeted(Linf(0.1), loss="dlr"), "loss: expected a targeted loss"),
    (lambda: BETA(Linf(0.1), steps=0), "steps: expected at least 1"),
    (lambda: BETA(Linf(0.1), rule="adam"), "rule: expected"),
])  # fmt: skip
def test_bad_settings(make, message):
    model, x, y = _problem(n=2)
    with pytest.raises(InputError, match=message):
        make()(model, x, y)


def test_targets_of_the_caller_are_refused_where_the_attack_aims_itself():
    model, x, y = _problem(n=2)
    with pytest.raises(InputError, match="targets: expected none"):
        MultiTargeted(Linf(0.1))(model, x, y, targets=y)


@pytest.mark.parametrize("ball", [Linf("8/255"), Linf(0.03), L2(0.5), L1(4.0)])
def test_valid_images_of_eight_bits(ball):
    model = mlp(64, 4, seed=2)
    raw = torch.randint(0, 256, (20, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x = raw.float() / 255
    y = model(x).argmax(1).detach()
    free = APGD(ball, steps=20)(model, x, y)
    out = APGD(ball, steps=20, grid=255)(model, x, y)
    stored = (out.x * 255).round().to(torch.uint8)
    assert torch.equal(stored.float() / 255, out.x)  # nothing is lost on the way to a file and back
    assert torch.equal(out.success, model(stored.float() / 255).argmax(1) != y)
    assert (ball.violation(out.x - x) <= 1e-6).all()
    assert 0 < int(out.success.sum()) <= int(free.success.sum()) + 1
    assert (out.x != x).any()


def test_grid_refuses_what_is_off_it():
    model, x, y = _problem(n=3)
    with pytest.raises(InputError, match="multiples of 1/255"):
        APGD(Linf(0.1), grid=255)(model, x, y)
    with pytest.raises(InputError, match="too coarse"):
        APGD(Linf(0.1), grid=255)(model.bfloat16(), torch.zeros_like(x).bfloat16(), y)
    with pytest.raises(InputError, match="grid: expected at least 1 level and a box"):
        APGD(Linf(0.1), grid=255, box=None)(model, x, y)


def slow_l1_twin(f, y0, radius, low, high, steps):
    """The sparse scheme of Auto-PGD for one l1 row, in plain Python, from y0."""

    def onto(y):
        return torch.tensor(project(y.tolist(), radius, low.tolist(), high.tolist(), "l1"), dtype=y.dtype)

    def look(y):
        leaf = y.clone().requires_grad_()
        value = f(leaf[None])[0]
        return float(value.detach()), torch.autograd.grad(value, leaf)[0]

    d, y, eta = len(y0), onto(y0), radius
    count = int((y != 0).sum())
    share, value, g = count / d / 1.5, *look(y)
    best, best_value, best_g = y, value, g
    for k in range(1, steps + 1):
        level = g.abs().sort().values[min(int((1 - share) * d), d - 1)]
        signs = g.sign() * (g.abs() >= level)
        y = onto(y + eta * signs / signs.abs().sum())
        value, g = look(y)
        if value > best_value:
            best, best_value, best_g = y, value, g
        if k % max(int(0.04 * steps), 1) == 0:
            now = int((best != 0).sum())
            if now < 0.95 * count:
                eta, y, g = radius, best, best_g
            else:
                eta = max(eta / 1.5, radius / 10)
            share, count = now / d / 1.5, now
    return best_value


def test_fast_equals_slow_in_l1():
    w = torch.randn(3, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def f(y):
        return (2 * y @ w.T).sin().sum(1) + (y @ w[0]) ** 2

    y0 = 0.2 * torch.randn(6, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    low, high = torch.full((10,), -0.4, dtype=torch.float64), torch.full((10,), 0.5, dtype=torch.float64)
    Y = Intersection(L1(0.9), Box(low.expand(6, 10), high.expand(6, 10)))
    found = AdaptiveAscent(30, 0.9, start="given", keep="value", quirks="reference")(f, y0, Y)
    for i in range(6):
        assert abs(float(found.value[i]) - slow_l1_twin(f, y0[i], 0.9, low, high, 30)) < 1e-9, i


@pytest.mark.parametrize("make", [
    lambda n: APGD(L2(0.1), steps=6, restarts=n), lambda n: MultiTargeted(Linf(0.04), steps=5, restarts=n),
    lambda n: BETA(Linf(0.04), steps=4, restarts=n),
])  # fmt: skip
def test_more_restarts_never_lower_the_best(make):
    model, x, y = _problem(n=40)
    losses = [dataclasses.replace(make(n), keep="value")(model, x, y).loss for n in (1, 2, 4)]
    assert (losses[1] >= losses[0] - 1e-6).all() and (losses[2] >= losses[1] - 1e-6).all()
    assert (losses[2] > losses[0] + 1e-4).any()


def test_schedule_of_shrinking_balls():
    model, x, y = _problem(n=6)
    out = APGD(L1(0.5), steps=10)(model, x, y)
    assert out.cost.backwards == 6 * (3 + 3 + 4)  # the last look of each run needs no gradient
    assert out.cost.forwards == 6 * (4 + 4 + 5)
