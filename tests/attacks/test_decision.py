"""Decision-based attacks: labels only, budgets, starting points, and what affine models promise."""

import itertools
import math

import pytest
import torch

from danskin.attacks.boundary import Boundary, normals
from danskin.attacks.closest import Closest
from danskin.attacks.hop_skip_jump import HopSkipJump
from danskin.minmax import L2, Linf, Streams
from danskin.testing.models import Counted, RowwiseLinear, mlp

D, CLASSES = 16, 4
ATTACKS = {
    "boundary": Boundary(L2(3.0), queries=400),
    "hop skip jump l2": HopSkipJump(L2(3.0), queries=400, probes=30),
    "hop skip jump linf": HopSkipJump(Linf(1.0), queries=400, probes=30),
}


def affine(n=6, seed=2):
    """An affine model in float64, inputs near the middle of the box, their labels, distance in l2 and l_inf."""
    model = RowwiseLinear(D, CLASSES, seed).double()
    model.bias.data -= 0.5 * model.weight.data.sum(1)
    x = 0.4 + 0.2 * torch.rand(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z, w = model(x).detach(), model.weight.detach()
    y = z.argmax(1)
    gap = z.amax(1, keepdim=True) - z
    out = []
    for q in (2, 1):
        far = gap / torch.linalg.vector_norm(w[None] - w[y][:, None], q, dim=2)
        far[torch.arange(n), y] = math.inf
        out.append(far.amin(1))
    return model, x, y, *out


def closest_of(attack, model, x, y):
    """The book-keeping of a search that has not begun."""
    batch, problem = attack.batch(x, y), attack.problem(model)
    return Closest(
        problem.adversary_payoff(batch),
        problem.start(batch),
        problem.feasible(batch),
        Streams.of(0, torch.arange(len(x))),
        stop=False,
        labels_only=True,
    )


@pytest.mark.parametrize(("attack", "most"), [
    (HopSkipJump(L2(3.0), queries=1500), 1.1), (HopSkipJump(Linf(1.0), queries=3000), 1.12),
    (Boundary(L2(3.0), queries=2000), 1.1),
])  # fmt: skip
def test_closest_point_of_an_affine_model(attack, most):
    model, x, y, l2, linf = affine()
    out = attack(model, x, y)
    ratio = attack.ball.norm(out.delta) / (linf if isinstance(attack.ball, Linf) else l2)
    assert bool(out.success.all()) and float(ratio.min()) >= 1 - 1e-9 and float(ratio.max()) <= most


@pytest.mark.parametrize("name", ATTACKS)
def test_only_the_decision_is_used(name):
    model, x, y, *_ = affine()

    def labels(z):
        assert not torch.is_grad_enabled()
        return torch.nn.functional.one_hot(model(z).argmax(1), CLASSES).double() * 7

    assert torch.equal(ATTACKS[name](labels, x, y).x, ATTACKS[name](model, x, y).x)


@pytest.mark.parametrize("queries", [1, 2, 12, 57, 200])
@pytest.mark.parametrize("name", ATTACKS)
def test_every_example_keeps_its_budget(name, queries):
    model, x, y, *_ = affine()
    y[0] = (y[0] + 1) % CLASSES  # already wrong: one query
    attack = type(ATTACKS[name])(ATTACKS[name].ball, queries=queries)
    asked = []
    for i in range(len(x)):
        counted = Counted(model)
        attack(counted, x[i : i + 1], y[i : i + 1])
        asked.append(counted.forwards)
    assert asked[0] == 2 and max(asked) <= queries + 1  # the verdict is on top
    assert attack(model, x, y).cost.forwards == sum(asked)
    if queries == 200:
        assert min(asked[1:]) > 170  # and the budget is used


@pytest.mark.parametrize("name", ATTACKS)
def test_no_starting_point_comes_back_clean(name):
    x, y = torch.rand(3, D), torch.zeros(3, dtype=torch.int64)
    attack = type(ATTACKS[name])(ATTACKS[name].ball, queries=300, tries=9)
    out = attack(lambda z: torch.tensor([[2.0, 0.0]]).expand(len(z), 2), x, y)
    assert torch.equal(out.x, x) and not bool(out.success.any())
    assert out.cost.forwards == 3 * (1 + 9 + 1)  # the clean look, the tries, the verdict


@pytest.mark.parametrize("name", ATTACKS)
def test_tries_are_each_examples_own(name):
    """One example that cannot be started (its label wins everywhere) does not keep or change the others."""
    model, x, y, *_ = affine()
    attack = type(ATTACKS[name])(ATTACKS[name].ball, queries=100, tries=5)

    def stubborn(z):
        out = model(z)
        out[z[:, 0] > 0.9] = torch.tensor([9.0, 0.0, 0.0, 0.0]).to(z)
        return out

    x[2, 0] = 1.0
    y = stubborn(x).argmax(1)
    whole = attack(stubborn, x, y)
    for i in range(len(x)):
        assert torch.equal(attack(stubborn, x[i : i + 1], y[i : i + 1]).x[0], whole.x[i])


@pytest.mark.parametrize("n", [1, 4, 16])
def test_steps_do_not_shrink_with_the_batch(n):
    """A peer normalises the estimated normal over the whole batch, so that steps are 1 / sqrt(n) as long."""
    model, x, y, *_ = affine(1)
    attack = HopSkipJump(L2(3.0), queries=250, probes=60)
    one = attack(model, x, y)
    more = attack(model, x.repeat(n, 1), y.repeat(n))
    assert torch.equal(more.x, one.x.expand(n, D))


@pytest.mark.parametrize("name", ATTACKS)
def test_targets_from_starting_points(name):
    model, x, y, *_ = affine()
    targets = (y + 1) % CLASSES
    pool = torch.rand(200, D, dtype=torch.float64)
    attack = type(ATTACKS[name])(ATTACKS[name].ball, queries=400, starts=pool, tries=0)
    out = attack(model, x, y, targets=targets)
    there = torch.isin(targets, model(pool).argmax(1))
    assert bool(there.any()) and torch.equal(out.success, there)
    assert torch.equal(model(out.x).argmax(1)[there], targets[there])


def test_the_nearest_starting_point_is_taken():
    model, x, y, *_ = affine(1)
    pool = (
        x + torch.tensor([4.0, -3.0, 2.0])[:, None] * (model.weight[(y + 1) % CLASSES] - model.weight[y]).detach() / 30
    )
    seen = []

    def watched(z):
        seen.append(z.clone())
        return model(z)

    HopSkipJump(L2(3.0), queries=5, starts=pool.clamp(0, 1))(watched, x, y)
    assert torch.allclose(seen[1], pool[2:].clamp(0, 1))


@pytest.mark.parametrize("name", ATTACKS)
def test_more_queries_bring_it_nearer(name):
    model = mlp(D, CLASSES, 4).double()
    x = torch.rand(16, D, dtype=torch.float64)
    y = model(x).argmax(1)
    attack = ATTACKS[name]
    norms = [
        attack.ball.norm(type(attack)(attack.ball, queries=q)(model, x, y).delta).median() for q in (30, 300, 1500)
    ]
    assert norms[0] > norms[1] > norms[2]


def test_steps_that_never_succeed_are_halved_and_given_up():
    """The only adversarial points are those of one ray: no step off it is adversarial, and halving ends."""
    x = torch.full((1, 3), 0.5, dtype=torch.float64)
    ray = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64) / 3
    calls = []

    def model(z):
        calls.append(z)
        along = (z - 0.5) @ ray
        off = ((z - 0.5) - along[:, None] * ray).abs().amax(1)
        hit = (along > 0.1) & (off < 1e-12)
        return torch.stack([(~hit) * 2.0, hit * 3.0], 1).double()

    attack = HopSkipJump(L2(1.0), queries=400, probes=20, starts=(0.5 + 0.4 * ray)[None])
    out = attack(model, x, torch.zeros(1, dtype=torch.int64))
    assert bool(out.success) and float(out.delta.norm()) == pytest.approx(0.1, rel=0.02)
    # the clean input, the start, 8 halvings of the way to it; then probes and 25 steps, each half of the last
    assert [len(z) for z in calls[:64]] == [1] * 10 + [20] + [1] * 25 + [28] + [1] * 25 + [32, 2]
    steps = [float((z - out.x).norm()) for z in calls[11:20]]
    assert steps[0] == pytest.approx(float(out.delta.norm()))
    assert [b / a for a, b in itertools.pairwise(steps)] == pytest.approx([0.5] * 8)


