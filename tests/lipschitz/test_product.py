"""The product bound, reading of models, and lower bounds."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danskin.errors import InputError, ModelError
from danskin.lipschitz import lipschitz_lower, product_bound, read
from danskin.models import Normalize, cifar_resnet, preact_resnet18, small_cnn, wide_resnet
from danskin.testing.models import convnet, mlp, seeded


class Residual(nn.Module):
    """Branches of different depth, joined with and without factors."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.out = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        h = F.relu(self.norm(self.first(x)))
        h = F.relu(self.second(h) + h) - 0.5 * F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        h = torch.sub(2, h)
        return self.out(h.mean((2, 3)))


class Odds(nn.Module):
    """Operations that are easy to get wrong."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)))
        self.dropout = nn.Dropout()

    def forward(self, x):
        h = x.permute(0, 2, 3, 1).transpose(1, 2).contiguous()[:, 1:, :, 0]
        h = torch.tanh(h.flatten(1)) * torch.arange(6.0).to(x) / 3
        h = torch.cat([torch.zeros(1, 6)]).to(x) - h
        with torch.no_grad():
            h = self.dropout(h.unsqueeze(1).squeeze(1))
        h = F.leaky_relu(F.pad(h, (3, 3), value=1.5), 0.1)
        return torch.addmm(torch.ones(3).to(x), h, self.weight) - torch.sigmoid(h @ self.weight)


def random_running_statistics(model):
    random = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=random))
            module.running_var.copy_(0.2 + torch.rand(module.num_features, generator=random))
    return model.eval()


CASES = {
    "mlp": (lambda: mlp(6, 4), (6,)),
    "convnet": (lambda: random_running_statistics(convnet(3)), (3, 6, 6)),
    "residual": (lambda: random_running_statistics(seeded(Residual())), (2, 6, 6)),
    "odds": (lambda: Odds().eval(), (2, 3, 3)),
    "normalized": (lambda: seeded(small_cnn(input_shape=(1, 8, 8), normalize="mnist")), (1, 8, 8)),
    "scalar": (lambda: nn.Sequential(Normalize([0.1], [0.5]), nn.Flatten(), nn.Linear(8, 1)), (2, 2, 2)),
    "pools": (
        lambda: nn.Sequential(
            nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(3 * 4, 2)
        ),
        (3, 5, 5),
    ),
    "grouped": (
        lambda: seeded(
            nn.Sequential(
                nn.Conv2d(4, 8, 3, padding="same", groups=2, dilation=2),
                nn.ReLU(inplace=True),
                nn.Flatten(),
                nn.Linear(8 * 25, 3),
            )
        ),
        (4, 5, 5),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_read_networks_compute_what_the_model_computes(name, dtype):
    make, shape = CASES[name]
    model = make().to(dtype)
    x = torch.rand(5, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    network = read(model, x)
    found = network(x.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, model(x).detach().double(), rtol=1e-5, atol=1e-5)
    assert [tuple(v.shape[1:]) for v in network.values(x.double())] == [n.shape for n in network.nodes]


@pytest.mark.parametrize("name", CASES)
def test_lower_and_sampled_quotients_are_below_the_product(name):
    make, shape = CASES[name]
    model = make().double()
    random = torch.Generator().manual_seed(2)
    x, other = (torch.rand(200, *shape, generator=random, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        apart = (model(x) - model(other)).norm(dim=1) / (x - other).flatten(1).norm(dim=1)
    upper, lower = product_bound(model, shape), lipschitz_lower(model, x)
    assert upper.kind == "upper" and lower.kind == "lower"
    assert float(apart.max()) <= lower.value * 1.2 or float(apart.max()) <= upper.value
    assert max(float(apart.max()), lower.value) <= upper.value
    a, b = lower.witness
    with torch.no_grad():
        quotient = (model(a[None]) - model(b[None])).norm() / (a - b).norm()
    assert lower.value == pytest.approx(float(quotient), rel=1e-6)


def test_product_bound_of_known_networks():
    linear = nn.Linear(3, 2, bias=False)
    truth = float(torch.linalg.svdvals(linear.weight.detach().double())[0])
    bound = product_bound(nn.Sequential(Normalize([0.0], [0.25]), linear), (3,))
    assert bound.value == pytest.approx(4 * truth, rel=1e-7) and bound.value >= 4 * truth
    assert lipschitz_lower(linear, torch.zeros(1, 3)).value == pytest.approx(truth, rel=1e-6)
    assert product_bound(nn.Sequential(nn.Sigmoid(), nn.Tanh()), (3,)).value == 0.25
    assert product_bound(nn.MaxPool2d(3, 2), (1, 7, 7)).value == 2  # an input is in up to 2 x 2 windows
    assert product_bound(nn.MaxPool2d(2), (1, 4, 4)).value == 1


def test_batch_norm_is_folded_into_its_neighbour():
    """A channel that is scaled up and one that is not: folded, the bound is the norm of the product."""
    conv, norm = nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([0.1, 3.0]).view(2, 1, 1, 1))
        norm.running_var.copy_(torch.tensor([0.01, 1.0]) - norm.eps)
    bound = product_bound(nn.Sequential(conv, norm).eval(), (1, 2, 2))
    assert bound.value == pytest.approx((1 + 9) ** 0.5, rel=1e-6)
    assert len(bound.layers) == 1


def test_a_scale_before_a_convolution_in_groups_is_a_layer_of_its_own():
    conv = nn.Conv2d(2, 2, 1, groups=2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([3.0, 2.0]).view(2, 1, 1, 1))
    bound = product_bound(nn.Sequential(Normalize([0.0, 0.0], [0.5, 0.25]), conv), (2, 3, 3))
    assert bound.value == pytest.approx(4 * 3) and len(bound.layers) == 2


def test_residual_sums_and_max_pool_are_tight_where_they_should_be():
    class Twice(nn.Module):
        def forward(self, x):
            return x + x - 0.5 * x

    assert product_bound(Twice(), (3,)).value == pytest.approx(2.5)
    pool = nn.MaxPool2d((1, 2), (1, 1))
    x = torch.tensor([[[[0.0, 1.0, 0.0]]]], dtype=torch.float64)
    apart = (pool(x) - pool(0 * x)).norm() / x.norm()  # the middle pixel is in two windows
    assert float(apart) == pytest.approx(product_bound(pool, (1, 1, 3)).value)


def test_networks_of_the_library_can_be_read():
    shape = {"input_shape": (3, 8, 8), "normalize": "cifar10"}
    for model in (
        cifar_resnet(**shape, depth=8),
        preact_resnet18(**shape, width=4),
        wide_resnet(**shape, depth=10, width=1),
    ):
        model = random_running_statistics(model)
        x = torch.rand(2, 3, 8, 8)
        torch.testing.assert_close(read(model, x)(x.double()).float(), model(x).detach(), rtol=1e-4, atol=1e-4)
        assert product_bound(model, (3, 8, 8)).value > 0


class Softmax(nn.Module):
    def forward(self, x):
        return x.softmax(1)


class Squared(nn.Module):
    def forward(self, x):
        return x * x


class AcrossExamples(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Mixing(nn.Module):
    def forward(self, x):
        return x.reshape(-1, 2)


class Attending(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


def _broken(module):
    module.weight[0, 1] = torch.nan


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (Softmax(), "aten.softmax"),
        (nn.Sequential(nn.Linear(4, 4), nn.GLU()), "aten.glu"),
        (Squared(), "multiplied"),
        (AcrossExamples(), "across the examples"),
        (Branching(), "values of tensors"),
        (Mixing(), "mixes the examples"),
        (nn.BatchNorm1d(4, track_running_stats=False), "statistics of the batch"),
        (nn.Softplus(threshold=1.0), "jumps at its threshold"),
        (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), "MultiheadAttention: dot-product attention has no"),
        (Attending(), "got aten.scaled_dot_product_attention.*: dot-product attention has no Lipschitz constant"),
        (nn.LayerNorm(4), "got aten.layer_norm"),
        (nn.Linear(4, 2).requires_grad_(False).apply(_broken), "not finite"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(model, named):
    wide = isinstance(model, nn.TransformerEncoderLayer | Attending)
    with pytest.raises(ModelError, match=named) as caught:
        read(model, torch.zeros(1, 2, 4) if wide else torch.zeros(1, 4))
    assert "use attacks alone" in str(caught.value) or "avoid" in str(caught.value)  # how to go on


class Joined(nn.Module):
    def forward(self, x):
        return torch.cat([3 * x, 4 * torch.relu(x)], 1)


@pytest.mark.parametrize(
    ("layer", "slack"),
    [
        (nn.Upsample(scale_factor=2), 1.0),  # every pixel four times: 2
        (nn.Upsample(size=(7, 5)), 1.0),
        (nn.Upsample(scale_factor=2, mode="bilinear"), 1.2),
        (nn.Upsample(size=(9, 11), mode="bilinear", align_corners=True), 1.4),
        (nn.PixelShuffle(2), 1.0),
        (nn.PixelUnshuffle(2), 1.0),
        (nn.ReflectionPad2d((1, 2, 3, 0)), 1.0),
        (nn.ReplicationPad2d((1, 2, 3, 0)), 1.0),
    ],
    ids=lambda v: str(v) if isinstance(v, nn.Module) else "",
)
@pytest.mark.parametrize("norm", [2, "inf"])
def test_what_resamples_images_has_the_norm_of_its_matrix(layer, slack, norm):
    shape = (4, 4, 4)
    rows = torch.eye(64, dtype=torch.float64).view(64, *shape)
    matrix = layer(rows).flatten(1).T
    truth = float(torch.linalg.matrix_norm(matrix, 2) if norm == 2 else matrix.abs().sum(1).max())
    found = product_bound(nn.Sequential(layer), shape, norm=norm).value
    assert truth * (1 - 1e-9) <= found <= truth * (slack if norm == 2 else 1) * (1 + 1e-6)


def test_a_reflecting_convolution_is_bounded_by_its_padding_and_itself():
    conv = nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect").double()
    rows = torch.eye(32, dtype=torch.float64).view(32, 2, 4, 4)
    with torch.no_grad():
        matrix = (conv(rows) - conv(torch.zeros(1, 2, 4, 4).double())).flatten(1).T
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= product_bound(conv, (2, 4, 4)).value


def test_a_concatenation_is_the_root_of_squares_or_the_largest():
    assert product_bound(Joined(), (2,)).value == pytest.approx(5.0, rel=1e-6)
    assert product_bound(Joined(), (2,), norm="inf").value == pytest.approx(4.0, rel=1e-6)


def test_bad_shapes_are_refused():
    for shape in ((), (0,), (-1, 2)):
        with pytest.raises(InputError, match="input_shape"):
            product_bound(nn.Linear(2, 2), shape)


def test_model_is_left_as_found():
    model = convnet(3).train()
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    product_bound(model, (3, 4, 4))
    lipschitz_lower(model, torch.rand(2, 3, 4, 4), steps=1)
    assert [m.training for m in model] == [True, False, True, True, True, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
