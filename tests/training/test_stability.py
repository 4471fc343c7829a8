"""WeightStability: a weight shift per example against a loop, closed forms, and what it refuses."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danskin.attacks import PGD
from danskin.errors import InputError
from danskin.minmax import Linf
from danskin.training import AWP, CFOL, AdversarialTraining, ClassCVaR, StandardTraining, WeightStability

ATTACK = PGD(Linf(0.1), 2, keep="last")


def net():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ELU(), nn.Flatten(), nn.Linear(100, 3)
    ).double()


MODELS = {"mlp": (net, (5,)), "cnn": (convolutional, (1, 5, 5))}


def batch(n=12, shape=(5,)):
    return torch.rand(n, *shape, dtype=torch.float64), torch.arange(n) % 3


def gradients(model, loss):
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


def same(a, b, tolerance=1e-10):
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, atol=tolerance, rtol=0)


def moved(model, gradient, radius):
    """A copy at w + radius g / |g|."""
    twin = deepcopy(model)
    length = torch.cat([g.reshape(-1) for g in gradient]).norm()
    with torch.no_grad():
        for p, g in zip([p for p in twin.parameters() if p.requires_grad], gradient, strict=True):
            p += radius * g / length
    return twin


def by_loop(model, points, y, radius):
    """Losses and mean gradient, example by example."""
    values, total = [], None
    for i in range(len(y)):
        one = slice(i, i + 1)
        twin = moved(model, gradients(model, F.cross_entropy(model(points[one]), y[one])), radius)
        values.append(F.cross_entropy(twin(points[one]), y[one]))
        mine = gradients(twin, values[-1] / len(y))
        total = mine if total is None else [a + b for a, b in zip(total, mine, strict=True)]
    return torch.stack(values), total


@pytest.mark.parametrize("chunk", [1, 5, 100])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("inner", [StandardTraining(), AdversarialTraining(ATTACK)])
def test_a_shift_per_example_is_the_loop(inner, name, chunk):
    make, shape = MODELS[name]
    model, (x, y) = make(), batch(shape=shape)
    points = x if isinstance(inner, StandardTraining) else ATTACK(model, x, y).x
    values, truth = by_loop(model, points, y, 0.3)
    loss = WeightStability(0.3, objective=inner, chunk=chunk)(model, x, y)
    assert loss.item() == pytest.approx(values.mean().item(), abs=1e-12)
    assert loss > inner(model, x, y) + 0.01
    same(gradients(model, loss), truth)


def test_one_shift_for_the_batch_is_sam():
    model, (x, y) = net(), batch()
    model[0].bias.requires_grad_(False)
    twin = moved(model, gradients(model, F.cross_entropy(model(x), y)), 0.3)
    loss, truth = WeightStability(0.3, per_sample=False)(model, x, y), F.cross_entropy(twin(x), y)
    assert loss.item() == pytest.approx(truth.item(), abs=1e-12)
    same(gradients(model, loss), gradients(twin, truth))


def test_frozen_weights_do_not_move():
    model, (x, y) = net(), batch()
    model[0].weight.requires_grad_(False)
    values, truth = by_loop(model, x, y, 0.3)
    loss = WeightStability(0.3)(model, x, y)
    assert loss.item() == pytest.approx(values.mean().item(), abs=1e-12)
    same(gradients(model, loss), truth)


def test_per_example_is_never_below_shared_and_grows_with_the_radius():
    """To first order: radius mean |g_i| against radius |mean g_i|."""
    model, (x, y) = net(), batch()
    clean = F.cross_entropy(model(x), y).item()
    each = [torch.cat([g.reshape(-1) for g in gradients(model, F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]))])
            for i in range(12)]  # fmt: skip
    slopes = torch.stack([g.norm() for g in each]).mean().item(), torch.stack(each).mean(0).norm().item()
    assert slopes[0] > 1.1 * slopes[1]
    for per_sample, slope in zip((True, False), slopes, strict=True):
        rise = WeightStability(1e-5, per_sample=per_sample)(model, x, y).item() - clean
        assert rise == pytest.approx(1e-5 * slope, rel=1e-3)
    values = [WeightStability(r)(model, x, y).item() for r in (0, 0.01, 0.1, 0.5)]
    assert values[0] == pytest.approx(clean, abs=1e-14) and values == sorted(values)
    assert all(WeightStability(r)(model, x, y) > WeightStability(r, per_sample=False)(model, x, y) for r in (0.01, 0.1))


@pytest.mark.parametrize("loss", ["logistic", "hinge", "squared"])
def test_linear_model_in_closed_form(loss):
    """The margin b w'x falls by radius |x|, exactly the worst over the ball; squared loss: on either side of 1."""
    model = nn.Linear(5, 1, bias=False).double()
    x, b = torch.randn(9, 5, dtype=torch.float64), 2 * (torch.arange(9) % 2) - 1
    m, fall = b * model(x)[:, 0], 0.2 * x.norm(dim=1)
    if loss == "logistic":
        truth = F.softplus(-(m - fall))
    elif loss == "hinge":
        truth = torch.where(m < 1, (1 - m + fall).clamp_min(0), (1 - m).clamp_min(0))  # no gradient, no step
    else:
        truth = (1 - (m - fall * (1 - m).sign())).square()
    value = WeightStability(0.2, objective=StandardTraining(loss))(model, x, b)
    assert value.item() == pytest.approx(truth.mean().item(), abs=1e-12)
    same(gradients(model, value), gradients(model, truth.mean()))


