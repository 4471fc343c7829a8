"""With many classes, targets come in groups: memory is bounded, and the outcome is the same."""

import pytest
import torch

from danskin.attacks import BETA, FABT, MultiTargeted, towards
from danskin.metrics.saliency import linearized_robustness, winning_gradient
from danskin.minmax import L2, Linf
from danskin.testing.models import mlp
from danskin.training import BETATraining

CLASSES = 50
X = torch.rand(3, 12, generator=torch.Generator().manual_seed(0))
NET = mlp(12, CLASSES, seed=1)
Y = NET(X).argmax(1)
ATTACKS = {
    "beta": BETA(Linf(0.05), steps=4, keep="value", random_start=False),
    "beta, first step shared": BETA(Linf(0.05), steps=4, keep="value", random_start=False, shared_first=True),
    "beta, stop": BETA(Linf(0.02), steps=4, stop=True, random_start=False),
    "multi-targeted": MultiTargeted(L2(0.1), steps=6, classes=None, start="given"),
    "fab-t": FABT(L2(0.3), steps=6, classes=None),
}


class Widest(torch.nn.Module):
    """The network, and the most rows it has seen at once."""

    def __init__(self):
        super().__init__()
        self.net, self.rows = NET, 0

    def forward(self, x):
        self.rows = max(self.rows, len(x))
        return self.net(x)


@pytest.mark.parametrize("name", ATTACKS)
def test_in_groups_as_all_at_once(name, monkeypatch):
    model = Widest().eval()
    grouped = ATTACKS[name](model, X, Y)
    assert model.rows <= towards.TOGETHER * len(X)
    monkeypatch.setattr(towards, "TOGETHER", CLASSES)
    monkeypatch.setattr("danskin.attacks.beta.TOGETHER", CLASSES)
    whole, model.rows = ATTACKS[name](model, X, Y), 0
    assert torch.equal(grouped.success, whole.success)
    if "stop" not in name:
        assert torch.equal(grouped.x, whole.x) and torch.allclose(grouped.loss, whole.loss)


def test_every_class_by_itself_is_found_in_groups(monkeypatch):
    attack, model = BETA(Linf(0.05), steps=3), Widest().eval()
    grouped = attack.per_class(model, X, Y, seed=5)
    assert grouped.delta.shape == (3, CLASSES - 1, 12) and model.rows <= towards.TOGETHER * len(X)
    monkeypatch.setattr("danskin.attacks.beta.TOGETHER", CLASSES)
    whole = attack.per_class(model, X, Y, seed=5)
    assert torch.equal(grouped.delta, whole.delta) and torch.allclose(grouped.margin, whole.margin, atol=1e-5)


def test_smooth_training_has_the_gradients_of_all_points_at_once(monkeypatch):
    model, gradients = Widest().eval(), []
    for together in (towards.TOGETHER, CLASSES):
        monkeypatch.setattr("danskin.training.objectives.TOGETHER", together)
        model.rows = 0
        NET.zero_grad()
        loss = BETATraining(BETA(Linf(0.05), steps=2), mu=3.0)(model, X, Y)
        loss.backward()
        gradients.append([p.grad.clone() for p in NET.parameters()])
        assert together == CLASSES or model.rows <= towards.TOGETHER * len(X)
    NET.zero_grad()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_the_nearest_class_is_that_of_a_full_jacobian():
    jacobian = torch.stack([torch.func.jacrev(NET)(x[None])[0, :, 0] for x in X])
    logits, rows = NET(X).detach(), torch.arange(3)
    slopes = jacobian[rows, Y][:, None] - jacobian
    distance = (logits.gather(1, Y[:, None]) - logits) / slopes.norm(dim=2)
    distance[rows, Y] = torch.inf
    assert torch.allclose(linearized_robustness(NET, X), distance.amin(1))
    assert torch.allclose(winning_gradient(NET, X, "nearest"), slopes[rows, distance.argmin(1)], atol=1e-6)
