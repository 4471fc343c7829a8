"""Objectives: gradients against a loop by hand and closed forms; nothing but backward() touches .grad."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danskin.attacks import FGSM, PGD, LinearWorstCase
from danskin.errors import InputError
from danskin.minmax import L1, L2, Linf
from danskin.training import AdversarialTraining, LinearRobustTraining, StandardTraining, inner_attack

RADIUS, STEPS, RATE = 0.1, 3, 1 / 32


def net(norm=False):
    layers = [nn.Linear(5, 8), nn.BatchNorm1d(8)] if norm else [nn.Linear(5, 8)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(8, 3)).double()


def batch(n=12):
    return torch.rand(n, 5, dtype=torch.float64), torch.arange(n) % 3


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


def pgd_by_hand(model, x, y):
    """x + delta after projected sign steps from 0, inside ball and unit box."""
    delta = torch.zeros_like(x)
    for _ in range(STEPS):
        delta.requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(model(x + delta), y, reduction="sum"), delta)
        delta = (delta.detach() + RATE * g.sign()).clamp(-RADIUS, RADIUS)
        delta = (x + delta).clamp(0, 1) - x
    return x + delta


ATTACK = PGD(Linf(RADIUS), STEPS, RATE, random_start=False, keep="last")


def same(a, b, tolerance=1e-12):
    assert len(a) == len(b)
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, atol=tolerance, rtol=0)


def test_standard_training_is_the_mean_cross_entropy():
    model, (x, y) = net(), batch()
    loss, truth = StandardTraining()(model, x, y), F.cross_entropy(model(x), y)
    assert loss.item() == truth.item()
    same(gradients(model, loss), gradients(model, truth), 0)


def test_adversarial_training_is_the_loop_by_hand():
    model, (x, y) = net(), batch()
    loss = AdversarialTraining(ATTACK)(model, x, y)
    truth = F.cross_entropy(model(pgd_by_hand(model, x, y)), y)
    assert truth > F.cross_entropy(model(x), y) + 1e-3
    assert loss.item() == pytest.approx(truth.item(), abs=1e-13)
    same(gradients(model, loss), gradients(model, truth))


def test_outer_loss_may_differ_from_the_attacks():
    model, (x, y) = net(), batch()
    attack = PGD(Linf(RADIUS), STEPS, RATE, random_start=False, keep="last", loss="margin")
    loss = AdversarialTraining(attack, loss="cross_entropy")(model, x, y)
    assert loss.item() == pytest.approx(F.cross_entropy(model(attack(model, x, y).x), y).item(), abs=1e-13)


@pytest.mark.parametrize("mode", ["eval", "batch_frozen", "train_update"])
def test_batchnorm_modes_are_the_loops_of_public_code(mode):
    model, (x, y) = net(norm=True), batch()
    model(torch.rand(50, 5, dtype=torch.float64))  # running statistics of other data
    twin = deepcopy(model)
    loss = AdversarialTraining(ATTACK, batchnorm=mode)(model, x, y)
    if mode == "eval":
        points = pgd_by_hand(deepcopy(twin).eval(), x, y)
    elif mode == "batch_frozen":
        points = pgd_by_hand(deepcopy(twin), x, y)
    else:
        points = pgd_by_hand(twin, x, y)
    truth = F.cross_entropy(twin(points), y)
    same(gradients(model, loss), gradients(twin, truth))
    same(list(model.buffers()), list(twin.buffers()))
    assert model.training


def test_keep_last_costs_one_forward_per_step_and_one_outside():
    model, (x, y) = net(norm=True), batch()
    AdversarialTraining(ATTACK, batchnorm="train_update")(model, x, y)
    assert int(model[1].num_batches_tracked) == STEPS + 1


def binary(d=6, n=9):
    model = nn.Linear(d, 1).double()
    return model, torch.randn(n, d, dtype=torch.float64), 2 * (torch.arange(n) % 2) - 1


@pytest.mark.parametrize("objective", [LinearRobustTraining, AdversarialTraining])
def test_linear_logistic_closed_form(objective):
    """-mean sigmoid(-m_i) (b_i x_i - eps sign w), m_i = b_i h(x_i) - eps |w|_1."""
    model, x, b = binary()
    f = LinearRobustTraining(Linf(0.2)) if objective is LinearRobustTraining else AdversarialTraining(
        FGSM(Linf(0.2), loss="logistic", box=None)
    )  # fmt: skip
    w = model.weight.detach()[0]
    m = b * model(x).detach()[:, 0] - 0.2 * w.abs().sum()
    loss = f(model, x, b)
    assert loss.item() == pytest.approx(torch.log1p(torch.exp(-m)).mean().item(), abs=1e-13)
    pull = -torch.sigmoid(-m)[:, None]
    truth = (pull * (b[:, None] * x - 0.2 * w.sign())).mean(0, keepdim=True), (pull * b[:, None]).mean(0)
    same(gradients(model, loss), truth)


@pytest.mark.parametrize("ball", [Linf(0.3), L2(0.7), L1(1.5)])
@pytest.mark.parametrize("loss", ["logistic", "hinge", "squared"])
def test_linear_robust_training_is_training_at_the_exact_worst_case(ball, loss):
    model, x, b = binary()
    closed = LinearRobustTraining(ball, loss)(model, x, b)
    attacked = AdversarialTraining(LinearWorstCase(ball, loss=loss, box=None))(model, x, b)
    if loss == "squared":  # the closed form is the squared loss of the worst margin
        h = (b * model(x)[:, 0] - ball.value * ball.dual_norm(model.weight)).detach()
        assert closed.item() == pytest.approx(((1 - h) ** 2).mean().item(), abs=1e-12)
    assert closed.item() == pytest.approx(attacked.item(), abs=1e-12)
    same(gradients(model, closed), gradients(model, attacked))


def test_robust_weights_get_the_penaltys_gradient_through_a_deeper_affine_model():
    """The dual norm is that of the product of the layers, and both layers are pulled."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)).double()
    x, b = torch.randn(5, 4, dtype=torch.float64), torch.tensor([1, -1, 1, 1, -1])
    m = b * model(x)[:, 0] - 0.1 * (model[1].weight @ model[0].weight).abs().sum()
    loss, truth = LinearRobustTraining(Linf(0.1))(model, x, b), F.softplus(-m).mean()
    same(gradients(model, loss), gradients(model, truth))


