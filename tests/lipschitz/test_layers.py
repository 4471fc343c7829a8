"""1-Lipschitz layers against closed forms, decompositions of the written-out operator, and reported faults."""

import itertools
import math

import pytest
import torch
from torch import nn

from danskin.errors import InputError, ModelError
from danskin.lipschitz import product_bound, read
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
    clip_weights_,
    export,
)
from danskin.lipschitz.layers.gram import gram_norm
from danskin.lipschitz.layers.kernels import norm_at_any_size
from danskin.lipschitz.layers.orthogonalize import bjorck, safe_scale
from danskin.models import Normalize


def written_out(layer, shape):
    """The matrix of an affine layer, by differentiating it at 0."""
    x = torch.zeros(1, *shape, dtype=torch.float64)
    return torch.autograd.functional.jacobian(lambda t: layer(t)[0].flatten(), x).flatten(1)


def singular_values(layer, shape):
    return torch.linalg.svdvals(written_out(layer.double().eval(), shape))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


@pytest.mark.parametrize("method", ["bjorck", "householder", "cayley"])
@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (1, 6), (6, 1)])
def test_orthogonal_linear_has_singular_values_one(method, shape):
    layer = OrthogonalLinear(*shape, method=method).double()
    with torch.no_grad():
        layer.weight.add_(0.1 * torch.randn_like(layer.weight))
    layer.iterations = 30
    assert torch.allclose(singular_values(layer, shape[:1]), torch.ones(min(shape)).double(), atol=1e-12)


def test_bjorck_is_the_polar_factor_and_every_iterate_is_below_one():
    weight = torch.randn(9, 5, dtype=torch.float64)
    U, _, V = torch.linalg.svd(weight, full_matrices=False)
    assert torch.allclose(bjorck(weight, 40), U @ V, atol=1e-12)
    for steps in range(12):
        assert torch.linalg.matrix_norm(bjorck(weight, steps), 2) <= 1 + 1e-14


@pytest.mark.parametrize("weight", [torch.ones(4, 4), torch.eye(5), torch.randn(30, 7), torch.randn(3, 3) * 1e-12])
def test_the_start_of_bjorck_is_scaled_by_a_bound_of_the_norm(weight):
    weight = weight.double()
    scale = float(safe_scale(weight))
    assert float(torch.linalg.matrix_norm(weight, 2)) <= scale * (1 + 1e-14)
    assert scale <= 2.1 * float(torch.linalg.matrix_norm(weight, 2))


def test_bjorck_of_zeros_is_zero_with_finite_gradients():
    layer = OrthogonalLinear(4, 4)
    nn.init.zeros_(layer.weight)
    layer(torch.randn(2, 4)).sum().backward()
    assert layer.weight.grad.isfinite().all()


def test_gram_norm_is_above_the_norm_and_close():
    weight = torch.randn(64, 32, dtype=torch.float64)
    true = float(torch.linalg.matrix_norm(weight, 2))
    values = [float(gram_norm(weight, steps)) for steps in range(1, 9)]
    assert all(a >= b >= true * (1 - 1e-12) for a, b in itertools.pairwise(values))
    assert values[-1] <= 1.001 * true
    assert float(gram_norm(1e-200 * weight)) == pytest.approx(1e-200 * values[-1], rel=1e-9)


@pytest.mark.parametrize("size", [1e-5, 1e-20, 1e5])
@pytest.mark.parametrize("mode", ["power", "exact", "bound"])
def test_tiny_weights_are_normalised_like_others(size, mode):
    """x / (|x| + eps) takes a norm of 1e-5 for 9.4e-6 (gloro#8)."""
    layer = SpectralLinear(6, 6, mode=mode, iterations=200).double()
    with torch.no_grad():
        layer.weight.mul_(size)
    layer.train()(torch.zeros(1, 6).double())
    assert layer.lipschitz == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mode", ["power", "exact", "bound"])
def test_spectral_convolution_normalises_the_operator_that_runs(padding_mode, stride, mode):
    layer = SpectralConv2d(2, 4, 3, stride, 1, image_size=6, padding_mode=padding_mode, mode=mode, iterations=300)
    layer = layer.double()
    layer.train()(torch.zeros(1, 2, 6, 6).double())
    norm = float(singular_values(layer, (2, 6, 6))[0])
    assert norm <= layer.lipschitz <= norm * (1 + 1e-8)
    loosest = 0.85 if mode == "bound" and padding_mode == "zeros" else 1 - 1e-3
    assert loosest <= norm <= 1 + 1e-9 if mode != "power" else abs(norm - 1) < 1e-2


