"""1-Lipschitz reference networks and the objective that trains them: certified is never above attacked."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danskin.attacks import PGD
from danskin.data import load
from danskin.errors import InputError
from danskin.evaluation.certify import certify
from danskin.lipschitz import product_bound
from danskin.lipschitz.layers import Abs, MaxMin, OrthogonalConv2d, OrthogonalLinear, export
from danskin.minmax import L2
from danskin.models import Normalize, build
from danskin.training import LipschitzMargin


@pytest.mark.parametrize("layer", ["orthogonal", "cayley", "aol", "spectral"])
@pytest.mark.parametrize("activation", ["maxmin", "group_sort", "abs", "spline", "relu"])
def test_networks_have_a_certified_constant_of_at_most_one(layer, activation):
    torch.manual_seed(0)
    for name, shape, options in (
        ("lipschitz_mlp", (6,), {"hidden": (8, 4)}),
        ("lipschitz_cnn", (1, 8, 8), {"width": 2}),
    ):
        net = build(name, input_shape=shape, classes=3, layer=layer, activation=activation, **options)
        assert net(torch.rand(2, *shape)).shape == (2, 3)
        assert 0.05 < product_bound(net, shape).value <= 1 + 1e-7


def test_unknown_names_are_told_with_the_nearest():
    with pytest.raises(InputError, match="maxmin"):
        build("lipschitz_mlp", input_shape=(4,), classes=2, activation="maxmn")
    with pytest.raises(InputError, match="orthogonal"):
        build("lipschitz_cnn", input_shape=(1, 8, 8), classes=2, layer="ortho")


def test_the_objective_is_tempered_cross_entropy_with_a_handicap():
    logits, y = torch.randn(5, 4, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 2, 3, 0])
    tau, offset = 0.3, 0.7
    shifted = logits - offset * F.one_hot(y, 4)
    wanted = -tau * (shifted / tau).log_softmax(1)[torch.arange(5), y].mean()
    got = LipschitzMargin(tau, offset)(lambda x: logits, torch.zeros(5, 2), y)
    assert torch.allclose(got, wanted)
    for bad in ({"temperature": 0.0}, {"offset": -1.0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            LipschitzMargin(**bad)


def trained(normalize=None):
    data = load("digits")
    x, y = data.x_train.float(), data.y_train
    x = x / x.max()
    torch.manual_seed(0)
    net = build(
        "lipschitz_mlp",
        input_shape=tuple(x.shape[1:]),
        classes=10,
        hidden=(32, 32),
        layer="cayley",
        normalize=normalize,
    )
    optimizer, objective = torch.optim.Adam(net.parameters(), 5e-3), LipschitzMargin(0.25, 1.0)
    for k in range(150):
        rows = torch.randint(len(x), (128,), generator=torch.Generator().manual_seed(k))
        optimizer.zero_grad()
        objective(net, x[rows], y[rows], seed=k).backward()
        optimizer.step()
    test = data.x_test.float()
    return net.eval(), test[:150] / test.max(), data.y_test[:150]


@pytest.mark.parametrize("normalize", [None, ((0.3,), (0.4,))])
def test_certified_is_never_above_attacked_and_the_radius_is_in_input_units(normalize):
    net, x, y = trained(normalize)
    shares = []
    for radius in (0.1, 0.3, 0.6):
        found = certify(net, (x, y), L2(radius), method="lipschitz")
        attacked = PGD(L2(radius), steps=20, restarts=2)(net, x, y, seed=0)
        assert not (found.certified & attacked.success).any()
        shares.append((int(found.certified.sum()), int((~attacked.success).sum())))
    assert all(low <= high for low, high in shares) and shares[0][0] > 75
    assert shares[0][0] > shares[1][0] > shares[2][0]
    logits = net(x).double()
    own = logits.gather(1, y[:, None]).squeeze(1) - logits.scatter(1, y[:, None], -torch.inf).amax(1)
    found = certify(net, (x, y), L2(0.3), method="lipschitz")
    slope = math.sqrt(2) / (normalize[1][0] if normalize else 1)  # two orthonormal rows; divided by the deviation
    assert (found.certified != (own > slope * 0.3)).sum() <= 1  # one may lie within rounding
    plain = certify(export(net), (x, y), L2(0.3), method="lipschitz")
    assert torch.equal(plain.certified, found.certified)


def test_the_last_layer_counts_by_the_differences_of_its_rows_over_the_deviation_of_the_data():
    """The product of norms with a last layer that is not normalised is 1.8 elsewhere (SLL#2), dividing by the data's
    deviation changes certificates (orthogonal-convolutions#1)."""
    net = nn.Sequential(Normalize([0.3], [0.25]), OrthogonalConv2d(1, 4, 4, 2, 1), MaxMin(), nn.Flatten(),
                        OrthogonalLinear(64, 32), Abs(), nn.Linear(32, 5))  # fmt: skip
    x = torch.rand(100, 1, 8, 8)
    y = net(x).argmax(1)
    rows, logits = net[-1].weight.detach().double(), net(x).detach().double()
    others = torch.arange(5) != y[:, None]
    slopes = torch.cdist(rows, rows)[y] / 0.25
    radii = ((logits.gather(1, y[:, None]) - logits) / slopes.clamp_min(1e-9))[others].view(-1, 4).amin(1)
    for radius in radii.quantile(torch.tensor([0.1, 0.5, 0.9]).double()).tolist():
        found = certify(net, (x, y), L2(radius), method="lipschitz").certified
        told = (radii / radius - 1).abs() > 1e-5  # others lie within rounding
        assert torch.equal(found[told], (radii > radius)[told])