def test_boundary_proposes_on_the_sphere_and_then_nearer():
    model, x, y, *_ = affine(5)
    attack = Boundary(L2(9.0), box=None)
    closest = closest_of(attack, model, x, y)
    delta, e = torch.randn_like(x), torch.randn_like(x)
    size, a, b = delta.norm(dim=1), torch.rand(5).double(), torch.rand(5).double()
    s, move = attack._proposal(closest, delta, size, a, b, e)
    assert torch.allclose(s.norm(dim=1), size)
    cosine = (s * delta).sum(1) / size**2
    assert torch.allclose(cosine, 1 / (1 + a**2).sqrt())  # an angle of arctan(a)
    assert torch.allclose(move, s * (1 - b)[:, None])


def test_boundary_lengths_grow_on_success_and_shrink_on_failure():
    hits = torch.tensor([0.0, 5, 6, 10, 15, 16, 30])  # of 30: more than half, fewer than a fifth
    wanted = torch.tensor([0.5, 0.5, 1, 1, 1, 2, 2])
    assert torch.equal(Boundary(L2(1.0), adapt=2.0)._factor(hits, 0.5, 0.2), wanted)


class Told(HopSkipJump):
    """HopSkipJump that is told directions and votes; keeps what it asked about."""

    def _draw(self, streams, delta):
        u = super()._draw(streams, delta)
        self.seen.append(u)
        return u

    def _ask(self, closest, at, asked):
        vote = torch.rand(asked.shape, generator=torch.Generator().manual_seed(len(self.seen))) < 0.8
        phi = torch.where(asked, 2 * vote.to(at) - 1, 0.0)
        self.votes.append((asked, phi))
        return phi