def test_order_and_model_as_found():
    model, (x, y) = net(), batch()
    order, before = torch.randperm(12), [p.detach().clone() for p in model.parameters()]
    a, b = (gradients(model, WeightStability(0.3)(model, *pair)) for pair in ((x, y), (x[order], y[order])))
    same(a, b)
    same(before, [p.detach() for p in model.parameters()], 0)
    assert all(p.grad is None for p in model.parameters())


def test_around_and_inside_others():
    model, (x, y) = net(), batch()
    shared = WeightStability(0.1, objective=ClassCVaR(AdversarialTraining(ATTACK), 3), per_sample=False)
    assert shared(model, x, y) > ClassCVaR(AdversarialTraining(ATTACK), 3)(model, x, y)
    assert shared.attack is ATTACK and shared.reweightable
    assert ClassCVaR(WeightStability(0.1, per_sample=False), 3)(model, x, y).isfinite()
    with pytest.raises(InputError, match="put together from the whole batch"):
        CFOL(WeightStability(0.1), 3)
    with pytest.raises(InputError, match="leave AWP around it out"):
        AWP(WeightStability(0.1), 0.1)(model, x, y)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.Dropout(0.5), nn.BatchNorm1d(8, track_running_stats=False)])
def test_models_that_mix_examples(layer):
    model, (x, y) = nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 3)).double(), batch()
    with pytest.raises(InputError, match=r"each example alike.*\(1\); use per_sample=False"):
        WeightStability(0.1)(model, x, y)
    assert WeightStability(0.1, per_sample=False)(model, x, y).isfinite()
    if getattr(layer, "track_running_stats", True):
        model.eval()
        values, _ = by_loop(model, x, y, 0.1)
        assert WeightStability(0.1)(model, x, y).item() == pytest.approx(values.mean().item(), abs=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightStability(-0.1), "radius: expected a finite number >= 0"),
        (lambda: WeightStability(0.1, chunk=0), "WeightStability.chunk: expected at least 1"),
        (lambda: WeightStability(0.1, objective=ClassCVaR(StandardTraining(), 3)), "use per_sample=False, or AWP"),
        (lambda: WeightStability(0.1)(net().requires_grad_(False), *batch()), "expected a model with weights to train"),
        (lambda: WeightStability(0.1)(net(), batch()[0], batch()[1] + 1), "expected classes 0 to 2"),
    ],
)
def test_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()
