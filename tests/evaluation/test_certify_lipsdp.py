"""Certificates by Lipschitz constants take LipSDP's where the network is a small chain."""

import pytest
import torch
from torch import nn

from danskin.evaluation.certificates.margins import Lipschitz, differences
from danskin.evaluation.certificates.region import Region
from danskin.evaluation.certify import certify
from danskin.lipschitz import read
from danskin.minmax import L2
from danskin.testing.models import seeded

X = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def net(activation):
    layers = [nn.Conv2d(1, 4, 3, padding=1), activation, nn.Flatten(), nn.Linear(64, 20), activation, nn.Linear(20, 4)]
    return seeded(nn.Sequential(*layers), 3, 2.0)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU()], ids=str)
def test_margins_are_above_the_products_and_below_what_is_found(activation):
    model = net(activation)
    network = read(model, X)
    logits = network(X.double())
    y, ball = logits.argmax(1), L2(0.2)
    region, rows = Region.of(X, ball, None), differences(logits.argmax(1), (4,))
    method = Lipschitz(network)
    assert len(method.covariances) == 2
    better = method.margins(region, rows, logits)
    method.covariances = []
    product = method.margins(region, rows, logits)
    assert bool((better >= product - 1e-9).all()) and float((better - product).mean()) > 0.05
    delta = ball.project(torch.randn(300, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double())
    with torch.no_grad():
        z = network((X[:, None].double() + delta).flatten(0, 1)).view(40, 300, 4)
    own = z.gather(2, y[:, None, None].expand(-1, 300, 1))[..., 0]
    others = z.scatter(2, y[:, None, None].expand(-1, 300, 1), -torch.inf).amax(2)
    assert bool((better <= (own - others).amin(1)).all())


def test_more_is_certified_than_by_the_product_alone(monkeypatch):
    model = net(nn.ReLU())
    y = model(X).argmax(1).detach()
    many = certify(model, (X, y), L2(0.02), method="lipschitz", box=None).certified.sum()
    monkeypatch.setattr("danskin.evaluation.certificates.margins._covariances", lambda network: [])
    few = certify(model, (X, y), L2(0.02), method="lipschitz", box=None).certified.sum()
    assert many > few
