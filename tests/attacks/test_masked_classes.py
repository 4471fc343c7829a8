"""Classes that are not there (logits of -inf): everything is as for the smaller model that never had them."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from danskin.attacks import ATTACKS, BETA, PGD, MultiTargeted
from danskin.evaluation import diagnose, evaluate
from danskin.losses import LOSSES, cross_entropy, get_loss, kl, predict, usable
from danskin.metrics import gradient_misalignment, saliency
from danskin.metrics.linearity import taylor_error
from danskin.metrics.saliency import linearized_robustness, winning_gradient
from danskin.minmax import L1, L2, Linf
from danskin.regularizers import REGULARIZERS
from danskin.training import MART, TRADES, AdversarialTraining, BETATraining

KEPT = torch.tensor([0, 2, 4])
GONE = torch.tensor([False, True, False, True, False, True])  # the label may be a later class than those not there


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 6)).eval()
        net[3].weight.data *= 4
    return net


class Without(nn.Module):
    """Six classes of which three are there, or the three alone."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = network(), form

    def forward(self, x):
        z = self.net(x)
        if self.form == "fill":
            return z.masked_fill(GONE, -torch.inf)
        if self.form == "add":
            return z + torch.zeros(6).masked_fill(GONE, -torch.inf)
        return z[:, KEPT]


SMALL = Without("cut").eval()
X = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(2))
FEW = predict(SMALL(X)).detach()
Y = KEPT[FEW]
BALLS = (Linf(0.1), L2(0.8), L1(4.0))
both = pytest.mark.parametrize("form", ["fill", "add"])


def short(attack):
    known = {f.name for f in fields(attack)}
    few = {"steps": 8, "queries": 60, "searches": 3, "hops": 4, "climb": 4, "chains": 2, "least": 2}
    return replace(attack, **{k: v for k, v in few.items() if k in known})


def same(a, b, **tolerance):
    torch.testing.assert_close(a, b, **tolerance)


@both
@pytest.mark.parametrize("name", sorted({*LOSSES} - {"logistic", "squared", "hinge"}))
def test_losses_and_their_gradients(form, name):
    loss, out = get_loss(name), []
    targets = FEW.roll(1) + (FEW.roll(1) == FEW).long() * (1 - 3 * (FEW == 2).long())
    for model, y, t in ((SMALL, FEW, targets % 3), (Without(form).eval(), Y, KEPT[targets % 3])):
        x = X.clone().requires_grad_()
        extra = (t,) if loss.targeted else ()
        labels = model(X.flip(0)).log_softmax(1) if loss.relative else y
        value = loss.function(model(x), labels, *extra)
        slope = torch.autograd.grad(value.sum(), x)[0] if value.requires_grad else x.detach()
        out.append((value.detach(), slope))
    same(*out)


def test_kl_counts_nothing_for_a_class_that_is_not_there():
    p, q = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[1.0, 1.0, -torch.inf]]).requires_grad_()
    assert (
        float(kl(q, p).detach()) == pytest.approx(0, abs=1e-6)
        and torch.autograd.grad(kl(q, p).sum(), q)[0].isfinite().all()
    )
    assert float(kl(torch.zeros(1, 3), p)) == pytest.approx(math.log(1.5))
    assert float(kl(p, torch.zeros(1, 3).log_softmax(1))) == torch.inf  # where q has no mass and p has


def test_smoothing_is_over_the_classes_there():
    z = torch.tensor([[2.0, -1.0, 0.5]])
    y = torch.tensor([1])
    same(cross_entropy(z, y, 0.3), nn.functional.cross_entropy(z, y, reduction="none", label_smoothing=0.3))
    masked = torch.tensor([[2.0, -torch.inf, -1.0, 0.5]], requires_grad=True)
    value = cross_entropy(masked, torch.tensor([2]), 0.3)
    same(value, cross_entropy(z, y, 0.3))
    assert torch.autograd.grad(value.sum(), masked)[0].isfinite().all()


def test_a_single_class_that_is_there_cannot_be_beaten_and_none_is_no_answer():
    only, y = torch.tensor([[-torch.inf, 1.0, -torch.inf, -torch.inf]]).requires_grad_(), torch.tensor([1])
    for name in ("margin", "dlr"):
        value = get_loss(name).function(only, y)
        assert float(value.detach()) == -torch.inf and not torch.autograd.grad(value.sum(), only)[0].isnan().any()
    for name in ("targeted_margin", "targeted_dlr"):
        value = get_loss(name).function(only, y, torch.tensor([2]))
        assert float(value.detach()) == -torch.inf and not torch.autograd.grad(value.sum(), only)[0].isnan().any()
        assert float(get_loss(name).function(only.detach(), torch.tensor([0]), torch.tensor([2]))) == -torch.inf
    z = torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf], [torch.nan, 1.0], [0.0, torch.inf]])
    assert usable(z).tolist() == [True, False, False, False]


