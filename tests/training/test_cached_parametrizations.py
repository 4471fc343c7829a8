"""Inside `parametrize.cached()` every objective has the gradients of the model without a cache."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from danskin import ELLE, FGSM, L2, MART, PGD, TRADES, AdversarialTraining, DDi, GradAlign, Linf, Regularized
from danskin.attacks import BETA
from danskin.training import BETATraining, StandardTraining, WeightStability
from danskin.training.awp import Shifted

X = torch.rand(8, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3
PGD2 = PGD(Linf(0.1), steps=2, keep="last")
OBJECTIVES = {
    "standard": StandardTraining(),
    "pgd": AdversarialTraining(PGD2),
    "fgsm and gradalign": Regularized(AdversarialTraining(FGSM(Linf(0.1))), (GradAlign(Linf(0.1)),)),
    "fgsm and elle": Regularized(AdversarialTraining(FGSM(Linf(0.1))), (ELLE(Linf(0.1), 10.0),)),
    "trades": TRADES(PGD2, beta=6),
    "mart": MART(PGD2, beta=6),
    "beta": BETATraining(BETA(L2(0.2), steps=2, keep="value")),
    "ddi": DDi(PGD2, 2),
    "ddi by layers": DDi(PGD2, 2, gram="layerwise"),
    "stability": WeightStability(0.05, False, objective=AdversarialTraining(PGD2)),
    "stability per sample": WeightStability(0.05, objective=AdversarialTraining(PGD2)),
}


def network():
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    parametrizations.weight_norm(first)
    parametrizations.spectral_norm(last)
    return nn.Sequential(first, nn.GELU(), last).eval()


def gradients(objective, cached):
    model = network()
    with parametrize.cached() if cached else torch.enable_grad():
        objective(model, X, Y, seed=1, memory=objective.begin()).backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch has no batching rule for weight_norm
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_cache_changes_no_gradient(name):
    plain, cached = (gradients(OBJECTIVES[name], c) for c in (False, True))
    assert all(g is not None and float(g.abs().max()) > 0 for g in cached[:2])
    for a, b in zip(plain, cached, strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_an_attack_uses_its_own_and_leaves_what_was_remembered():
    model = network()
    with parametrize.cached():
        before = model[0].weight
        PGD2(model, X, Y)
        assert model[0].weight is before and before.requires_grad
        moved = Shifted(model, {"0.bias": model[0].bias + 1})(X)
        assert not torch.allclose(moved, model(X)) and model[0].weight is before
