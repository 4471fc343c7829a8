"""A convolution as a linear map between images of given sizes: applied, transposed, written out, its norm certified."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from danskin.lipschitz.layers.kernels import norm_at_any_size, symbols
from danskin.lipschitz.norms import MARGIN, conv_norm
from danskin.lipschitz.operations import Conv


@dataclass(frozen=True)
class Operator:
    """Everything but the kernel.

    Args:
        size: height and width of the images.
        stride: in both directions.
        padding: on each side.
        circular: the image continues at the other side; else with zeros.
    """

    size: tuple[int, int]
    stride: int
    padding: int
    circular: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in steps of the stride, where these are whole numbers."""
        return self.size[0] // self.stride, self.size[1] // self.stride

    def grid_of_embedding(self, kernel_size: int) -> tuple[int, int]:
        """Of a circular image that holds the one padded by zeros."""
        high, wide = (-(-max(n + 2 * self.padding, kernel_size) // self.stride) for n in self.size)
        return high, wide

    def apply(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """K * x + b."""
        p = self.padding
        if self.circular and p:
            return F.conv2d(F.pad(x, (p, p, p, p), mode="circular"), kernel, bias, self.stride)
        return F.conv2d(x, kernel, bias, self.stride, p)

    def transposed(self, y: Tensor, kernel: Tensor) -> Tensor:
        """K^T y, (batch, out, ...) to (batch, in, *size)."""
        p, k, padded = self.padding, kernel.shape[-1], [n + 2 * self.padding for n in self.size]
        rest = [n - ((m - 1) * self.stride + k) for n, m in zip(padded, y.shape[-2:], strict=True)]
        x = F.conv_transpose2d(y, kernel, None, self.stride, 0, rest)
        if not p:
            return x
        if not self.circular:
            return x[..., p:-p, p:-p]
        for dim in (-2, -1):  # what the padding copied is added where it came from
            n = x.shape[dim] - 2 * p
            middle = x.narrow(dim, p, n).clone()
            middle.narrow(dim, n - p, p).add_(x.narrow(dim, 0, p))
            middle.narrow(dim, 0, p).add_(x.narrow(dim, n + p, p))
            x = middle
        return x

    def matrix(self, kernel: Tensor) -> Tensor:
        """(outputs, inputs): written out, differentiable."""
        inputs = kernel.shape[1] * math.prod(self.size)
        eye = torch.eye(inputs, dtype=kernel.dtype, device=kernel.device).view(inputs, kernel.shape[1], *self.size)
        return self.apply(eye, kernel).flatten(1).T

    def certified_norm(self, kernel: Tensor) -> float:
        """At least the norm, in float64; the smaller of what holds for this size and what holds for all."""
        kernel, p = kernel.detach().double(), self.padding
        everywhere = norm_at_any_size(kernel, self.stride)
        if self.circular:
            largest = torch.linalg.matrix_norm(symbols(kernel, self.stride, self.grid), 2).amax()
            return min(everywhere, float(largest) * (1 + MARGIN))
        bias, s = kernel.new_zeros(len(kernel)), self.stride
        return min(everywhere, conv_norm(Conv(kernel, bias, (kernel.shape[1], *self.size), (s, s), (p, p))))