def test_the_reshaped_kernel_says_too_little():
    """What torch's own spectral_norm leaves of a convolution (pytorch#99149)."""
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 64, 3, padding=1), n_power_iterations=100)
    conv.train()(torch.zeros(1, 3, 8, 8))
    assert float(singular_values(conv, (3, 8, 8))[0]) > 1.5


ORTHOGONAL = [
    (3, 8, 3, 1),
    (4, 4, 3, 1),
    (8, 4, 5, 1),
    (3, 16, 3, 2),
    (8, 6, 4, 2),
    (2, 7, 2, 2),
    (1, 1, 3, 1),
    (3, 27, 3, 3),
]


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "stride"), ORTHOGONAL)
def test_circular_orthogonal_convolution_has_singular_values_one(inputs, outputs, kernel, stride):
    padding = (kernel - 1) // 2
    layer = OrthogonalConv2d(inputs, outputs, kernel, stride, padding, padding_mode="circular")
    side = 6
    values = singular_values(layer, (inputs, side, side))
    if kernel - 1 == 2 * padding:  # else some outputs are dropped
        assert torch.allclose(values, torch.ones_like(values), atol=1e-10)
    assert values[0] <= layer.lipschitz <= 1 + 2e-9


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "stride"), ORTHOGONAL)
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_zero_padded_orthogonal_convolution_is_tight_below_one(inputs, outputs, kernel, stride, padding):
    layer = OrthogonalConv2d(inputs, outputs, kernel, stride, padding)
    norm = float(singular_values(layer, (inputs, 9, 9))[0])
    assert 0.99 < norm <= layer.lipschitz <= 1 + 2e-9


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("output_padding", [0, 1])
def test_transposed_orthogonal_convolution_is_the_transpose(padding, output_padding):
    """One padding case of orthogonium was not orthogonal and only warned (PR#2)."""
    layer = OrthogonalConvTranspose2d(4, 3, 4, 2, padding, output_padding, bias=False).double()
    forward = nn.Conv2d(3, 4, 4, 2, padding, bias=False).double()
    with torch.no_grad():
        forward.weight.copy_(layer.settled_weight())
    size = layer(torch.zeros(1, 4, 5, 5).double()).shape[1:]
    A, B = written_out(layer, (4, 5, 5)), written_out(forward, tuple(size))
    assert torch.allclose(A, B.T, atol=1e-12)
    assert float(torch.linalg.matrix_norm(A, 2)) <= layer.lipschitz <= 1 + 2e-9


def test_our_orthogonal_convolution_and_orthonium_have_the_same_norm():
    layers = pytest.importorskip("orthogonium.layers")
    for stride, padding_mode in ((1, "zeros"), (2, "zeros"), (1, "circular")):
        theirs = layers.AdaptiveOrthoConv2d(4, 8, 3, stride, padding=1, padding_mode=padding_mode)
        x = torch.zeros(1, 4, 8, 8)
        J = torch.autograd.functional.jacobian(lambda t, f=theirs: f(t)[0].flatten(), x).flatten(1)
        peer = float(torch.linalg.matrix_norm(J.double(), 2))
        ours = OrthogonalConv2d(4, 8, 3, stride, 1, padding_mode=padding_mode)
        assert float(singular_values(ours, (4, 8, 8))[0]) == pytest.approx(peer, abs=2e-3)


@pytest.mark.parametrize("stride", [1, 2])
def test_aol_is_certified_at_every_size_and_tight_for_orthogonal_weights(stride):
    layer = AOLConv2d(3, 4, 3, stride, 1).double()
    nn.init.normal_(layer.weight)
    for side in (4, 8, 12):
        assert float(singular_values(layer, (3, side, side))[0]) <= layer.lipschitz <= 1 + 2e-9
    linear = AOLLinear(5, 8).double()
    assert float(singular_values(linear, (5,))[-1]) == pytest.approx(1, abs=1e-6)


def test_orthogonal_weights_stay_through_rounding_of_float32():
    for layer in (OrthogonalLinear(300, 200), OrthogonalConv2d(16, 32, 3, 1, 1), AOLLinear(100, 120),
                  SpectralLinear(60, 90, mode="exact"), SpectralLinear(60, 90, mode="bound")):  # fmt: skip
        assert 0.9 < layer.lipschitz <= 1 + 1e-9, layer


@pytest.mark.parametrize("activation", [GroupSort(2), GroupSort(3), MaxMin(), Abs()])
def test_activations_keep_the_norm_of_gradients(activation):
    x = torch.randn(50, 6, dtype=torch.float64, requires_grad=True)
    v = torch.randn(50, 6, dtype=torch.float64)
    (pulled,) = torch.autograd.grad((activation(x) * v).sum(), x)
    assert torch.allclose(pulled.norm(dim=1), v.norm(dim=1))


