"""Partial derivatives that are NaN or infinite count as 0; inputs stay what the search made them."""

import warnings

import pytest
import torch

from danskin import evaluate
from danskin.attacks import APGD, FAB, FMN, PGD, Boundary, CarliniWagner, HopSkipJump, Square
from danskin.errors import DanskinWarning, ModelError
from danskin.metrics import gradient_misalignment, saliency
from danskin.minmax import L2, Ascent, Linf, Status, Vertex
from danskin.minmax.gradients import finite
from danskin.regularizers import CURE, ELLE, GradAlign
from danskin.testing.models import Doubling, Rooted, RowwiseLinear, mlp
from danskin.training import AdversarialTraining, FreeTraining

X = (torch.rand(12, 20, generator=torch.Generator().manual_seed(3)) * 1.4 - 0.4).clamp(0, 1)
NET = mlp(20, 4, seed=1)
BAD, TAME = Rooted(NET), Rooted(NET, tame=True)
Y = TAME(X).argmax(1)


def test_only_bad_entries_become_zero():
    slope = torch.tensor([[1.0, torch.nan, -torch.inf], [2.0, torch.inf, 3.0]])
    clean, found = finite(slope, torch.tensor([0.0, 1.0]))
    assert found and clean.tolist() == [[1, 0, 0], [2, 0, 3]]
    huge = torch.full((1, 2), 3e38)  # whose sum is infinite
    assert finite(huge, torch.zeros(1))[1] is False and torch.equal(finite(huge, torch.zeros(1))[0], huge)
    assert finite(slope, torch.full((2,), torch.nan))[1] is False  # the values say so themselves


@pytest.mark.parametrize(
    "attack",
    [PGD(L2(0.6), steps=10), APGD(L2(0.6), steps=20), FMN(L2(0.6), steps=30), CarliniWagner(L2(0.6), steps=30)],
    ids=lambda a: type(a).__name__,
)
def test_l2_attacks_find_what_they_find_with_finite_gradients(attack):
    with pytest.warns(DanskinWarning, match="partial derivatives"):
        found = attack(BAD, X, Y)
    known = attack(TAME, X, Y)
    assert torch.equal(found.x, known.x) and int(known.success.sum()) >= 6
    assert found.status is Status.BAD_GRADIENT and known.status is not Status.BAD_GRADIENT


def test_plain_functions_too():
    with pytest.warns(DanskinWarning, match="partial derivatives"):
        found = Ascent(5, 0.1)(lambda y: y.clamp_min(0).sqrt().sum(1) + y[:, 0], torch.zeros(2, 3), L2(1.0))
    assert found.y.isfinite().all()
    with pytest.warns(DanskinWarning, match="partial derivatives"):
        assert Vertex()(lambda y: y[:, 0] + y[:, 1:].norm(dim=1).sqrt(), torch.zeros(1, 3), L2(2.0)).y.tolist() == [
            [2, 0, 0]
        ]


@pytest.mark.parametrize("suite", ["fast", [APGD(Linf(0.2), steps=10, stop=True)]], ids=["fast", "apgd"])
def test_the_verdict_says_so(suite):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DanskinWarning)
        found, known = (evaluate(m, (X, Y), Linf(0.2), suite, diagnostics=0) for m in (BAD, TAME))
    assert torch.equal(found.broken_by, known.broken_by) and known.robust.value < 1
    assert "gradient_not_finite" in {f.name for f in found.flags}
    assert "gradient_not_finite" not in {f.name for f in known.flags}


@pytest.mark.parametrize("make", [lambda: AdversarialTraining(PGD(L2(0.6), steps=3)), lambda: FreeTraining(L2(0.6))])
def test_training_goes_on_along_the_other_coordinates(make):
    points = []
    for model in (BAD, TAME):
        objective = make()
        memory = objective.begin()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DanskinWarning)
            for seed in range(3):
                NET.zero_grad()
                loss = objective(model, X, Y, seed=seed, memory=memory)
                loss.backward()
        points.append((float(loss.detach()), float(NET[1].weight.grad.norm())))
    NET.zero_grad()
    assert points[0] == points[1] and points[0][1] > 0


def test_terms_with_two_derivatives_refuse_and_metrics_go_on():
    for term in (GradAlign(L2(0.1), box=(0, 1)), CURE(L2(0.1), box=(0, 1))):
        with warnings.catch_warnings(), pytest.raises(ModelError, match="partial derivatives"):
            warnings.simplefilter("ignore", DanskinWarning)
            term(BAD, X, Y)
    assert ELLE(L2(0.1), box=(0, 1))(BAD, X, Y).isfinite().all()
    with pytest.warns(DanskinWarning, match="partial derivatives"):
        assert saliency(BAD, X, Y, of="margin").isfinite().all()
    with pytest.warns(DanskinWarning, match="partial derivatives"):
        assert gradient_misalignment(BAD, X, Y, torch.full_like(X, 0.01)).isfinite().all()


@pytest.mark.parametrize(
    "attack",
    [
        Square(L2(1.0), 60),
        HopSkipJump(L2(1.0), queries=60),
        Boundary(L2(1.0), queries=60),
        PGD(Linf(0.1)),
        FAB(L2(1.0)),
    ],
    ids=lambda a: type(a).__name__,
)
def test_the_point_recorded_is_the_point_tried(attack):
    x = X.view(12, 1, 4, 5)
    net = RowwiseLinear(20, 4)
    honest = Doubling(net, honest=True)
    y = honest(x).argmax(1)
    before = x.clone()
    with pytest.warns(DanskinWarning, match="writes into it"):
        found = attack(Doubling(net, honest=False), x, y)
    known = attack(honest, x, y)
    assert torch.equal(found.x, known.x) and torch.equal(found.success, known.success) and known.success.any()
    assert torch.equal(x, before)


def test_writing_by_torch_is_seen_in_every_pass():
    class Late:
        calls = 0

        def __call__(self, x):
            self.calls += 1
            if self.calls == 4:
                x.detach().mul_(2)
            return NET(x)

    with pytest.raises(ModelError, match="wrote into it"):
        PGD(Linf(0.1), steps=10)(Late(), X, Y)
    with pytest.warns(DanskinWarning, match="writes into it"):  # a leaf that wants a gradient refuses
        PGD(Linf(0.1), steps=2)(lambda x: NET(x.mul_(2)), X, Y)