@both
@pytest.mark.parametrize("ball", BALLS, ids=repr)
@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - {"linear_worst_case"}))
def test_attacks(form, ball, name):
    attack = short(ATTACKS[name](ball))
    if not attack.stays_inside:
        pytest.skip("only trained with")
    if type(ball) not in getattr(attack, "norms", BALLS and (Linf, L2, L1)):
        pytest.skip("another norm")
    few, many = attack(SMALL, X, FEW, seed=3), attack(Without(form).eval(), X, Y, seed=3)
    assert torch.equal(few.success, many.success)
    same(many.x, few.x, atol=1e-5, rtol=0)
    same(many.loss, few.loss)


@both
def test_targets_that_are_not_there_do_no_harm(form):
    model, ball = Without(form).eval(), Linf(0.1)
    absent = torch.full_like(Y, 1)
    for loss in ("cross_entropy", "targeted_margin", "targeted_dlr"):
        out = PGD(ball, 4, loss=loss)(model, X, Y, targets=absent)
        assert not out.success.any() and not out.loss.isnan().any()
    each = BETA(ball, 4).per_class(model, X, Y)
    few = BETA(ball, 4).per_class(SMALL, X, FEW)
    same(each.margin[:, :2], few.margin)
    assert not (each.classes == Y[:, None]).any() and bool((each.margin[:, 2:] == -torch.inf).all())
    for mu in (0.0, 3.0):
        same(each.weights(mu)[:, :2], few.weights(mu))
        assert not each.weights(mu)[:, 2:].any()
    lonely = BETA(ball, 4).per_class(lambda x: model(x).where(torch.arange(6) == 4, -torch.inf), X, KEPT[2].expand(6))
    assert bool((lonely.weights(0.0) == 0.2).all()) and bool((lonely.weights(2.0) == 0.2).all())


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
@pytest.mark.parametrize("suite", ["fast", "standard"])
def test_an_example_with_one_class_left_is_robust(suite, loss):
    net = network()

    def model(x):  # the mask goes with the example: half of them have one class left
        few = x.flatten(1)[:, 0] < 0.5
        return net(x).masked_fill(few[:, None] & (torch.arange(6) != 4), -torch.inf)

    x = X.clone()
    x[:, 0, 0, 0] = torch.tensor([0.2, 0.8]).repeat(3)
    y = model(x).argmax(1)
    own = [PGD(Linf(0.2), 5, loss=loss), MultiTargeted(Linf(0.2), 5, loss="targeted_margin"), BETA(Linf(0.2), 5)]
    verdict = evaluate(model, (x, y), Linf(0.2), own, diagnostics=0)
    assert verdict.outcomes[::2].all()
    if loss == "margin":
        verdict = evaluate(model, (x, y), Linf(0.01), suite, diagnostics=6)
        assert verdict.outcomes[::2].all() and "random" not in {flag.name for flag in verdict.flags}


@both
def test_objectives_and_their_gradients(form):
    attack = PGD(Linf(0.1), 3, start_noise=0.001, keep="last")
    objectives = [
        TRADES(attack), TRADES(attack, smoothing=0.1), MART(attack), AdversarialTraining(attack),
        *(BETATraining(BETA(Linf(0.1), 3), mu=mu) for mu in (None, 0.0, 2.0)),
    ]  # fmt: skip
    for objective in objectives:
        out = []
        for model, y in ((Without("cut").eval(), FEW), (Without(form).eval(), Y)):
            loss = objective(model, X, y, seed=1)
            loss.backward()
            out.append((loss.detach(), [p.grad for p in model.parameters()]))
        same(*out)


@both
@pytest.mark.parametrize("name", sorted(REGULARIZERS))
def test_regularizers(form, name):
    out = []
    for model, y in ((Without("cut").eval(), FEW), (Without(form).eval(), Y)):
        term = REGULARIZERS[name](Linf(0.1))
        values = term(model, X, y, seed=1, memory=term.begin())
        slopes = (
            torch.autograd.grad(values.sum(), list(model.parameters())) if values.requires_grad else ()
        )  # switched off
        out.append((values.detach(), slopes))
    same(*out)


@both
def test_metrics_and_diagnosis(form):
    model = Without(form).eval()
    for of in ("logit", "loss", "margin"):
        same(saliency(model, X, Y, of), saliency(SMALL, X, FEW, of))
    for against in ("none", "runner_up", "nearest"):
        same(winning_gradient(model, X, against), winning_gradient(SMALL, X, against))
    same(linearized_robustness(model, X), linearized_robustness(SMALL, X))
    ball = Linf(0.1)
    same(gradient_misalignment(model, X, Y, ball), gradient_misalignment(SMALL, X, FEW, ball))
    same(taylor_error(model, X, Y, ball), taylor_error(SMALL, X, FEW, ball))
    few = [flag for flag in diagnose(SMALL, X, FEW, ball) if flag.name != "few_classes"]
    assert [f.name for f in diagnose(model, X, Y, ball)] == [f.name for f in few]