def test_order_of_sorted_channels_is_as_stated():
    x = torch.tensor([[3.0, 1.0, -1.0, 0.0, 5.0, 4.0]])
    assert GroupSort(3)(x).tolist() == [[-1, 1, 3, 0, 4, 5]]
    assert MaxMin()(x).tolist() == [[3, 1, 0, -1, 5, 4]]
    images = torch.randn(2, 4, 3, 3)
    assert torch.equal(MaxMin()(images)[:, 0], torch.maximum(images[:, 0], images[:, 1]))
    with pytest.raises(InputError, match="multiple of 2"):
        MaxMin()(torch.zeros(1, 3))


def test_clipping_bounds_weights_and_leaves_normalisation_alone():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    clip_weights_(net, 0.01)
    assert max(float(p.detach().abs().max()) for layer in (net[0], net[2]) for p in layer.parameters()) <= 0.01
    assert torch.equal(net[1].weight, torch.ones(4))
    clip_weights_(net, 0.01, normalization=True)
    assert torch.equal(net[1].weight, torch.full((4,), 0.01))
    for c in (0.0, math.inf, math.nan):
        with pytest.raises(InputError, match="c > 0"):
            clip_weights_(net, c)


def network():
    return nn.Sequential(
        OrthogonalConv2d(1, 4, 3, 1, 1, padding_mode="circular"), MaxMin(), OrthogonalConv2d(4, 8, 4, 2, 1),
        LinearSpline(8, init="relu"), AOLConv2d(8, 8, 3, 2, 1, padding_mode="circular"), Abs(), nn.Flatten(),
        SpectralLinear(32, 16, mode="bound"), GroupSort(4), OrthogonalLinear(16, 10),
    )  # fmt: skip


def test_networks_are_read_with_constant_one_and_so_are_their_exports():
    net = network()
    x = torch.rand(3, 1, 8, 8)
    plain = export(net)
    assert not any(type(m).__module__.endswith((".linear", ".conv")) and "danskin" in type(m).__module__ for m in plain)
    assert torch.equal(plain(x), net(x))
    for model in (net, plain, plain.double()):
        bound = product_bound(model, (1, 8, 8))
        assert 0.8 < bound.value <= 1 + 1e-7
        assert torch.allclose(
            read(model, x.to(next(model.parameters()))).values(x.double())[-1], net(x).double(), atol=1e-5
        )


def test_the_standard_deviation_of_the_data_enters_the_constant():
    """Dividing by it multiplies the constant; a radius stays in input units (orthogonal-convolutions#1)."""
    net, x = network(), torch.rand(2, 1, 8, 8)
    scaled = nn.Sequential(Normalize([0.1], [0.25]), *net)
    factor = product_bound(scaled, (1, 8, 8)).value / product_bound(net, (1, 8, 8)).value
    assert factor == pytest.approx(4, rel=1e-6)
    assert scaled(x).shape == (2, 10)


def test_circular_padding_that_is_no_part_of_a_convolution_is_bounded_too():
    class Padded(nn.Module):
        def forward(self, x):
            return nn.functional.pad(x, (1, 1, 1, 1), mode="circular")

    assert product_bound(Padded(), (1, 2, 2)).value == pytest.approx(2, rel=1e-6)  # every pixel is there four times
    assert product_bound(Padded(), (1, 4, 4)).value == pytest.approx(2, rel=1e-6)


