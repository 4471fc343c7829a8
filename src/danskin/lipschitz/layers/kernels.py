"""Kernels of convolutions as linear maps: interleaving a stride, norms that hold for images of every size, symbols.

A convolution of stride s is one of stride 1 on the s x s interleaved parts of the image, taken as channels. With
zero padding it is a restriction of the convolution on the infinite grid, and a circular one (whose outputs are at
most as many as its inputs) samples the same symbol at finitely many frequencies; so a norm on the infinite grid
bounds both, whatever the size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from danskin.lipschitz import norms
from danskin.lipschitz.norms import MARGIN


def interleaved(kernel: Tensor, stride: int) -> Tensor:
    """(out, in s^2, ceil(kh / s), ceil(kw / s)): the same map as a convolution of stride 1 on interleaved parts."""
    return norms.interleaved(kernel, (stride, stride))[0]


def joined(parts: Tensor, stride: int, size: int) -> Tensor:
    """The inverse of `interleaved`, for a kernel of `size` x `size`."""
    if stride == 1:
        return parts
    out, many, high, wide = parts.shape
    kernel = parts.view(out, many // stride**2, stride, stride, high, wide).permute(0, 1, 4, 2, 5, 3)
    return kernel.reshape(out, many // stride**2, high * stride, wide * stride)[..., :size, :size]


def autocorrelation(kernel: Tensor) -> Tensor:
    """(out, out, 2 kh - 1, 2 kw - 1): the kernel of C C^T for a convolution C of stride 1."""
    return F.conv2d(kernel, kernel, padding=(kernel.shape[2] - 1, kernel.shape[3] - 1))


def norm_at_any_size(kernel: Tensor, stride: int) -> float:
    r"""At least the norm of the convolution on images of every size, zero or circular padding.

    \|C\|^2 is the largest eigenvalue of the symbol of C C^T (or C^T C, the smaller) over all frequencies. For every
    vector its quadratic form is a trigonometric polynomial of degree r = k - 1 in both, with values in [m, M] at N x N
    frequencies; taken from their middle it is at most cos(pi r / N)^-2 times as large between them (Ehlich and Zeller
    1964, once for each): (M + m) / 2 + 1.17 (M - m) / 2 for N = 8 r. So it is tight for orthogonal and almost
    orthogonal kernels, and up to 4.2 % above the norm of others.
    """
    parts = interleaved(kernel.detach().double(), stride)
    if parts.shape[0] > parts.shape[1]:
        parts = parts.transpose(0, 1)
    G = autocorrelation(parts)
    degrees = [(n - 1) // 2 for n in G.shape[2:]]
    points = [8 * r if r else 1 for r in degrees]
    factor = math.prod(1 / math.cos(math.pi * r / n) for r, n in zip(degrees, points, strict=True))
    G = F.pad(G, (0, points[1] - G.shape[3], 0, points[0] - G.shape[2])).roll([-r for r in degrees], (2, 3))
    values = torch.linalg.eigvalsh(torch.fft.rfft2(G).flatten(2).permute(2, 0, 1))
    least, most = float(values.amin()), float(values.amax())
    return math.sqrt(max((most + least) / 2 + factor * (most - least) / 2, 0.0)) * (1 + MARGIN)


def _wrapped(parts: Tensor, grid: list[int]) -> Tensor:
    """Kernels longer than the grid go around it: `rfft2` would cut them off."""
    for dim, n in zip((2, 3), grid, strict=True):
        if parts.shape[dim] > n:
            pieces = F.pad(parts.movedim(dim, -1), (0, -parts.shape[dim] % n)).unflatten(-1, (-1, n))
            parts = pieces.sum(-2).movedim(-1, dim)
    return parts


def symbols(kernel: Tensor, stride: int, grid: tuple[int, int]) -> Tensor:
    """(frequencies, out, in s^2) complex: the matrices whose largest norm is that of the circular convolution.

    Args:
        kernel: (out, in, kh, kw).
        stride: of the convolution.
        grid: height and width of the image in steps of the stride, after the interleaving.

    Reference: Sedghi, Gupta and Long, ICLR 2019, theorem 6, for stride 1.
    """
    parts = _wrapped(interleaved(kernel, stride), list(grid))
    return torch.fft.rfft2(parts, s=grid).flatten(2).permute(2, 0, 1)


def block_product(kernels: Tensor, projectors: Tensor) -> Tensor:
    """A kernel followed by factors [P, I - P], vertical and horizontal in turn; each makes it one longer.

    Args:
        kernels: (out, in, kh, kw).
        projectors: (factors, out, out), symmetric.
    """
    for k, P in enumerate(projectors):
        through = torch.einsum("ab,bchw->achw", P, kernels)
        rest = kernels - through
        near, far = ((0, 0, 0, 1), (0, 0, 1, 0)) if k % 2 == 0 else ((0, 1), (1, 0))
        kernels = F.pad(through, near) + F.pad(rest, far)
    return kernels
