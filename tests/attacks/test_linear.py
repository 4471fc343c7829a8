"""Linear models: every attack reaches the closed form, and the exact worst case is exact."""

import pytest
import torch
from scipy.optimize import linprog

from danskin.attacks import FGSM, PGA, PGD, LinearWorstCase, MajorizeMinimize, robust_logistic_risk, robust_margin
from danskin.errors import InputError, ModelError
from danskin.losses import margin
from danskin.minmax import L1, L2, Linf, Streams
from danskin.testing import oracles
from danskin.testing.models import RowwiseLinear, mlp

RADIUS = {"linf": 0.1, "l2": 0.4, "l1": 0.9}
BALLS = {"linf": Linf, "l2": L2, "l1": L1}
ATTACKS = {
    "fgsm": FGSM,
    "pga": lambda ball, **kw: PGA(ball, steps=3, step=1e6, **kw),
    "pgd": lambda ball, **kw: PGD(ball, steps=20, **kw),
    "mm": lambda ball, **kw: MajorizeMinimize(ball, steps=3, **kw),
    "exact": LinearWorstCase,
}
D = 7


def problem(n=5, d=D):
    """A float64 model with one output, data with some pixels at the ends of the box, labels."""
    model = RowwiseLinear(d, 1, seed=2).double()
    x = torch.rand(n, d, dtype=torch.float64)
    x[:, 0], x[:, 1] = 0.0, 1.0
    return model, x, torch.tensor([1, -1] * n)[:n]


def promised(model, x, y, norm, box):
    """The most of -y h(x + delta), by sorting in plain Python."""
    w, most = model.weight[0].detach(), []
    for row, label in zip(x, y, strict=True):
        low, high = (-row, 1 - row) if box else (torch.full_like(row, -99), torch.full_like(row, 99))
        gain, _ = oracles.linear_worst_case((-label * w).tolist(), RADIUS[norm], low.tolist(), high.tolist(), norm)
        most.append(-float(label * model(row[None]).detach()) + gain)
    return torch.tensor(most, dtype=torch.float64)


@pytest.mark.parametrize("box", [None, (0, 1)], ids=["no box", "box"])
@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_reaches_the_closed_form(name, norm, box):
    model, x, y = problem()
    attack = ATTACKS[name](BALLS[norm](RADIUS[norm]), loss="logistic", box=box)
    out = attack(model, x, y)
    worst = -(y * model(out.x).flatten()).detach()
    wanted = promised(model, x, y, norm, box)
    assert bool((worst <= wanted * (1 + 1e-9 * wanted.sign())).all())
    assert torch.allclose(worst, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", BALLS)
def test_closed_form_without_box_is_the_dual_norm(norm):
    model, x, y = problem()
    ball = BALLS[norm](RADIUS[norm])
    least = robust_margin(y * model(x).flatten(), model.weight, ball).detach()
    assert torch.allclose(-least, promised(model, x, y, norm, None))


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("box", [None, (0, 1)], ids=["no box", "box"])
@pytest.mark.parametrize("d", [3, 6])
def test_many_classes_equal_brute_force(norm, box, d):
    model, radius = RowwiseLinear(d, 4, seed=d).double(), RADIUS[norm]
    x, y = torch.rand(6, d, dtype=torch.float64), torch.arange(6) % 4
    out = LinearWorstCase(BALLS[norm](radius), box=box)(model, x, y)
    got = margin(model(out.x), y).detach()
    for i in range(6):
        low = -x[i] if box else torch.full((d,), -99.0).double()
        high = 1 - x[i] if box else torch.full((d,), 99.0).double()
        assert float(got[i]) == pytest.approx(brute_force(model, x[i], int(y[i]), radius, low, high, norm), abs=1e-8)


def brute_force(model, x, label, radius, low, high, norm):
    """The most of z_j - z_label over j and the set: all corners, a linear program, or (l2) the oracle."""
    logits, W = model(x[None])[0].detach(), model.weight.detach()
    best = -torch.inf
    for j in set(range(4)) - {label}:
        g = W[j] - W[label]
        if norm == "linf":
            corners = oracles.corners(low.clamp_min(-radius).tolist(), high.clamp_max(radius).tolist())
            most = max(float(g @ torch.tensor(c, dtype=torch.float64)) for c in corners)
        elif norm == "l1":  # q = a - b with a, b >= 0 and sum a + b <= radius
            c = torch.cat([-g, g]).numpy()
            bounds = [(0, h) for h in high.tolist()] + [(0, -v) for v in low.tolist()]
            most = -linprog(c, A_ub=[[1.0] * len(c)], b_ub=[radius], bounds=bounds).fun
        else:
            most, _ = oracles.linear_worst_case(g.tolist(), radius, low.tolist(), high.tolist(), "l2")
        best = max(best, float(logits[j] - logits[label]) + most)
    return best


@pytest.mark.parametrize("norm", BALLS)
def test_no_random_point_beats_the_exact_worst_case(norm):
    model, x, y = (
        RowwiseLinear(D, 3, seed=1).double(),
        torch.rand(4, D, dtype=torch.float64),
        torch.tensor([0, 1, 2, 0]),
    )
    ball = BALLS[norm](RADIUS[norm])
    worst = margin(model(LinearWorstCase(ball)(model, x, y).x), y)
    Y = LinearWorstCase(ball).feasible(x)
    for k in range(50):
        assert bool((margin(model(x + Y.sample(x, Streams.of(k, torch.arange(4)))), y) <= worst + 1e-12).all())


def test_refuses_a_model_that_is_not_linear():
    x = torch.rand(4, D)
    with pytest.raises(ModelError, match=r"expected an affine model, got .*; use PGD"):
        LinearWorstCase(Linf(0.3))(mlp(D, 3), x, torch.tensor([0, 1, 2, 0]))


def test_refuses_targets_among_many_classes():
    x, y = torch.rand(2, D), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"expected no targets .*got targets and 3 classes; "):
        LinearWorstCase(Linf(0.1))(RowwiseLinear(D, 3), x, y, targets=y)
    assert LinearWorstCase(Linf(0.9))(RowwiseLinear(D, 2, scale=9), x, y, targets=1 - y).success.all()


@pytest.mark.parametrize("norm", BALLS)
def test_robust_logistic_risk_is_the_attacked_loss(norm):
    _, x, y = problem()
    model = torch.nn.Linear(D, 1).double()
    ball = BALLS[norm](RADIUS[norm])
    risk = robust_logistic_risk(model, x, y, ball)
    out = LinearWorstCase(ball, loss="logistic", box=None)(model, x, y)
    assert torch.allclose(risk, out.loss)

    risk.mean().backward()
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    (torch.nn.functional.softplus(-y * model(out.x).flatten())).mean().backward()  # Danskin: delta* held fixed
    for one, other in zip(got, model.parameters(), strict=True):
        assert torch.allclose(one, other.grad)


def test_sparse_weights_resist_linf_better():
    dense, sparse = torch.ones(1, 4), torch.tensor([[2.0, 0.0, 0.0, 0.0]])  # equal l2 norms
    at = torch.zeros(1)
    assert float(robust_margin(at, sparse, Linf(1.0))) == -2.0 > float(robust_margin(at, dense, Linf(1.0))) == -4.0
