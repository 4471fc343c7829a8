"""The transpose of an orthogonal convolution: upsampling that keeps norms."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.lipschitz.layers.base import Constrained, check_whole, fill_, fresh_bias
from danskin.lipschitz.layers.kernels import norm_at_any_size
from danskin.lipschitz.layers.orthogonal_kernel import OrthogonalKernel
from danskin.lipschitz.layers.orthogonalize import Method


class OrthogonalConvTranspose2d(Constrained):
    """The transposed map of an `OrthogonalConv2d` with zero padding, and a bias: norm 1 for every stride and padding.

    Args:
        in_channels: of the images.
        out_channels: of the result.
        kernel_size: its side, at least the stride.
        stride: factor of the enlargement.
        padding: of the convolution that it transposes, as for `nn.ConvTranspose2d`.
        output_padding: added to one side of the result, less than the stride.
        bias: whether there is one.
        method: how its matrices are made orthogonal; see `OrthogonalLinear`.
        iterations: of Björck.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        *,
        bias: bool = True,
        method: Method = "bjorck",
        iterations: int = 12,
    ) -> None:
        super().__init__()
        check_whole(self, 1, in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride)
        check_whole(self, 0, padding=padding, output_padding=output_padding)
        if output_padding >= stride:
            raise InputError(
                f"OrthogonalConvTranspose2d.output_padding: expected less than the stride {stride}, got "
                f"{output_padding}; correct it"
            )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.kernel = OrthogonalKernel(out_channels, in_channels, kernel_size, stride, method, iterations)
        self.bias = fresh_bias(out_channels, in_channels * kernel_size**2) if bias else None

    def make_weight(self) -> Tensor:
        """The orthogonal kernel, (in_channels, out_channels, k, k) as torch stores transposed ones."""
        return self.kernel()

    def forward(self, x: Tensor) -> Tensor:
        """W^T * x + b, (batch, in_channels, height, width) to (batch, out_channels, ...)."""
        weight = self.constrained_weight()
        return F.conv_transpose2d(x, weight, self.bias, self.stride, self.padding, self.output_padding)

    def norm(self, weight: Tensor) -> float:
        """That of the convolution it transposes, for images of every size."""
        return norm_at_any_size(weight, self.stride)

    def export(self) -> nn.ConvTranspose2d:
        """`nn.ConvTranspose2d` with the weight in use."""
        weight = self.settled_weight()
        layer = nn.ConvTranspose2d(
            self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding, self.output_padding,
            bias=self.bias is not None,
        ).to(weight)  # fmt: skip
        fill_(layer, weight, self.bias)
        return layer

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