@pytest.mark.parametrize("ball", [L2(9.0), Linf(9.0)])
def test_the_normal_is_the_sum_of_votes_less_their_mean(ball):
    """sum_b (phi_b - mean phi) u_b over probes sqrt(t) directions u_b."""
    model, x, y, *_ = affine(5)
    attack, delta = Told(ball, probes=30, box=None), torch.randn_like(x)
    object.__setattr__(attack, "seen", [])
    object.__setattr__(attack, "votes", [])
    v = attack._normal(closest_of(attack, model, x, y), delta, 4, 10)
    u, asked = torch.cat(attack.seen, 1), torch.cat([a for a, _ in attack.votes], 1)
    phi = torch.cat([f for _, f in attack.votes], 1)
    assert asked.sum(1).tolist() == [60] * 5  # 30 times the root of 4
    for i in range(5):
        w = sum((phi[i, b] - phi[i, asked[i]].mean()) * u[i, b] for b in asked[i].nonzero().flatten())
        wanted = w.sign() if isinstance(ball, Linf) else w / w.norm()
        assert torch.allclose(v[i], wanted, rtol=1e-9, atol=1e-12)


def test_hop_skip_jump_jumps_as_far_as_its_norm_by_the_root_of_t():
    model, x, y, *_ = affine(5)
    attack, delta = HopSkipJump(L2(9.0), box=None), torch.randn_like(x)
    closest = closest_of(attack, model, x, (y + 1) % CLASSES)  # every label is wrong here: the first step succeeds
    v = torch.nn.functional.normalize(1e-3 * torch.randn_like(x), dim=1)
    moved, rows = attack._jump(closest, 1e-3 * delta, 1e-3 * v, 4, 0)
    assert rows.tolist() == list(range(5))
    assert torch.allclose((moved - 1e-3 * delta).norm(dim=1), 1e-3 * (1e-3 * delta).norm(dim=1) / 2)


def test_normals_are_normal():
    z = normals(Streams.of(0, torch.arange(3)), torch.empty(3, 2, 20_000, dtype=torch.float64))
    assert torch.allclose(z.mean((1, 2)), torch.zeros(3, dtype=torch.float64), atol=0.02)
    assert torch.allclose(z.std((1, 2)), torch.ones(3, dtype=torch.float64), atol=0.02)
    assert abs(float((z**4).mean()) - 3) < 0.1 and abs(float((z[:, 0] * z[:, 1]).mean())) < 0.02
