"""Kernels whose convolutions keep norms, from matrices that do."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.lipschitz.layers.base import below_one, check_whole, exact_enough
from danskin.lipschitz.layers.kernels import block_product
from danskin.lipschitz.layers.orthogonalize import Method, check_method, initial, orthogonal


class OrthogonalKernel(nn.Module):
    r"""A kernel K with C C^T = I (or C^T C = I, where there are more outputs) for its convolution C of stride s.

    K = R . [P_1, I - P_1] . ... . F: F is semi-orthogonal (1 x 1), each [P, I - P] is orthogonal for every projection P
    and makes the kernel one longer, vertical and horizontal in turn, and R is semi-orthogonal on patches of s x s.
    Exact on the infinite grid and with circular padding; zero padding drops parts, so the norm stays 1.

    Reference: Li et al., NeurIPS 2019 (BCOP); Boissin et al., "AOC", 2025 (its product with the stride's part).
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, method: Method, iterations: int) -> None:
        super().__init__()
        check_method(method, "OrthogonalKernel")
        check_whole(self, 0, iterations=iterations)
        if size < stride:
            raise InputError(
                f"kernel_size: expected at least the stride {stride}, got {size}: smaller kernels skip pixels and "
                "cannot keep norms; use a larger one"
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
