"""Every 1-Lipschitz layer passes the suite that strangers' layers are asked to pass, and liars do not."""

import pytest
import torch
from torch import nn

from danskin.lipschitz.layers import (
    Abs,
    AOLConv2d,
    AOLLinear,
    GroupSort,
    LinearSpline,
    MaxMin,
    OrthogonalConv2d,
    OrthogonalConvTranspose2d,
    OrthogonalLinear,
    SpectralConv2d,
    SpectralLinear,
)
from danskin.lipschitz.layers.power import Matrix, advance_
from danskin.testing import check_lipschitz_layer

LAYERS = {
    "spectral power": (lambda: SpectralLinear(7, 5), (7,)),
    "spectral exact": (lambda: SpectralLinear(5, 7, mode="exact"), (5,)),
    "spectral bound": (lambda: SpectralLinear(7, 5, False, mode="bound"), (7,)),
    "bjorck wide": (lambda: OrthogonalLinear(7, 5), (7,)),
    "bjorck tall": (lambda: OrthogonalLinear(5, 7), (5,)),
    "bjorck stopped early": (lambda: OrthogonalLinear(6, 6, iterations=1), (6,)),
    "householder": (lambda: OrthogonalLinear(6, 6, method="householder"), (6,)),
    "cayley wide": (lambda: OrthogonalLinear(7, 4, method="cayley"), (7,)),
    "aol": (lambda: AOLLinear(7, 5), (7,)),
    "conv power": (lambda: SpectralConv2d(2, 3, 3, 1, 1, image_size=6), (2, 6, 6)),
    "conv power circular stride": (
        lambda: SpectralConv2d(2, 3, 3, 2, 1, image_size=6, padding_mode="circular"),
        (2, 6, 6),
    ),
    "conv exact": (lambda: SpectralConv2d(2, 3, 3, 2, 1, image_size=6, mode="exact"), (2, 6, 6)),
    "conv exact circular": (
        lambda: SpectralConv2d(2, 3, 3, 1, 1, image_size=6, mode="exact", padding_mode="circular"),
        (2, 6, 6),
    ),
    "conv bound": (lambda: SpectralConv2d(2, 3, 3, 1, 1, image_size=6, mode="bound"), (2, 5, 4)),
    "orthogonal conv": (lambda: OrthogonalConv2d(3, 4, 3, 1, 1), (3, 6, 6)),
    "orthogonal conv stride": (lambda: OrthogonalConv2d(2, 8, 4, 2, 1), (2, 6, 6)),
    "orthogonal conv circular": (lambda: OrthogonalConv2d(2, 3, 3, 2, 1, padding_mode="circular"), (2, 6, 6)),
    "orthogonal conv cayley": (lambda: OrthogonalConv2d(4, 2, 5, 1, 0, method="cayley", bias=False), (4, 7, 7)),
    "orthogonal transposed": (lambda: OrthogonalConvTranspose2d(4, 2, 3, 2, 1, 1), (4, 4, 4)),
    "aol conv": (lambda: AOLConv2d(2, 3, 3, 1, 1), (2, 6, 6)),
    "aol conv stride": (lambda: AOLConv2d(2, 3, 3, 2, 1, padding_mode="circular"), (2, 6, 6)),
    "group sort": (lambda: GroupSort(3), (6, 2, 2)),
    "maxmin": (lambda: MaxMin(), (6,)),
    "abs": (lambda: Abs(), (5,)),
    "spline": (lambda: LinearSpline(5, init="relu"), (5,)),
    "spline of images": (lambda: LinearSpline(3, knots=5, init="maxmin", reach=0.3), (3, 4, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_passes_the_suite(name):
    make, shape = LAYERS[name]
    check_lipschitz_layer(make, shape)


class Doubled(nn.Linear):
    """Claims 1 and has 2."""

    lipschitz = 1.0

    def forward(self, x):
        return 2 * x + self.bias


class Stale(OrthogonalLinear):
    """Computes its weight in training mode only, and exports what it kept."""

    kept = None

    def constrained_weight(self):
        if self.training or self.kept is None:
            self.kept = super().constrained_weight().detach()
        return self.kept


class MovesInEval(SpectralLinear):
    """Power iteration in eval mode too, as in well-known code."""

    def make_weight(self):
        advance_(self.u, self.weight, Matrix(), 1)
        return super().make_weight()


class Poisoned(nn.Module):
    """NaN gradients at 0."""

    lipschitz = 1.0

    def forward(self, x):
        return torch.linalg.vector_norm(x, dim=1, keepdim=True) + 0 * x.square().sum(1, keepdim=True).sqrt()


class Forgets(OrthogonalLinear):
    """Exports what the last call computed, which is stale once weights were loaded (torchlip#17)."""

    def forward(self, x):
        weight = self.constrained_weight()
        self.kept = weight.detach()
        return nn.functional.linear(x, weight, self.bias)

    def export(self):
        layer = super().export()
        with torch.no_grad():
            layer.weight.copy_(getattr(self, "kept", layer.weight))
        return layer


class Detached(OrthogonalLinear):
    """Its weight hides from autograd what it was made from."""

    def forward(self, x):
        return nn.functional.linear(x, self.constrained_weight().detach(), self.bias)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Doubled(4, 4), "quotients"),
        (lambda: Stale(4, 4), "load_state_dict"),
        (lambda: MovesInEval(4, 3), "eval mode"),
        (lambda: Poisoned(), "finite"),
        (lambda: Forgets(4, 4), "exported"),
        (lambda: Detached(4, 4, method="cayley"), "gradient penalty"),
    ],
)
def test_layers_that_break_the_promise_are_told_so(make, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_lipschitz_layer(make, (4,))
