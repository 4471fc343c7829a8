"""Saliency, alignment, misalignment, linearity: golden values, closed forms, differences, model left as found."""

import math

import pytest
import torch
from torch import nn

from danskin.errors import InputError, ModelError
from danskin.losses import cross_entropy
from danskin.metrics.average import Average
from danskin.metrics.linearity import Triplet, draw_triplet, taylor_error, three_point_error
from danskin.metrics.misalignment import cosine, gradient_misalignment
from danskin.metrics.saliency import alignment, linearized_robustness, loss_gradient, saliency, winning_gradient
from danskin.minmax import L1, L2, Linf
from danskin.testing.models import RowwiseLinear, convnet, mlp

H = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
G = torch.tensor([0.3, -0.7], dtype=torch.float64)
A, B = (torch.tensor([v], dtype=torch.float64) for v in ([0.2, -0.1], [-0.4, 0.5]))
ONE = torch.tensor([1])


def quadratic(x):
    """A score whose squared loss at label +1 is x'Hx/2 + g'x + 10."""
    return 1 - ((x @ H * x).sum(1) / 2 + x @ G + 10).sqrt()


def images(n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 8, 8, generator=g), torch.randint(5, (n,), generator=g)


# --- golden values of a quadratic ---------------------------------------------------------------------------


def test_misalignment_of_a_quadratic():
    found = gradient_misalignment(quadratic, A, ONE, B - A, loss="squared")
    first, second = A @ H + G, B @ H + G
    wanted = 1 - (first @ second.T).item() / (first.norm() * second.norm()).item()
    assert wanted == pytest.approx(0.7392307, abs=1e-7)
    assert found.item() == pytest.approx(wanted, abs=1e-9)


def test_taylor_error_of_a_quadratic():
    assert taylor_error(quadratic, A, ONE, B - A, loss="squared").item() == pytest.approx(0.36, abs=1e-9)


@pytest.mark.parametrize("x", [A * 0, A])
def test_three_point_error_of_a_quadratic(x):
    points = Triplet(A - x, B - x, torch.tensor([0.3], dtype=torch.float64))
    assert three_point_error(quadratic, x, ONE, points, loss="squared").item() == pytest.approx(-0.0756, abs=1e-9)


@pytest.mark.parametrize("endpoints", ["both_random", "clean_random"])
def test_three_point_error_at_drawn_points(endpoints):
    x = torch.rand(7, 2, dtype=torch.float64)
    a, b, t = draw_triplet(x, Linf(0.3), endpoints, seed=3)
    found = three_point_error(quadratic, x, ONE.expand(7), Triplet(a, b, t), loss="squared")
    torch.testing.assert_close(found, -0.5 * t * (1 - t) * ((a - b) @ H * (a - b)).sum(1), atol=1e-9, rtol=0)


# --- misalignment -------------------------------------------------------------------------------------------


def test_misalignment_is_zero_for_a_linear_score_and_two_for_a_turned_gradient():
    x, y = torch.randn(4, 5), torch.tensor([1, -1, 1, -1])
    linear = RowwiseLinear(5, 1)
    assert gradient_misalignment(linear, x, y, Linf(0.5), loss="logistic").abs().max() < 1e-6
    far = gradient_misalignment(lambda z: -z.abs(), torch.full((1, 1), 0.1), ONE, torch.tensor([[-0.2]]), loss="hinge")
    assert far.item() == pytest.approx(2)


