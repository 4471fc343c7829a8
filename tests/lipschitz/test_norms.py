"""Norms of linear maps against written-out matrices: never below the truth, exact where they say so."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from danskin.lipschitz import circular_bound, conv_norm, gram_bound, matrix_norm
from danskin.lipschitz.matrices import largest_eigenvalue
from danskin.lipschitz.norms import _sums, operation_norm
from danskin.lipschitz.operations import Conv, Positive, Scale


def written_out(operation, shape):
    """The matrix of an affine map, column by column."""
    unit = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    zero = operation.apply(torch.zeros(1, *shape, dtype=torch.float64))
    return (operation.apply(unit) - zero).flatten(1).T


def true_norm(operation, shape):
    return float(torch.linalg.svdvals(written_out(operation, shape))[0])


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    size = [
        max(draw(st.integers(1, 7)), (k - 1) * d + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    channels, out = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    random = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    weight = torch.randn(out, channels // groups, *kernel, generator=random, dtype=torch.float64)
    bias = torch.randn(out, generator=random, dtype=torch.float64)
    return Conv(weight, bias, (channels, *size), stride, padding, dilation, groups)


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_circular_bound_is_never_below_the_norm(conv):
    assert circular_bound(conv) >= true_norm(conv, conv.shape) * (1 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_conv_norm_of_small_convolutions_is_exact(conv):
    truth = true_norm(conv, conv.shape)
    assert truth * (1 - 1e-12) <= conv_norm(conv) <= truth * (1 + 1e-8) + 1e-12


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_pullback_is_the_transposed_matrix(conv):
    matrix = written_out(conv, conv.shape)
    out = conv.apply(torch.zeros(1, *conv.shape, dtype=torch.float64)).shape[1:]
    rows = conv.pullback(torch.eye(math.prod(out), dtype=torch.float64).view(-1, *out)).flatten(1)
    torch.testing.assert_close(rows, matrix, rtol=0, atol=1e-12)
    spread = conv.spread(torch.ones(1, *conv.shape, dtype=torch.float64)).flatten()
    torch.testing.assert_close(spread, matrix.abs().sum(1))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_circular_bound_is_exact_for_circular_convolution(stride):
    """Written out by rolling the kernel over a torus of the size of the image, which has no padding here."""
    torch.manual_seed(0)
    weight, n = torch.randn(3, 2, 3, 3, dtype=torch.float64), 6
    conv = Conv(weight, torch.zeros(3, dtype=torch.float64), (2, n, n), (stride, stride))
    unit = torch.eye(2 * n * n, dtype=torch.float64).view(-1, 2, n, n)
    around = torch.nn.functional.pad(unit, (0, 2, 0, 2), mode="circular")
    matrix = torch.nn.functional.conv2d(around, weight, stride=stride).flatten(1)
    assert circular_bound(conv) == pytest.approx(float(torch.linalg.svdvals(matrix)[0]), rel=1e-8)


@pytest.mark.parametrize(("grid", "stride"), [((9, 8), 1), ((3, 4), 1), ((4, 3), 2), ((2, 2), 1)])
@pytest.mark.parametrize(("out", "channels", "groups"), [(30, 40, 1), (40, 26, 1), (60, 28, 2)])
def test_circular_bound_is_that_of_all_frequencies(grid, stride, out, channels, groups):
    """From products of pairs of kernel entries on large grids, from the matrices at each frequency on small ones."""
    torch.manual_seed(0)
    weight, size = torch.randn(out, channels, 3, 2, dtype=torch.float64), [n * stride for n in grid]
    shape = (groups * channels, *size)
    conv = Conv(weight, torch.zeros(out, dtype=torch.float64), shape, (stride, stride), (0, 0), (1, 1), groups)
    norms = []
    for block in weight.chunk(groups):
        places = torch.nn.functional.pad(block, (0, stride * 2 - 2, 0, stride * 3 - 3))  # whole steps of the stride
        parts = places.unflatten(3, (-1, stride)).unflatten(2, (-1, stride)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        for f in itertools.product(range(grid[0]), range(grid[1])):
            waves = [torch.polar(torch.ones(n).double(), -2 * math.pi * k / m * torch.arange(n).double())
                     for n, k, m in zip(parts.shape[2:], f, grid, strict=True)]  # fmt: skip
            symbol = torch.einsum("oihw,h,w->oi", parts.to(waves[0]), *waves)
            norms.append(float(torch.linalg.matrix_norm(symbol, 2)))
    assert max(norms) * (1 - 1e-12) <= circular_bound(conv) <= max(norms) * (1 + 2e-6)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (4, 2, 1), (3, 1, 0), (3, 1, 2), (2, 1, 2)]
)
def test_zeros_of_both_sides_share_one_margin_of_the_grid(kernel, stride, padding):
    torch.manual_seed(1)
    weight = torch.rand(26, 25, kernel, kernel, dtype=torch.float64)  # positive: large where all of it is inside
    conv = Conv(weight, torch.zeros(26).double(), (25, 5, 4), (stride, stride), (padding, padding))
    truth = true_norm(conv, conv.shape)
    assert truth <= circular_bound(conv) <= 1.6 * truth


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_grid_of_images_has_room_for_zeros(n):
    """A kernel that sums to zero does nothing to constant images that continue, but something to those with borders."""
    weight = torch.tensor([-1.0, 2.0, -1.0], dtype=torch.float64).view(1, 1, 3, 1)
    conv = Conv(weight, torch.zeros(1).double(), (1, n, 1), (1, 1), (1, 0))
    truth = 2 + 2 * math.cos(math.pi / (n + 1))  # the second difference with zeros around
    assert true_norm(conv, conv.shape) == pytest.approx(truth)
    assert truth <= circular_bound(conv) <= 4 * (1 + 1e-6)


def stacks():
    random = torch.Generator().manual_seed(0)
    wide = torch.randn(7, 40, 60, generator=random, dtype=torch.complex128)
    steep = torch.randn(3, 30, 30, generator=random, dtype=torch.float64)
    lone = torch.zeros(4, 25, 25, dtype=torch.float64)
    lone[2, 0, 0] = 5.0
    return {
        "random": wide @ wide.mH, "one of many": torch.cat([wide @ wide.mH, 1.01 * (wide @ wide.mH)[:1]]),
        "all equal": torch.eye(30, dtype=torch.float64).expand(5, 30, 30), "zeros": 0 * lone, "one entry": lone,
        "rows sum to zero": (steep - steep.mean(2, keepdim=True)) @ (steep - steep.mean(2, keepdim=True)).mT,
        "rank one": steep[:, :, :1] @ steep[:, :, :1].mT, "small": wide[:, :5] @ wide[:, :5].mH,
    }  # fmt: skip


@pytest.mark.parametrize("name", stacks())
def test_the_largest_eigenvalue_is_not_missed_and_nearly_met(name):
    grams = stacks()[name]
    truth = float(torch.linalg.eigvalsh(grams).max())
    assert truth * (1 - 1e-12) <= largest_eigenvalue(grams) <= truth * (1 + 1.1e-6)
    assert truth * (1 - 1e-12) <= largest_eigenvalue(grams, 0.999 * truth) <= truth * (1 + 1.1e-6)
    assert largest_eigenvalue(grams, 2 * truth) == 2 * truth


def test_matrices_too_large_to_decompose_have_the_same_norm(monkeypatch):
    torch.manual_seed(2)
    matrix = torch.randn(300, 270, dtype=torch.float64)
    monkeypatch.setattr("danskin.lipschitz.matrices._DECOMPOSED", 200)
    for scale in (1.0, 1e-170, 1e170):
        truth = float(torch.linalg.svdvals(scale * matrix)[0])
        assert truth <= matrix_norm(scale * matrix) <= truth * (1 + 1e-6)
        assert truth <= matrix_norm(scale * matrix.T) <= truth * (1 + 1e-6)
    assert matrix_norm(0 * matrix) == 0


def test_large_convolutions_use_the_bound_and_stay_close():
    torch.manual_seed(0)
    conv = Conv(torch.randn(16, 8, 3, 3).double(), torch.zeros(16).double(), (8, 16, 16), (1, 1), (1, 1))
    power = torch.randn(1, 8, 16, 16, dtype=torch.float64)
    for _ in range(300):  # power iteration: a lower bound that is nearly the norm
        power = conv.pullback(conv.apply(power))
        power = power / power.norm()
    lower = float(conv.apply(power).norm())
    assert lower <= conv_norm(conv) <= 1.1 * lower


def test_bound_by_sums_takes_rows_and_columns():
    """One channel in, two out, all ones: rows sum to 1, columns to 2, and sqrt(1 * 2) is the norm."""
    conv = Conv(torch.ones(2, 1, 1, 1).double(), torch.zeros(2).double(), (1, 4, 4), (1, 1))
    assert _sums(conv) == pytest.approx(2**0.5)


def test_reshaped_kernel_is_not_the_norm():
    """What spectral normalisation of convolutions usually divides by is too small (methods, 1.2)."""
    weight = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    conv = Conv(weight, torch.zeros(1).double(), (1, 16, 16), (1, 1), (1, 1))
    assert conv_norm(conv) > 2.8 * float(torch.linalg.matrix_norm(weight.flatten(1), 2))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (1, 7), (40, 40)])
def test_gram_bound_and_svd(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape)
    truth = float(torch.linalg.svdvals(matrix.double())[0])
    assert truth <= matrix_norm(matrix) <= truth * (1 + 2e-9)
    assert truth <= gram_bound(matrix) <= truth * (1 + 1e-3)


def test_gram_bound_of_extreme_and_degenerate_matrices():
    assert gram_bound(torch.zeros(3, 4)) == 0
    assert matrix_norm(torch.zeros(0, 4)) == 0
    tiny = torch.eye(3, dtype=torch.float64) * 1e-200
    assert 1e-200 <= gram_bound(tiny) <= 1.001e-200
    flat = torch.eye(64, dtype=torch.float64)  # the worst case: all singular values equal
    assert 1 <= gram_bound(flat) <= 64 ** (0.5**13) * (1 + 1e-8)


@pytest.mark.parametrize(
    ("function", "shape", "truth"),
    [
        (lambda t: t.reshape(len(t), -1), (2, 3, 4), 1.0),
        (lambda t: torch.nn.functional.pad(t, (1, 2, 0, 1), value=3.0), (2, 3, 4), 1.0),
        (lambda t: t[:, :, ::2, ::2], (2, 4, 4), 1.0),
        (lambda t: t.mean((2, 3)), (2, 4, 5), 20**-0.5),
        (lambda t: torch.nn.functional.avg_pool2d(t, 2), (2, 4, 4), 0.5),
        (lambda t: torch.nn.functional.adaptive_avg_pool2d(t, 1), (2, 3, 3), 1 / 3),
    ],
)
def test_positive_maps(function, shape, truth):
    like = torch.zeros(1, *shape, dtype=torch.float64)
    operation = Positive(function, shape)
    assert truth == pytest.approx(true_norm(operation, shape))
    assert truth <= operation_norm(operation, like) <= truth * (1 + 1e-8)


def test_overlapping_pools_and_scales():
    like = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
    pool = Positive(lambda t: torch.nn.functional.avg_pool2d(t, 3, 2, 1), (1, 7, 7))
    assert operation_norm(pool, like) >= true_norm(pool, (1, 7, 7))
    scale = Scale(torch.tensor([[[-3.0]]], dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64))
    assert operation_norm(scale, like) == pytest.approx(3.0)


def test_groups_are_bounded_one_by_one():
    torch.manual_seed(0)
    weight = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    whole = Conv(weight, torch.zeros(4).double(), (4, 8, 8), (1, 1), (1, 1), (1, 1), 2)
    parts = [Conv(w, torch.zeros(2).double(), (2, 8, 8), (1, 1), (1, 1)) for w in weight.chunk(2)]
    assert circular_bound(whole) == pytest.approx(max(circular_bound(part) for part in parts), rel=1e-12)
