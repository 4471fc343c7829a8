"""Convolutions of norm at most 1, for the operator that runs: its padding, its stride. LECTURE rows E6 and F3."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.lipschitz.layers.base import Constrained, below_one, check_whole, exact_enough, fill_, fresh_bias
from danskin.lipschitz.layers.gram import gram_norm
from danskin.lipschitz.layers.kernels import autocorrelation, interleaved, joined, norm_at_any_size, symbols
from danskin.lipschitz.layers.linear import Mode, check_mode
from danskin.lipschitz.layers.operator import Operator
from danskin.lipschitz.layers.orthogonal_kernel import OrthogonalKernel
from danskin.lipschitz.layers.orthogonalize import Method
from danskin.lipschitz.layers.power import advance_, estimate, unit

PaddingMode = Literal["zeros", "circular"]


class ConstrainedConv2d(Constrained, ABC):
    """W * x + b with a square kernel and a constrained W; see the layers for how."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        padding_mode: PaddingMode,
        bias: bool,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_whole(self, 1, in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride)
        check_whole(self, 0, padding=padding)
        if padding_mode not in ("zeros", "circular"):
            raise InputError(
                f"{name}.padding_mode: expected 'zeros' or 'circular', got {padding_mode!r}; reflected and repeated "
                "edges have a norm above that of the kernel"
            )
        if padding_mode == "circular" and 2 * padding >= kernel_size:
            raise InputError(
                f"{name}.padding: expected at most (kernel_size - 1) / 2 = {(kernel_size - 1) // 2} for circular "
                f"padding, got {padding}; more repeats outputs, and the norm exceeds that of the kernel"
            )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.padding_mode = stride, padding, padding_mode
        self.bias = fresh_bias(out_channels, in_channels * kernel_size**2) if bias else None

    def operator(self, size: tuple[int, int]) -> Operator:
        """The linear map on images of a size."""
        return Operator(size, self.stride, self.padding, self.padding_mode == "circular")

    def forward(self, x: Tensor) -> Tensor:
        """W * x + b, (batch, in_channels, height, width) to (batch, out_channels, ...)."""
        if x.ndim < 3:
            raise InputError(f"{type(self).__name__}: expected images (batch, channels, height, width), got {x.ndim}-D")
        size = (x.shape[-2], x.shape[-1])
        self.check_size(size)
        return self.operator(size).apply(x, self.constrained_weight(), self.bias)

    def check_size(self, size: tuple[int, int]) -> None:
        """Images for which the constant holds."""
        if self.padding_mode == "circular" and (size[0] % self.stride or size[1] % self.stride):
            raise InputError(
                f"{type(self).__name__}: expected images whose sides are multiples of the stride {self.stride} for "
                f"circular padding, got {size[0]} x {size[1]}; crop or pad them"
            )

    def norm(self, weight: Tensor) -> float:
        """A bound on images of every size (`kernels.norm_at_any_size`)."""
        return norm_at_any_size(weight, self.stride)

    def export(self) -> nn.Conv2d:
        """`nn.Conv2d` with the weight in use."""
        weight = self.settled_weight()
        layer = nn.Conv2d(
            self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding,
            bias=self.bias is not None, padding_mode=self.padding_mode,
        ).to(weight)  # fmt: skip
        fill_(layer, weight, self.bias)
        return layer

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, padding_mode={self.padding_mode!r}"
        )