def test_circular_convolutions_of_torch_are_exact():
    for kernel, stride, side in ((3, 1, 6), (3, 2, 6), (5, 1, 4), (5, 2, 4)):
        conv = nn.Conv2d(2, 3, kernel, stride, kernel // 2, padding_mode="circular").double()
        norm = float(singular_values(conv, (2, side, side))[0])
        assert product_bound(conv, (2, side, side)).value == pytest.approx(norm, rel=1e-8)


def test_sorting_the_batch_or_using_the_places_is_refused():
    from danskin.errors import ModelError

    class Batch(nn.Module):
        def forward(self, x):
            return x.sort(0).values

    class Used(nn.Module):
        def forward(self, x):
            return x + x.sort(1).indices

    for model, said in ((Batch(), "sorts the examples"), (Used(), "places")):
        with pytest.raises(ModelError, match=said):
            product_bound(model, (4,))


def test_wrong_sizes_are_named():
    with pytest.raises(InputError, match="at most 6 x 6"):
        SpectralConv2d(1, 1, 3, 1, 1, image_size=6)(torch.zeros(1, 1, 7, 6))
    with pytest.raises(InputError, match="exactly 6 x 6"):
        SpectralConv2d(1, 1, 3, 1, 1, image_size=6, padding_mode="circular")(torch.zeros(1, 1, 5, 6))
    with pytest.raises(InputError, match="multiples of the stride"):
        OrthogonalConv2d(1, 4, 3, 2, 1, padding_mode="circular")(torch.zeros(1, 1, 5, 6))
    with pytest.raises(InputError, match="at least the stride"):
        OrthogonalConv2d(1, 4, 2, 3)
    with pytest.raises(InputError, match="repeats outputs"):
        OrthogonalConv2d(1, 4, 3, 1, 2, padding_mode="circular")
    with pytest.raises(InputError, match="expected 'zeros' or 'circular'"):
        OrthogonalConv2d(1, 4, 3, 1, 1, padding_mode="reflect")
    with pytest.raises(InputError, match="expected mode"):
        SpectralLinear(2, 2, mode="svd")
    with pytest.raises(InputError, match="expected method"):
        OrthogonalLinear(2, 2, method="qr")
    for said, make in {
        "OrthogonalLinear.out_features": lambda: OrthogonalLinear(2, 0),
        "SpectralLinear.iterations": lambda: SpectralLinear(2, 2, iterations=0),
        "OrthogonalLinear.iterations": lambda: OrthogonalLinear(2, 2, iterations=1.5),
        "OrthogonalKernel.iterations": lambda: OrthogonalConv2d(1, 4, 3, iterations=-1),
        "AOLConv2d.padding": lambda: AOLConv2d(1, 4, 3, padding=-1),
        "OrthogonalConv2d.padding": lambda: OrthogonalConv2d(1, 4, 3, padding="same"),
        "OrthogonalConv2d.kernel_size": lambda: OrthogonalConv2d(1, 4, (3, 3)),
        "OrthogonalConvTranspose2d.in_channels": lambda: OrthogonalConvTranspose2d(0, 2, 3),
        "OrthogonalConvTranspose2d.stride": lambda: OrthogonalConvTranspose2d(2, 2, 3, 0),
        "output_padding: expected less than the stride": lambda: OrthogonalConvTranspose2d(2, 2, 3, 2, 1, 2),
        "image_size: expected one number or two": lambda: SpectralConv2d(1, 1, 3, image_size=(8,)),
        "image_size's height": lambda: SpectralConv2d(1, 1, 3, image_size=2.5),
        "GroupSort.size": lambda: GroupSort(0),
        "dimension 1 of channels": lambda: MaxMin()(torch.zeros(4)),
        "expected images": lambda: OrthogonalConv2d(1, 4, 3)(torch.zeros(9)),
    }.items():
        with pytest.raises(InputError, match=said):
            make()


@pytest.mark.parametrize(
    "layer",
    [OrthogonalLinear(3, 3), SpectralLinear(3, 3), OrthogonalConv2d(1, 2, 3), AOLConv2d(1, 2, 3), LinearSpline(3),
     SpectralConv2d(1, 2, 3, image_size=4), OrthogonalConvTranspose2d(2, 1, 3)],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_weights_that_are_not_finite_have_no_constant(layer):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(ModelError, match="finite weights"):
        _ = layer.lipschitz
    assert not norm_at_any_size(torch.full((1, 1, 3, 3), math.nan), 1) < math.inf


def test_training_resumes_bit_for_bit_in_power_mode():
    def run(net, optimizer, steps):
        for k in range(steps):
            x = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(k))
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()

    def made():
        torch.manual_seed(0)
        net = nn.Sequential(
            SpectralConv2d(2, 3, 3, 1, 1, image_size=6), MaxMin(dim=2), nn.Flatten(), SpectralLinear(108, 2)
        )
        return net, torch.optim.Adam(net.parameters(), 1e-2)

    whole, optimizer = made()
    run(whole, optimizer, 3)
    first, o1 = made()
    run(first, o1, 2)
    second, o2 = made()
    second.load_state_dict(first.state_dict())
    o2.load_state_dict(o1.state_dict())
    x = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    o2.zero_grad()
    second(x).square().sum().backward()
    o2.step()
    for a, b in zip(whole.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_constants_multiply_through_depth():
    """A layer a little above 1 is told, and depth multiplies it (1LipschitzLayersCompared#1)."""
    net = nn.Sequential(*[SpectralLinear(8, 8) for _ in range(5)])
    product = math.prod(layer.lipschitz for layer in net)
    assert product_bound(net.eval(), (8,)).value == pytest.approx(product, rel=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_bound_for_all_sizes_is_above_each_and_close(size, stride):
    torch.manual_seed(size)
    for channels in ((1, 1), (3, 2), (2, 9)):
        conv = nn.Conv2d(*channels, size, stride, size - 1, bias=False).double()
        norms = [float(singular_values(conv, (channels[0], side, side))[0]) for side in (4, 10)]
        bound = norm_at_any_size(conv.weight, stride)
        assert norms[0] <= norms[1] * (1 + 1e-12) <= bound * (1 + 1e-9)
        assert bound <= 1.2 * norms[1]