def test_misalignment_draws_by_content_within_the_ball():
    x, y = images()
    model = convnet(5)
    whole = gradient_misalignment(model, x, y, Linf(0.2), seed=1)
    part = gradient_misalignment(model, x[[4, 1]], y[[4, 1]], Linf(0.2), seed=1)
    torch.testing.assert_close(whole[[4, 1]], part, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(whole, gradient_misalignment(model, x, y, Linf(0.2), seed=2))
    assert (gradient_misalignment(model, x, y, Linf(1e-6)) < 1e-3).all() and (whole > 1e-3).any()


def test_no_direction_is_nan_and_counted_apart():
    x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    found = gradient_misalignment(
        lambda z: z.relu() @ torch.tensor([[1.0, 0], [0.5, 1]]), x, torch.tensor([0, 1]), L2(0.1)
    )
    assert found.isnan().tolist() == [False, True]
    mean = Average.of(found)
    assert (mean.n, mean.left_out) == (1, 1)


def test_cosine_of_tiny_gradients():
    a = torch.tensor([[3e-38, 4e-38]])
    assert cosine(a, torch.tensor([[4.0, 3.0]])).item() == pytest.approx(0.96, abs=1e-2)
    assert cosine(a * 0, a).isnan().all()


# --- linearity ----------------------------------------------------------------------------------------------


def test_linear_losses_have_no_error():
    x, y = torch.rand(5, 6), torch.tensor([1, 1, -1, 1, -1])

    def hinge_is_linear(z):  # far from the kink
        return 0.01 * z.sum(1)

    assert taylor_error(hinge_is_linear, x, y, Linf(0.3), loss="hinge").max() < 1e-6
    assert three_point_error(hinge_is_linear, x, y, draw_triplet(x, Linf(0.3)), loss="hinge").abs().max() < 1e-6


def test_triplets_are_uniform_independent_and_by_content():
    x = torch.rand(4000, 2)
    a, b, t = draw_triplet(x, Linf(0.1), seed=5)
    assert a.abs().max() <= 0.1 and a.abs().max() > 0.0999 and b.abs().max() > 0.0999
    assert abs(torch.corrcoef(torch.stack([a[:, 0], b[:, 0], t]))[0, 1:]).max() < 0.05
    assert t.min() >= 0 and t.max() <= 1 and t.mean().item() == pytest.approx(0.5, abs=0.02)
    again = draw_triplet(x[[7, 3]], Linf(0.1), seed=5)
    for whole, part in zip((a, b, t), again, strict=True):
        assert torch.equal(whole[[7, 3]], part)
    assert not draw_triplet(x, L1(0.1), "clean_random").first.any()
    assert torch.equal(draw_triplet(x, Linf(0.1), "clean_random", seed=5).second, b)


def test_taylor_error_is_what_the_loss_misses():
    x, y = images()
    model, delta = convnet(5).double(), 0.1 * torch.randn(6, 3, 8, 8, dtype=torch.float64)
    x = x.double()
    leaf = x.clone().requires_grad_()
    loss = cross_entropy(model(leaf), y)
    (g,) = torch.autograd.grad(loss.sum(), leaf)
    wanted = (cross_entropy(model(x + delta), y) - loss - (g * delta).sum((1, 2, 3))).abs()
    torch.testing.assert_close(taylor_error(model, x, y, delta), wanted.detach())


# --- saliency -----------------------------------------------------------------------------------------------


def test_saliency_of_a_linear_model_is_its_weights():
    model, x, y = RowwiseLinear(6, 4), torch.randn(5, 6), torch.tensor([0, 3, 1, 2, 2])
    torch.testing.assert_close(saliency(model, x, y), model.weight[y].detach())
    logits = model(x).detach()
    rival = logits.scatter(1, y[:, None], -math.inf).argmax(1)
    torch.testing.assert_close(saliency(model, x, y, "margin"), (model.weight[rival] - model.weight[y]).detach())
    p = logits.softmax(1) - nn.functional.one_hot(y, 4)
    torch.testing.assert_close(saliency(model, x, y, "loss"), (p @ model.weight).detach(), atol=1e-6, rtol=1e-5)


def test_saliency_against_finite_differences():
    model = mlp(4, 3).double()
    x, y = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 1, 2])
    for of, function in (("logit", lambda z: z[range(3), y]), ("loss", lambda z: cross_entropy(z, y))):
        found = saliency(model, x, y, of)
        for k in range(4):
            e = 1e-6 * torch.eye(4, dtype=torch.float64)[k]
            slope = (function(model(x + e)) - function(model(x - e))) / 2e-6
            torch.testing.assert_close(found[:, k], slope.detach(), atol=1e-7, rtol=1e-6)


def test_alignment_is_the_distance_for_linear_models_without_bias():
    model, x = nn.Linear(5, 1, bias=False), torch.randn(20, 5)
    distance = (model(x).squeeze(1).abs() / model.weight.norm()).detach()
    torch.testing.assert_close(alignment(x, winning_gradient(model, x, "none")), distance)