class SpectralConv2d(ConstrainedConv2d):
    r"""W / sigma with sigma the norm of the convolution itself, not of the reshaped kernel.

    A kernel reshaped to (out, in k k) and divided by its norm, as most code does, leaves a convolution whose norm is up
    to k. Here sigma belongs to the operator, which depends on the size of the images: `image_size` says for which. With
    zero padding it is a bound for smaller images too, and larger ones are refused.

    Args:
        in_channels: of the images.
        out_channels: of the result.
        kernel_size: its side.
        stride: in both directions.
        padding: on each side.
        image_size: height and width (or one number for both) of the largest images.
        bias: whether there is one.
        padding_mode: "zeros" or "circular".
        mode: "power": power iteration with the operator and its transpose, one step a training step, a little too
            small; "exact": circular, by Fourier transform; zeros, by the written-out matrix, which costs the cube of
            its side; "bound": Gram iteration on the Fourier transform of a circular convolution of which this one is a
            part, in float64, above the norm by the few percent that the circular one is.
        iterations: of the power method a training step.

    Reference: Miyato et al., ICLR 2018; Sedghi et al., ICLR 2019; Delattre et al., ICML 2023. Lecture: F3, E6.
    """

    u: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        image_size: int | tuple[int, int],
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        mode: Mode = "power",
        iterations: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, padding_mode, bias)
        check_mode(mode, "SpectralConv2d")
        check_whole(self, 1, iterations=iterations)
        sides = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
        if len(sides) != 2:
            raise InputError(f"SpectralConv2d.image_size: expected one number or two, got {image_size!r}; correct it")
        height, width = sides
        check_whole(self, 1, **{"image_size's height": height, "image_size's width": width})
        if min(height, width) + 2 * padding < kernel_size:
            raise InputError(
                f"SpectralConv2d.image_size: expected at least {kernel_size - 2 * padding} pixels a side for "
                f"kernel_size={kernel_size} and padding={padding}, got {height} x {width}; correct it"
            )
        self.image_size, self.mode, self.iterations = (height, width), mode, iterations
        super().check_size(self.image_size)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if mode == "power":
            with torch.no_grad():
                zeros = torch.zeros(1, in_channels, height, width)
                u = torch.randn_like(self.operator(self.image_size).apply(zeros, self.weight))
                self.register_buffer("u", unit(u))
                advance_(self.u, self.weight, self.operator(self.image_size), 15)

    def check_size(self, size: tuple[int, int]) -> None:
        """Images no larger than those that sigma was taken for."""
        most = self.image_size
        wrong = size != most if self.padding_mode == "circular" else (size[0] > most[0] or size[1] > most[1])
        if wrong:
            kind = "exactly" if self.padding_mode == "circular" else "at most"
            raise InputError(
                f"SpectralConv2d: expected images of {kind} {most[0]} x {most[1]}, for which its norm is 1, got "
                f"{size[0]} x {size[1]}; set image_size"
            )

    def make_weight(self) -> Tensor:
        """W / sigma."""
        weight = exact_enough(self.weight)
        sigma = self._sigma(weight)
        unit = weight / sigma.clamp_min(torch.finfo(weight.dtype).tiny)
        return unit if self.mode == "power" else below_one(unit, weight[0].numel() + self.out_channels)

    def _sigma(self, weight: Tensor) -> Tensor:
        operator = self.operator(self.image_size)
        if self.mode == "power":
            if self.training:
                advance_(self.u, weight, operator, self.iterations)
            return estimate(self.u, weight, operator)
        if self.mode == "exact" and self.padding_mode == "zeros":
            return torch.linalg.matrix_norm(operator.matrix(weight), 2)
        circular = self.padding_mode == "circular"
        grid = operator.grid if circular else operator.grid_of_embedding(self.kernel_size)
        if self.mode == "exact":
            return _largest(symbols(weight, self.stride, grid), lambda m: torch.linalg.matrix_norm(m, 2))
        return _largest(symbols(weight.double(), self.stride, grid), gram_norm).to(weight.dtype)

    def norm(self, weight: Tensor) -> float:
        """On images of `image_size`."""
        return self.operator(self.image_size).certified_norm(weight)


def _largest(matrices: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
    """The largest norm; the others have no part in its gradient, and none is recorded of them."""
    with torch.no_grad():
        at = norm(matrices).argmax(0, keepdim=True)
    return norm(matrices.index_select(0, at))[0]


class OrthogonalConv2d(ConstrainedConv2d):
    r"""A convolution that keeps norms, of inputs or of gradients; norm 1 with zero and circular padding and any stride.

    Args:
        in_channels: of the images.
        out_channels: of the result. Where out_channels > in_channels stride^2, norms of inputs are kept, else those of
            gradients (exactly on the infinite grid and with circular padding; zero padding loses a little at the edge).
        kernel_size: its side, at least the stride.
        stride: in both directions.
        padding: on each side.
        bias: whether there is one.
        padding_mode: "zeros" or "circular".
        method: how its matrices are made orthogonal; see `OrthogonalLinear`.
        iterations: of Björck.

    `lipschitz` is certified in float64 for images of every size. Reference: see `OrthogonalKernel`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        method: Method = "bjorck",
        iterations: int = 12,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, padding_mode, bias)
        self.kernel = OrthogonalKernel(in_channels, out_channels, kernel_size, stride, method, iterations)

    def make_weight(self) -> Tensor:
        """The orthogonal kernel."""
        return self.kernel()


class AOLConv2d(ConstrainedConv2d):
    r"""W D with D_j = (sum over i and offsets of |W^T W|_ij)^(-1/2): norm at most 1 at every size, in one shot.

    Args:
        in_channels: of the images.
        out_channels: of the result.
        kernel_size: its side.
        stride: in both directions; D has a number for each phase of the stride.
        padding: on each side.
        bias: whether there is one.
        padding_mode: "zeros" or "circular".

    Reference: Prach and Lampert, ECCV 2022, theorem 2; the phases are elementary.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, padding_mode, bias)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.dirac_(self.weight)
        with torch.no_grad():
            self.weight.add_(torch.randn_like(self.weight) / (10 * kernel_size * math.sqrt(in_channels)))

    def make_weight(self) -> Tensor:
        """W D."""
        parts = interleaved(exact_enough(self.weight), self.stride)
        sums = autocorrelation(parts.transpose(0, 1)).abs().sum((1, 2, 3))
        scaled = parts * sums.clamp_min(torch.finfo(parts.dtype).tiny).rsqrt()[None, :, None, None]
        return below_one(joined(scaled, self.stride, self.kernel_size), self.out_channels + sums.numel())
