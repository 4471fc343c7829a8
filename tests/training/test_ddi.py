"""DDi: the shortest vector of the hull of k gradients, against the same by hand, stored and layer by layer."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danskin.attacks import FGSM, PGD
from danskin.errors import InputError
from danskin.minmax import Linf, Subdifferential, min_norm_weights
from danskin.training import AWP, CFOL, FOL, AdversarialTraining, ClassCVaR, DDi, StandardTraining
from danskin.training.ddi import shortest
from danskin.training.gram import layerwise_gram
from danskin.training.objective import Found, Step, attacked
from danskin.training.process import Together

ATTACK = PGD(Linf(0.3), 1, 0.02, keep="last")
GRAMS = ["stored", "layerwise"]


def net():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3),
        nn.ELU(), nn.Flatten(), nn.Linear(36, 3),
    ).double()  # fmt: skip


class Tied(nn.Module):
    """One matrix used twice as a layer and once more by another, a parameter that nothing uses, and a frozen one."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, 3)
        self.b.weight = self.a.weight
        self.unused = nn.Linear(4, 4)
        self.c.bias.requires_grad_(False)

    def forward(self, x):
        return self.c(self.b(self.a(self.a(x).tanh()).tanh()).tanh())


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.inner(query=x, key=x, value=x, need_weights=False)[0].mean(1))


class First(nn.Module):
    """The first output of a module that returns several, with its parameters."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(6))
        self.attention = Attention()

    def forward(self, x):
        return self.attention(self.scale * x)


def batch(n=12, shape=(5,)):
    return torch.rand(n, *shape, dtype=torch.float64), torch.arange(n) % 3


MODELS = {
    "mlp": (net, (5,)),
    "cnn": (convolutional, (2, 5, 5)),
    "tied": (lambda: Tied().double(), (5,)),
    "attention": (lambda: First().double(), (4, 6)),
}


def gradients(model, loss):
    return torch.autograd.grad(
        loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True, materialize_grads=True
    )


def flat(parts):
    return torch.cat([p.reshape(-1) for p in parts])


def by_hand(model, x, y, attack, k, seed=0, active=None):
    """The hull's shortest vector, from k attacks and k gradients one after the other."""
    rows, values = [], []
    for j in range(k):
        points = attacked(attack, model, x, y, seed, "eval", child=j).points
        loss = F.cross_entropy(model(points), y)
        values.append(loss.item())
        rows.append(flat(gradients(model, loss)))
    kept = [j for j in range(k) if active is None or values[j] >= max(values) - active]
    return Subdifferential(torch.stack([rows[j] for j in kept])), values


def same(a, b, tolerance=1e-10):
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, atol=tolerance, rtol=0)