def test_alignment_of_many_classes_by_the_nearest_boundary():
    model, x = nn.Linear(5, 6, bias=False), torch.randn(50, 5)
    with torch.no_grad():
        model.weight[:3] *= 4  # so that the runner-up is not always the nearest
        z = model(x)
    w, wanted, differ = model.weight.detach(), [], 0
    for row in z:
        i = int(row.argmax())
        to = {j: float((row[i] - row[j]) / (w[i] - w[j]).norm()) for j in range(6) if j != i}
        wanted.append(min(to.values()))
        differ += min(to, key=to.get) != int(row.topk(2).indices[1])
    assert differ > 5
    torch.testing.assert_close(linearized_robustness(model, x), torch.tensor(wanted))
    torch.testing.assert_close(alignment(x, winning_gradient(model, x, "nearest")), torch.tensor(wanted))
    top = z.topk(2).indices
    torch.testing.assert_close(winning_gradient(model, x), w[top[:, 0]] - w[top[:, 1]])
    torch.testing.assert_close(winning_gradient(model, x, "none"), w[top[:, 0]])


def test_alignment_is_scale_free_signless_and_centers_images():
    x, _ = images()
    g = torch.randn_like(x)
    loop = torch.stack([(a * b).sum().abs() / b.norm() for a, b in zip(x, g, strict=True)])
    torch.testing.assert_close(alignment(x, g), loop)
    torch.testing.assert_close(alignment(x, -1e-30 * g), loop, atol=1e-4, rtol=1e-4)
    centered = x - x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(alignment(x, g, center=True), alignment(centered, g))
    torch.testing.assert_close(alignment(x + 0.3, g, center=True), alignment(x, g, center=True), atol=1e-5, rtol=1e-4)
    assert alignment(x, g * 0).isnan().all()


@pytest.mark.parametrize("look", [saliency, gradient_misalignment, taylor_error])
def test_the_model_is_left_as_found(look):
    model = nn.Sequential(convnet(5), nn.Dropout(0.5)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x, y = images()
    random = torch.get_rng_state()
    more = () if look is saliency else (Linf(0.1),)
    with torch.inference_mode():
        first = look(model, x.clone(), y.clone(), *more)
    torch.testing.assert_close(first, look(model.eval(), x, y, *more))
    model.train()
    with torch.no_grad():
        look(model, x, y, *more)
    assert all(m.training for m in model.modules())
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters()) and not x.requires_grad


def test_a_random_model_draws_without_moving_the_global_state():
    x, y = images()
    random = torch.get_rng_state()
    saliency(lambda z: (z + torch.randn_like(z)).sum((2, 3)).square(), x, y % 3)
    assert torch.equal(random, torch.get_rng_state())


def test_wrong_input_is_refused_with_a_way_out():
    x, y = images()
    model = convnet(5)
    with pytest.raises(InputError, match=r"x\.float\(\) / 255"):
        saliency(model, (255 * x).byte(), y)
    with pytest.raises(InputError, match="expected classes 0 to 4"):
        saliency(model, x, y + 5)
    with pytest.raises(InputError, match="expected a perturbation per example"):
        gradient_misalignment(model, x, y, torch.zeros(3))
    with pytest.raises(InputError, match="expected one without targets"):
        loss_gradient(model, x, y, "targeted_margin")
    with pytest.raises(InputError, match="the shape of x"):
        alignment(x, x[:2])
    with pytest.raises(InputError, match="use draw_triplet"):
        three_point_error(model, x, y, Triplet(x, x, torch.zeros(2)))
    with pytest.raises(InputError, match="'both_random' or 'clean_random'"):
        draw_triplet(x, Linf(0.1), "random")
    with pytest.raises(InputError, match="pick one"):
        saliency(model, x, y, "score")
    with pytest.raises(InputError, match="pick one"):
        winning_gradient(model, x, "second")
    with pytest.raises(InputError, match="at least two classes"):
        linearized_robustness(lambda z: z.sum((1, 2, 3)), x)
    with pytest.raises(InputError, match="expected 'none'"):
        winning_gradient(lambda z: z.sum((1, 2, 3)), x)
    with pytest.raises(ModelError, match="logits only"):
        saliency(lambda z: z, x, y)
    with pytest.raises(ModelError, match="depend on the input"):
        saliency(lambda z: convnet(5)(z.detach()), x, y)


# --- averages -----------------------------------------------------------------------------------------------


def test_averages_add_up():
    values = torch.randn(100, dtype=torch.float64)
    whole = Average.of(values)
    parts = Average.of(values[:30]) + Average.of(values[30:])
    assert parts.value == pytest.approx(values.mean().item()) and parts.n == 100
    assert parts.std == pytest.approx(values.std().item()) and whole.std == pytest.approx(parts.std)
    low, high = parts.interval
    assert high - low == pytest.approx(2 * 1.959964 * values.std().item() / 10)
    assert math.isnan(Average.of(values[:0]).value) and "n=100" in str(whole)
