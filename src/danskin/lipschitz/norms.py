"""Certified upper bounds of the largest singular value of a linear map: never below the true one.

A power iteration approaches the norm from below and certifies nothing; here the norm is exact (a singular
value decomposition) or bounded by a map that contains the given one. All in float64; each bound is enlarged
by the factor `1 + MARGIN`, which is above the rounding of decompositions and Fourier transforms of the
sizes met here (about n * 1e-16 relative to the norm). LECTURE row E6.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from danskin.lipschitz.operations import Affine, CircularConv, Conv, Linear, Positive, Scale, Transposed

MARGIN = 1e-9
_DENSE = 1 << 22  # entries up to which the matrix of a convolution is written out
_SIDE = 1024  # and the smaller side, of which the cost of the decomposition is the square
_FEW = 24  # sides below which a decomposition costs no more than a factorisation
_SVD_SIDE = 4096  # smaller side up to which a plain matrix is decomposed
_GRAM_STEPS = 12  # excess of a Gram bound for rank n: n^(2^-13), 0.1 % for n = 4096


def matrix_norm(weight: Tensor) -> float:
    """At least the largest singular value of a matrix, and equal to it but for the margin.

    By singular value decomposition; by `gram_bound` where the smaller side is above 4096.

    >>> round(matrix_norm(torch.tensor([[3.0, 0.0], [4.0, 0.0]])), 6)
    5.0
    """
    weight = weight.detach().double()
    if not weight.numel():
        return 0.0
    if min(weight.shape) > _SVD_SIDE:
        return gram_bound(weight)
    return float(torch.linalg.matrix_norm(weight, 2)) * (1 + MARGIN)


def gram_bound(weight: Tensor) -> float:
    r"""An upper bound by Gram iteration: \|W\|_2 = \|G_t\|_2^(2^-t) <= \|G_t\|_F^(2^-t), G_0 = W, G_{t+1} = G_t^T G_t.

    The singular values of G_t are those of W to the power 2^t, and the Frobenius norm is at least the
    spectral one. Each G_t is divided by its Frobenius norm so that nothing overflows, and the logarithms are
    added up.

    Reference: Delattre et al., ICML 2023, algorithm 1.
    """
    gram = weight.detach().double()
    gram = gram if gram.shape[0] >= gram.shape[1] else gram.T  # the smaller of the two Gram matrices
    largest = float(gram.abs().amax()) if gram.numel() else 0.0
    if largest == 0:
        return 0.0
    gram, log, share = gram / largest, math.log(largest), 1.0  # no square under- or overflows
    for _ in range(_GRAM_STEPS):  # the logarithm of |G_t| counts 2^-t times
        size = float(torch.linalg.vector_norm(gram))
        gram = gram / size
        log += share * math.log(size)
        gram, share = gram.T @ gram, share / 2
    # a product errs by n * 1e-16 of its Frobenius norm squared, that is at most n^1.5 * 1e-16 of its Frobenius norm;
    # squaring doubles this and the root halves it again, so the steps add up
    margin = max(MARGIN, _GRAM_STEPS * max(weight.shape) * math.sqrt(len(gram)) * 2e-16)
    return math.exp(log + share * math.log(float(torch.linalg.vector_norm(gram)))) * (1 + margin)


def conv_norm(conv: Conv) -> float:
    """At least the largest singular value of a convolution with zero padding on images of its shape.

    The smallest of: the exact norm of the written-out matrix where that is small; `circular_bound`; the
    root of the largest row sum times the largest column sum of the absolute values.
    """
    outputs = conv.apply(conv.weight.new_zeros((1, *conv.shape))).shape[1:]
    inputs, results = math.prod(conv.shape), math.prod(outputs)
    if not inputs * results:
        return 0.0
    if conv.weight.shape[2:] == (1, 1) and conv.padding == (0, 0):  # a matrix at some of the places
        return max(matrix_norm(block.flatten(1)) for block in conv.weight.chunk(conv.groups))
    if inputs * results <= _DENSE and min(inputs, results) <= _SIDE:
        rows = torch.eye(results, dtype=torch.float64, device=conv.weight.device).view(results, *outputs)
        return matrix_norm(conv.pullback(rows).flatten(1))
    return min(circular_bound(conv), _schur(conv, conv.weight.new_ones((1, *conv.shape)), outputs))


def circular_bound(conv: Conv) -> float:
    r"""The exact norm of the circular convolution of which this one is a restriction.

    Zero padding puts the image on a larger grid (an isometry); on that grid the convolution of stride s is a
    circular one of which some outputs are dropped (a projection), so its norm is not larger. Stride s is
    stride 1 on the s^2 interleaved parts of the image, taken as channels: the kernel is cut up likewise. A
    circular convolution of stride 1 is a matrix (channels out, channels in) at each frequency, and its norm
    is the largest of their norms. Groups are blocks: the largest block counts.

    Reference: Sedghi, Gupta and Long, ICLR 2019, theorem 6 (stride 1, circular); the restriction and the
    interleaving are elementary.
    """
    sides = [(k - 1) * d + 1 for k, d in zip(conv.weight.shape[2:], conv.dilation, strict=True)]
    padded = [max(n + 2 * p, k) for n, p, k in zip(conv.shape[1:], conv.padding, sides, strict=True)]
    return _norm_on_grid(conv, [-(-n // s) for n, s in zip(padded, conv.stride, strict=True)])


def circular_norm(circular: CircularConv) -> float:
    """At least the norm of a convolution of images that continue at the other side; exact but for the margin.

    Where the padding repeats outputs, or the stride does not divide the image, it is the product of both norms.
    """
    pad, conv = circular.pad, circular.conv
    size = pad.shape[1:]
    results = conv.apply(conv.weight.new_zeros((1, *conv.shape))).shape[2:]
    steps = [n // s for n, s in zip(size, conv.stride, strict=True)]
    whole = all(n % s == 0 for n, s in zip(size, conv.stride, strict=True))
    if whole and all(r <= g for r, g in zip(results, steps, strict=True)):
        return _norm_on_grid(conv, steps)
    outputs = tuple(conv.shape)
    return _schur(pad, conv.weight.new_ones((1, *pad.shape)), outputs) * conv_norm(conv)


def _norm_on_grid(conv: Conv, grid: list[int]) -> float:
    """The norm of the circular convolution on an image of `grid` steps of the stride."""
    kernel = _dilated(conv.weight, conv.dilation)
    s, t = conv.stride
    high, wide = (-(-k // q) for k, q in zip(kernel.shape[2:], conv.stride, strict=True))
    kernel = torch.nn.functional.pad(kernel, (0, wide * t - kernel.shape[3], 0, high * s - kernel.shape[2]))
    out, channels = kernel.shape[:2]
    parts = kernel.view(out, channels, high, s, wide, t).permute(0, 1, 3, 5, 2, 4).reshape(out, -1, high, wide)
    parts = wrapped(parts, grid)
    symbols = (torch.fft.rfft2(block, s=grid).flatten(2).permute(2, 0, 1) for block in parts.chunk(conv.groups))
    return max(_largest(symbol) for symbol in symbols) * (1 + MARGIN)  # conjugate frequencies have equal norms


def wrapped(parts: Tensor, grid: list[int]) -> Tensor:
    """Kernels longer than the grid go around it: `rfft2` would cut them off."""
    for dim, n in zip((2, 3), grid, strict=True):
        if parts.shape[dim] > n:
            pieces = torch.nn.functional.pad(parts.movedim(dim, -1), (0, -parts.shape[dim] % n)).unflatten(-1, (-1, n))
            parts = pieces.sum(-2).movedim(-1, dim)
    return parts


def _largest(matrices: Tensor) -> float:
    """The largest spectral norm of a stack of matrices (n, a, b), by the smaller Gram matrices.

    Squaring costs half the digits of small singular values, but not of the largest one. Few decompositions are made:
    that of the most promising matrix gives a number above which a Cholesky factorisation shows that the others are
    not; those where it fails are tried next.
    """
    size = float(matrices.abs().amax())
    if size == 0:
        return 0.0
    scaled = matrices / size
    gram = scaled.mH @ scaled if scaled.shape[1] >= scaled.shape[2] else scaled @ scaled.mH
    if gram.shape[1] < _FEW:
        return size * math.sqrt(float(torch.linalg.eigvalsh(gram)[:, -1].max()))
    promise, best = _rayleigh(gram), 0.0
    eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    while len(gram):
        at = int(promise.argmax())
        best = max(best, float(torch.linalg.eigvalsh(gram[at])[-1]))
        _, failed = torch.linalg.cholesky_ex(best * (1 + 0.1 * MARGIN) * eye - gram)
        left = failed != 0
        left[at] = False
        gram, promise = gram[left], promise[left]
    return size * math.sqrt(best * (1 + 0.1 * MARGIN))


def _rayleigh(gram: Tensor) -> Tensor:
    """(n,): lower bounds of the largest eigenvalues, by a few steps of the power iteration."""
    v = gram @ gram.sum(2, keepdim=True)
    for _ in range(8):
        v = gram @ (v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(1e-300))
    return torch.linalg.vector_norm(v, dim=(1, 2))


def _dilated(weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    """The kernel with zeros between its entries."""
    if dilation == (1, 1):
        return weight
    size = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    full = weight.new_zeros((*weight.shape[:2], *size))
    full[:, :, :: dilation[0], :: dilation[1]] = weight
    return full


def _schur(operation: Conv | Positive, ones: Tensor, outputs: tuple[int, ...]) -> float:
    r"""sqrt(\|W\|_1 \|W\|_inf) from row and column sums of |W|."""
    rows = float(operation.spread(ones).max())
    if isinstance(operation, Conv):
        absolute = Conv(
            operation.weight.abs(), operation.bias, operation.shape, operation.stride, operation.padding,
            operation.dilation, operation.groups,
        )  # fmt: skip
        columns = float(absolute.pullback(ones.new_ones((1, *outputs))).max())
    else:
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
