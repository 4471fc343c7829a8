"""Convolutions of norm at most 1, for the operator that runs: its padding, its stride. LECTURE rows E6 and F3."""

from __future__ import annotations

import math
from abc import ABC
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.lipschitz.layers.base import Constrained, below_one, exact_enough, fill_, fresh_bias
from danskin.lipschitz.layers.gram import gram_norm
from danskin.lipschitz.layers.kernels import (
    autocorrelation,
    block_product,
    interleaved,
    joined,
    norm_at_any_size,
    symbols,
)
from danskin.lipschitz.layers.linear import Mode, check_mode
from danskin.lipschitz.layers.operator import Operator
from danskin.lipschitz.layers.orthogonalize import Method, check_method, initial, orthogonal

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
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "kernel_size": kernel_size, "stride": stride}
        for what, size in (*sizes.items(), ("padding + 1", padding + 1)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(f"{name}.{what}: expected an integer of 1 or more, got {size!r}; correct it")
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
        self.check_size(x)
        return self.operator((x.shape[-2], x.shape[-1])).apply(x, self.constrained_weight(), self.bias)

    def check_size(self, x: Tensor) -> None:
        """An image for which the constant holds."""
        _check_circular(self, (x.shape[-2], x.shape[-1]))

    @property
    def lipschitz(self) -> float:
        """A bound of the norm on images of every size, in float64 (`kernels.norm_at_any_size`)."""
        return norm_at_any_size(self.settled_weight(), self.stride)

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


def _check_circular(layer: ConstrainedConv2d, size: tuple[int, int]) -> None:
    if layer.padding_mode == "circular" and (size[0] % layer.stride or size[1] % layer.stride):
        raise InputError(
            f"{type(layer).__name__}: expected images whose sides are multiples of the stride {layer.stride} for "
            f"circular padding, got {size[0]} x {size[1]}; crop or pad them"
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
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(height, width) + 2 * padding < kernel_size:
            raise InputError(
                f"SpectralConv2d.image_size: expected at least {kernel_size - 2 * padding} pixels a side for "
                f"kernel_size={kernel_size} and padding={padding}, got {height} x {width}; correct it"
            )
        self.image_size, self.mode, self.iterations = (height, width), mode, iterations
        _check_circular(self, self.image_size)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if mode == "power":
            with torch.no_grad():
                zeros = torch.zeros(1, in_channels, height, width)
                u = torch.randn_like(self.operator(self.image_size).apply(zeros, self.weight))
                self.register_buffer("u", _unit(u))
                self._iterate(self.weight, 15)

    def check_size(self, x: Tensor) -> None:
        """An image no larger than those that sigma was taken for."""
        size, most = (x.shape[-2], x.shape[-1]), self.image_size
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
                self._iterate(weight, self.iterations)
            u = self.u.to(weight.dtype).clone()
            v = _unit(operator.transposed(u, weight.detach()))
            return (u * operator.apply(v, weight)).sum()
        if self.mode == "exact" and self.padding_mode == "zeros":
            return torch.linalg.matrix_norm(operator.matrix(weight), 2)
        circular = self.padding_mode == "circular"
        grid = operator.grid if circular else operator.grid_of_embedding(self.kernel_size)
        if self.mode == "exact":
            return torch.linalg.svdvals(symbols(weight, self.stride, grid)).amax()
        return gram_norm(symbols(weight.double(), self.stride, grid)).amax().to(weight.dtype)

    @torch.no_grad()
    def _iterate(self, weight: Tensor, steps: int) -> None:
        operator, u = self.operator(self.image_size), self.u.to(weight.dtype)
        for _ in range(steps):
            u = _unit(operator.apply(_unit(operator.transposed(u, weight)), weight))
        self.u.copy_(u)

    @property
    def lipschitz(self) -> float:
        """The norm of the weight in use on images of `image_size`, certified in float64."""
        return self.operator(self.image_size).certified_norm(self.settled_weight())


def _unit(v: Tensor) -> Tensor:
    return v / torch.linalg.vector_norm(v).clamp_min(torch.finfo(v.dtype).tiny)


class OrthogonalKernel(nn.Module):
    r"""A kernel K with C C^T = I (or C^T C = I, where there are more outputs) for its convolution C of stride s.

    K = R . [P_1, I - P_1] . ... . F: F is semi-orthogonal (1 x 1), each [P, I - P] is orthogonal for every projection P
    and makes the kernel one longer, vertical and horizontal in turn, and R is semi-orthogonal on patches of s x s.
    Exact on the infinite grid and with circular padding; zero padding drops parts, so the norm stays 1.

    Reference: Li et al., NeurIPS 2019 (BCOP); Boissin et al., "AOC", 2025 (its product with the stride's part).
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, method: Method, iterations: int) -> None:
        super().__init__()
        check_method(method, "OrthogonalConv2d")
        if size < stride:
            raise InputError(
                f"OrthogonalConv2d.kernel_size: expected at least the stride {stride}, got {size}: smaller kernels "
                "skip pixels and cannot keep norms; use a larger one"
            )
        self.stride, self.method, self.iterations = stride, method, iterations
        patch = stride * stride
        middle = max(inputs, outputs // patch) if outputs % patch == 0 else inputs
        factors = 2 * (size - stride)
        self.first = nn.Parameter(initial((middle, inputs), method))
        self.bases = nn.Parameter(initial((factors, middle, middle // 2), method))
        self.last = nn.Parameter(initial((outputs, middle * patch), method))

    def forward(self) -> Tensor:
        """(outputs, inputs, size, size), differentiable."""
        first, bases, last = (
            orthogonal(exact_enough(raw), self.method, self.iterations) for raw in (self.first, self.bases, self.last)
        )
        kernel = block_product(first[..., None, None], bases @ bases.mT)
        s = self.stride
        patches = last.view(len(last), -1, s, s)
        # a kernel after another is their convolution; conv2d correlates, so one of them is turned around
        both = F.conv2d(kernel.transpose(0, 1), patches.flip(2, 3), padding=s - 1).transpose(0, 1)
        return below_one(both, both[0].numel() + len(last))


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
