"""Certified upper bounds of the norms of affine maps: never below the true one.

Convolutions are written out where they are small, and else bounded by a circular convolution that contains them, whose
norm is that of a matrix at each frequency. See `matrices` for margins. LECTURE row E6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from danskin.lipschitz.matrices import MARGIN as MARGIN
from danskin.lipschitz.matrices import largest_eigenvalue, matrix_norm, outer_product
from danskin.lipschitz.operations import Affine, CircularConv, Conv, Linear, Pair, Positive, Scale, Transposed

_DENSE = 1 << 22  # entries up to which the matrix of a convolution is written out
_SIDE = 1024  # and the smaller side, of which the cost of the decomposition is the square
_AT_ONCE = 1 << 18  # entries of the Gram matrices that are worked on together: they stay in the cache
_SYMBOLS = 1 << 22  # entries of the matrices at frequencies that are held at a time


def conv_norm(conv: Conv) -> float:
    """At least the largest singular value of a convolution with zero padding on images of its shape.

    The smallest of: the exact norm of the written-out matrix where that is small; `circular_bound`; the
    root of the largest row sum times the largest column sum of the absolute values.
    """
    outputs = conv.outputs
    inputs, results = math.prod(conv.shape), math.prod(outputs)
    if not inputs * results:
        return 0.0
    if conv.weight.shape[2:] == (1, 1) and conv.padding == (0, 0):  # a matrix at some of the places
        return max(matrix_norm(block.flatten(1)) for block in conv.weight.chunk(conv.groups))
    if inputs * results <= _DENSE and min(inputs, results) <= _SIDE:
        rows = torch.eye(results, dtype=torch.float64, device=conv.weight.device).view(results, *outputs)
        return matrix_norm(conv.pullback(rows).flatten(1))
    return min(circular_bound(conv), _sums(conv))


def circular_bound(conv: Conv) -> float:
    r"""The norm of a circular convolution of which this one is a restriction, within 1e-6 of it.

    Zero padding puts the image on a larger grid (an isometry); on that grid the convolution of stride s is a
    circular one of which some outputs are dropped (a projection), so its norm is not larger. One margin of zeros
    serves both sides, as the grid is closed: n + p numbers, or as many as there are outputs. Stride s is
    stride 1 on the s^2 interleaved parts of the image, taken as channels: the kernel is cut up likewise. A
    circular convolution of stride 1 is a matrix (channels out, channels in) at each frequency, and its norm
    is the largest of their norms. Groups are blocks: the largest block counts.

    Reference: Sedghi, Gupta and Long, ICLR 2019, theorem 6 (stride 1, circular); the restriction and the
    interleaving are elementary.
    """
    each = zip(conv.shape[1:], conv.padding, conv.stride, conv.outputs[1:], strict=True)
    return _norm_on_grid(conv, [max(-(-(n + p) // s), out) for n, p, s, out in each])


def circular_norm(circular: CircularConv) -> float:
    """At least the norm of a convolution of images that continue at the other side; exact but for the margin.

    Where the padding repeats outputs, or the stride does not divide the image, it is the product of both norms.
    """
    pad, conv = circular.pad, circular.conv
    size = pad.shape[1:]
    results = conv.outputs[1:]
    steps = [n // s for n, s in zip(size, conv.stride, strict=True)]
    whole = all(n % s == 0 for n, s in zip(size, conv.stride, strict=True))
    if whole and all(r <= g for r, g in zip(results, steps, strict=True)):
        return _norm_on_grid(conv, steps)
    outputs = tuple(conv.shape)
    return _schur(pad, conv.weight.new_ones((1, *pad.shape)), outputs) * conv_norm(conv)


def _norm_on_grid(conv: Conv, grid: list[int]) -> float:
    """The norm of the circular convolution on an image of `grid` steps of the stride."""
    kernel = _parts(conv)  # (groups, out, in, high, wide)
    scale = float(kernel.abs().amax())
    if scale == 0:
        return 0.0
    kernel = kernel / scale  # no square under- or overflows
    kernel = kernel if kernel.shape[1] <= kernel.shape[2] else kernel.transpose(1, 2)
    taps, frequencies = math.prod(kernel.shape[3:]), _half(grid, kernel.device)
    few = taps * (taps + 1) / 2 <= 2.5 * len(frequencies)  # products of real matrices
    grams = _by_shifts(kernel, grid, frequencies) if few else _by_symbols(kernel, grid, frequencies)
    largest = 0.0
    for gram in grams:
        largest = largest_eigenvalue(gram, largest)
    return scale * math.sqrt(largest) * (1 + MARGIN)


def _by_shifts(kernel: Tensor, grid: list[int], frequencies: Tensor) -> Iterator[Tensor]:
    r"""The Gram matrices S(f) S(f)^H at frequencies (n, 2), some at a time, from products of pairs of kernel entries.

    S S^H = sum over shifts d of R_d exp(-2 pi i <f, d>) with R_d = sum_t W_{t+d} W_t^T = R_{-d}^T, however many
    frequencies there are.
    """
    groups, side, _, high, wide = kernel.shape
    shifts = [(k, m) for k in range(high) for m in range(1 - wide, wide) if (k, m) >= (0, 0)]
    even, odd = [], []
    for k, m in shifts:
        late = kernel[..., k:, max(m, 0) : wide + min(m, 0)].flatten(2)
        early = kernel[..., : high - k, max(-m, 0) : wide - max(m, 0)].flatten(2)
        r = (late @ early.mT) * (0.5 if (k, m) == (0, 0) else 1.0)
        even.append((r + r.mT).flatten())
        odd.append((r.mT - r).flatten())
    real, imaginary = torch.stack(even), torch.stack(odd)
    for f in frequencies.split(max(1, _AT_ONCE // (groups * side * side))):
        angle = _angles(f, torch.tensor(shifts, device=f.device), grid)
        yield torch.complex(angle.cos() @ real, angle.sin() @ imaginary).view(-1, side, side)


def _by_symbols(kernel: Tensor, grid: list[int], frequencies: Tensor) -> Iterator[Tensor]:
    r"""The same for few frequencies, from S(f) = X + i Y: X X^T + Y Y^T + i (Y X^T - X Y^T)."""
    groups, side, width, high, wide = kernel.shape
    entries = kernel.permute(3, 4, 0, 1, 2).reshape(high * wide, -1)
    places = torch.cartesian_prod(*(torch.arange(n, device=kernel.device) for n in (high, wide)))
    at_once = max(1, _AT_ONCE // side**2)
    for f in frequencies.split(max(1, _SYMBOLS // max(len(places), groups * side * width))):
        angle = _angles(f, places, grid)
        both = ((wave @ entries).view(-1, side, width).split(at_once) for wave in (angle.cos(), -angle.sin()))
        for x, y in zip(*both, strict=True):
            cross = y @ x.mT
            yield torch.complex(outer_product(torch.cat([x, y], 2)), cross - cross.mT)


def _angles(f: Tensor, places: Tensor, grid: list[int]) -> Tensor:
    """2 pi <f, place> for frequencies and places (n, 2) of a grid."""
    turns = [torch.outer(f[:, d], places[:, d]) % grid[d] / grid[d] for d in (0, 1)]
    return 2 * math.pi * (turns[0] + turns[1]).double()


def _half(grid: list[int], device: torch.device) -> Tensor:
    """(n, 2): of each two opposite frequencies of a grid one."""
    f = torch.cartesian_prod(torch.arange(grid[0], device=device), torch.arange(grid[1] // 2 + 1, device=device))
    own = 2 * f[:, 1] % grid[1] == 0  # columns that hold both
    return f[~own | (f[:, 0] <= grid[0] // 2)]


def interleaved(kernel: Tensor, stride: Pair, groups: int = 1) -> Tensor:
    """The kernel (groups, out, in * stride, high, wide) with the places between two steps of the stride as channels."""
    s, t = stride
    high, wide = (-(-k // q) for k, q in zip(kernel.shape[2:], stride, strict=True))
    kernel = torch.nn.functional.pad(kernel, (0, wide * t - kernel.shape[3], 0, high * s - kernel.shape[2]))
    parts = kernel.reshape(groups, -1, kernel.shape[1], high, s, wide, t)
    return parts.permute(0, 1, 2, 4, 6, 3, 5).flatten(2, 4)


def _parts(conv: Conv) -> Tensor:
    return interleaved(_dilated(conv.weight, conv.dilation), conv.stride, conv.groups)


def _dilated(weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    """The kernel with zeros between its entries."""
    if dilation == (1, 1):
        return weight
    size = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    full = weight.new_zeros((*weight.shape[:2], *size))
    full[:, :, :: dilation[0], :: dilation[1]] = weight
    return full


def _sums(conv: Conv) -> float:
    r"""sqrt(\|W\|_1 \|W\|_inf) of a convolution, from sums of absolute values of its kernel; borders are not seen."""
    parts = _parts(conv).abs()
    rows, columns = parts.sum((2, 3, 4)).max(), parts.sum((1, 3, 4)).max()
    return math.sqrt(float(rows * columns)) * (1 + MARGIN)


def _schur(operation: Positive, ones: Tensor, outputs: tuple[int, ...]) -> float:
    r"""sqrt(\|W\|_1 \|W\|_inf) from row and column sums of W >= 0."""
    rows = float(operation.spread(ones).max())
    columns = float(operation.pullback(ones.new_ones((1, *outputs))).max())
    return math.sqrt(rows * columns) * (1 + MARGIN)


def row_sum_norm(operation: Affine, like: Tensor) -> float:
    r"""The l_inf Lipschitz constant of an affine operation: max over outputs of the sum of |W|, times the margin."""
    spread = operation.spread(torch.ones_like(like))
    return float(spread.max()) * (1 + MARGIN) if spread.numel() else 0.0


def operation_norm(operation: Linear | Conv | CircularConv | Transposed | Scale | Positive, like: Tensor) -> float:
    """At least the l2 Lipschitz constant of an affine operation on inputs shaped as `like` (1, ...).

    A `Positive` map (reshape, pad, slice: 1; a mean of M numbers: M^-1/2; pooling of k x k without overlap:
    1 / k) is bounded by its row and column sums, which is exact for these.
    """
    if isinstance(operation, Linear):
        return matrix_norm(operation.weight)
    if isinstance(operation, Conv):
        return conv_norm(operation)
    if isinstance(operation, CircularConv):
        return circular_norm(operation)
    if isinstance(operation, Transposed):  # a matrix and its transpose have one norm
        return conv_norm(operation.conv)
    if isinstance(operation, Scale):
        return float(operation.scale.abs().max()) * (1 + MARGIN)
    outputs = tuple(operation.apply(torch.zeros_like(like)).shape[1:])
    return _schur(operation, torch.ones_like(like), outputs)