@pytest.mark.parametrize("gram", GRAMS)
@pytest.mark.parametrize("name", MODELS)
def test_gradient_is_the_shortest_vector_of_the_hull(name, gram):
    make, shape = MODELS[name]
    model, (x, y) = make(), batch(shape=shape)
    hull, values = by_hand(model, x, y, ATTACK, 4)
    loss = DDi(ATTACK, 4, gram=gram)(model, x, y)
    d = flat(gradients(model, loss))
    torch.testing.assert_close(d, hull.shortest(), atol=1e-7, rtol=0)
    assert loss.item() == pytest.approx(sum(w * v for w, v in zip(hull.weights().tolist(), values, strict=True)), 1e-6)
    if name in ("mlp", "cnn"):  # not one of the corners: there the test would not see the weights
        assert 1 < (hull.weights() > 0).sum()
        assert d.norm() < hull.generators.norm(dim=1).min() * (1 - 1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_inner_products_layer_by_layer(name):
    make, shape = MODELS[name]
    model, y = make(), torch.arange(6) % 3
    points = torch.randn(3, 6, *shape, dtype=torch.float64)
    rows = torch.stack([flat(gradients(model, F.cross_entropy(model(p), y))) for p in points])
    loss = lambda out: F.cross_entropy(out, y.repeat(3), reduction="none")  # noqa: E731
    logits, gram = layerwise_gram(model, points, loss, Together())
    torch.testing.assert_close(gram, rows @ rows.T, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(logits, model(points.flatten(0, 1)).detach())


@pytest.mark.parametrize("gram", GRAMS)
def test_normalized_has_length_one_and_the_same_direction(gram):
    model, (x, y) = net(), batch()
    d, e = (flat(gradients(model, DDi(ATTACK, 3, n, gram=gram)(model, x, y))) for n in (False, True))
    assert e.norm().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(e, d / d.norm(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("gram", GRAMS)
def test_where_nothing_pulls_the_normalized_direction_is_zero(gram):
    """A model with the logits of no example: zero gradients, and no division by their length."""
    model, (x, y) = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double(), batch(3)
    for p in model.parameters():
        nn.init.zeros_(p)
    loss = DDi(ATTACK, 3, True, gram=gram)(model, x, y)  # three classes, one example each: the biases balance
    assert flat(gradients(model, loss)).abs().max() == 0


@pytest.mark.parametrize("gram", GRAMS)
def test_active_keeps_the_runs_near_the_best(gram):
    model, (x, y) = net(), batch()
    _, values = by_hand(model, x, y, ATTACK, 5)
    best, second, third = sorted(values, reverse=True)[:3]
    for active in (0.0, (best - second + best - third) / 2, 1.0):
        hull, _ = by_hand(model, x, y, ATTACK, 5, active=active)
        assert len(hull.generators) == {0.0: 1, 1.0: 5}.get(active, 2)
        loss = DDi(ATTACK, 5, active=active, gram=gram)(model, x, y)
        torch.testing.assert_close(flat(gradients(model, loss)), hull.shortest(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("gram", GRAMS)
@pytest.mark.parametrize("loss", [None, "margin"])
def test_one_run_is_adversarial_training(gram, loss):
    model, (x, y) = net(), batch()
    a, b = (
        DDi(ATTACK, 1, gram=gram, loss=loss)(model, x, y, seed=3),
        AdversarialTraining(ATTACK, loss)(model, x, y, seed=3),
    )
    assert a.item() == pytest.approx(b.item(), abs=1e-12)
    same(gradients(model, a), gradients(model, b))


def test_two_gradients_across():
    """g = (2, -2) and (2, 2): weights 1/2, and (2, 0)."""
    g = torch.tensor([[2.0, -2], [2, 2]], dtype=torch.float64)
    hull = shortest(g @ g.T, torch.zeros(2), None)
    assert hull.weights.tolist() == pytest.approx([0.5, 0.5])
    assert (hull.weights @ g).tolist() == pytest.approx([2, 0])
    assert (hull.length.item(), hull.longest.item()) == pytest.approx((2, 8**0.5))
    assert shortest(g @ g.T, torch.tensor([1.0, 0.5]), 0.1).weights.tolist() == [1, 0]
    opposite = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64)
    assert shortest(opposite @ opposite.T, torch.zeros(2), None).factor == 0


def test_weights_are_those_of_the_closed_form_for_two():
    g = torch.randn(2, 7, dtype=torch.float64)
    first = ((g[1] - g[0]) @ g[1] / (g[0] - g[1]).square().sum()).clamp(0, 1)
    torch.testing.assert_close(min_norm_weights(g @ g.T)[0], first, atol=1e-10, rtol=0)


@pytest.mark.parametrize("gram", GRAMS)
def test_runs_are_independent_and_belong_to_examples(gram):
    """Another order of the batch gives the same gradient, another seed another one."""
    model, (x, y) = net(), batch()
    objective, order = DDi(ATTACK, 3, gram=gram), torch.randperm(12)
    a, b, c = (
        flat(gradients(model, objective(model, u, v, seed=s)))
        for u, v, s in ((x, y, 0), (x[order], y[order], 0), (x, y, 1))
    )
    torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
    assert (a - c).abs().max() > 1e-4
    points = objective.search(model, x, y, Step()).points
    assert points.shape == (3, 12, 5) and not torch.equal(points[0], points[1])


def test_a_step_along_it_lowers_all_that_were_found():
    """<d, g_j> >= |d|^2 for each j: one short step lowers each of the k losses."""
    model, (x, y) = net(), batch()
    hull, _ = by_hand(model, x, y, ATTACK, 6)
    d = flat(gradients(model, DDi(ATTACK, 6)(model, x, y)))
    assert ((hull.generators @ d) >= d.square().sum() - 1e-9).all()


@pytest.mark.parametrize("objective", [DDi(ATTACK, 3), DDi(ATTACK, 3, gram="layerwise")])
def test_anyones_loop_and_the_model_as_found(objective):
    model, (x, y) = net(), batch(60)
    y = (x[:, 0] > 0.5).long()
    before = torch.get_rng_state()
    loss = objective(model, x, y)
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    loss.backward()
    first = [p.grad.clone() for p in model.parameters()]
    objective(model, x, y).backward()
    same([p.grad for p in model.parameters()], [2 * g for g in first])
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.5), []
    for step in range(60):
        loss = objective(model, x, y, seed=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_running_statistics_see_the_k_batches():
    model, (x, y) = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double(), batch()
    twin = deepcopy(model)
    points = DDi(ATTACK, 3).search(model, x, y, Step()).points
    DDi(ATTACK, 3)(model, x, y)
    for part in points:
        twin(part)
    same(list(model.buffers()), list(twin.buffers()))
    model.eval()
    a, b = (flat(gradients(model, DDi(ATTACK, 3, gram=g)(model, x, y))) for g in GRAMS)
    torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.Dropout(0.1), nn.BatchNorm1d(8, track_running_stats=False)])
def test_layerwise_refuses_what_it_cannot_see_through(layer):
    model, (x, y) = nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 3)).double(), batch()
    with pytest.raises(InputError, match=r"treats each example alike.*in training mode \(1\); use gram='stored'"):
        DDi(ATTACK, 2, gram="layerwise")(model, x, y)
    DDi(ATTACK, 2)(model, x, y)


def test_layerwise_refuses_layers_without_the_batch_first():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.b(self.a(x.transpose(0, 1))).mean(0)

    with pytest.raises(InputError, match="the batch first"):
        DDi(ATTACK, 2, gram="layerwise")(Sequence().double(), *batch(12, (4, 5)))


@pytest.mark.parametrize("gram", GRAMS)
def test_inside_a_weight_perturbation(gram):
    """AWP moves along d's own ascent, and the direction is then that at the moved weights."""
    model, (x, y) = net(), batch()
    inner = DDi(ATTACK, 3, gram=gram)
    found = inner.search(model, x, y, Step())
    moved, d = deepcopy(model), gradients(model, inner.losses(model, found, Step()).value.mean())
    with torch.no_grad():
        for p, g in zip(moved.parameters(), d, strict=True):
            if p.ndim > 1:
                p += 0.1 * p.norm() * g / g.norm()
    truth = gradients(moved, inner.losses(moved, found, Step()).value.mean())
    same(gradients(model, AWP(inner, 0.1)(model, x, y)), truth, 1e-7)


@pytest.mark.parametrize("wrap", [lambda o: CFOL(o, 3), lambda o: ClassCVaR(o, 3), lambda o: FOL(o, 12)])
def test_weights_of_classes_or_examples_do_not_go_around_it(wrap):
    for objective in (DDi(ATTACK), AWP(DDi(ATTACK))):
        with pytest.raises(InputError, match="put together from the whole batch"):
            wrap(objective)
    wrap(AWP(StandardTraining()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "DDi.k: expected at least 1"),
        ({"active": -0.1}, "DDi.active: expected"),
        ({"active": float("nan")}, "DDi.active: expected"),
        ({"gram": "dense"}, "DDi.gram: expected 'stored' or 'layerwise'"),
    ],
)
def test_settings(change, message):
    with pytest.raises(InputError, match=message):
        DDi(ATTACK, **change)


def test_wrong_is_any_of_the_runs():
    model = nn.Linear(1, 2, bias=False).double()
    model.weight.data[:] = torch.tensor([[1.0], [0.0]])
    points = torch.tensor([[[1.0], [1.0]], [[1.0], [-1.0]]], dtype=torch.float64)
    found = Found(points[0], torch.tensor([0, 0]), points)
    for gram in GRAMS:
        assert DDi(FGSM(Linf(1)), 2, gram=gram).losses(model, found, Step()).wrong.tolist() == [False, True]