OBJECTIVES = [StandardTraining(), AdversarialTraining(ATTACK), AdversarialTraining(PGD(L2(0.2), 2))]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_backward_touches_grad(objective):
    model, (x, y) = net(), batch()
    loss = objective(model, x, y)
    assert all(p.grad is None for p in model.parameters())
    loss.backward()
    once = [p.grad.clone() for p in model.parameters()]
    loss = objective(model, x, y)
    same([p.grad for p in model.parameters()], once, 0)
    loss.backward()
    same([p.grad for p in model.parameters()], [2 * g for g in once])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_anyones_loop(objective):
    model, (x, y) = net(), batch(60)
    y = (x[:, 0] > 0.5).long()
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9), []
    for step in range(80):
        loss = objective(model, x, y, seed=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_seed_decides_the_random_start():
    model, (x, y) = net(), batch()
    objective = AdversarialTraining(PGD(Linf(0.2), 1, 0.01, keep="last"))
    values = [objective(model, x, y, seed=s).item() for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_global_random_state_is_left_alone():
    model, (x, y) = net(), batch()
    before = torch.get_rng_state()
    AdversarialTraining(PGD(Linf(0.1), 2))(model, x, y)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("objective", OBJECTIVES[:2])
@pytest.mark.parametrize("labels", [[0, 1, 3], [0, 1, -1]])
def test_labels_without_a_logit(objective, labels):
    model, (x, _) = net(), batch(3)
    with pytest.raises(InputError, match=r"expected classes 0 to 2, got values from"):
        objective(model, x, torch.tensor(labels))


def test_float_labels():
    model, (x, y) = net(), batch()
    with pytest.raises(InputError, match="expected integer labels"):
        AdversarialTraining(ATTACK)(model, x, y.double())


def test_empty_batch():
    model, (x, y) = net(), batch()
    with pytest.raises(InputError, match=r"expected at least one example, got an empty batch; skip it"):
        AdversarialTraining(ATTACK)(model, x[:0], y[:0])


@pytest.mark.parametrize("objective", [StandardTraining("logistic"), AdversarialTraining(ATTACK, "logistic")])
def test_binary_loss_on_classes(objective):
    model, (x, y) = net(), batch()
    with pytest.raises(InputError, match="logistic: expected one output per example"):
        objective(model, x, y)


@pytest.mark.parametrize("loss", ["zero_one", "targeted_margin"])
@pytest.mark.parametrize("make", [StandardTraining, lambda loss: AdversarialTraining(ATTACK, loss)])
def test_losses_that_weights_cannot_minimise(make, loss):
    model, (x, y) = net(), batch()
    with pytest.raises(InputError, match=r"loss: expected one that weights can minimise.*use cross_entropy"):
        make(loss)(model, x, y)


def test_linear_robust_training_needs_a_margin_loss_and_signs():
    model, x, b = binary()
    with pytest.raises(InputError, match="classes have no closed form"):
        LinearRobustTraining(Linf(0.1), "cross_entropy")(model, x, b)
    with pytest.raises(InputError, match="map 0/1 labels"):
        LinearRobustTraining(Linf(0.1))(model, x, (b + 1) // 2)


def test_inner_attack():
    assert inner_attack(AdversarialTraining(ATTACK)) is ATTACK
    assert inner_attack(StandardTraining()) is None
