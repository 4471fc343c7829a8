"""Differentiable upper bounds of spectral norms by Gram iteration, for matrices and stacks of them."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 8  # the excess for rank n is n^(2^-9): 1.1 % for n = 256, and 0 where one singular value leads


def gram_norm(matrices: Tensor, steps: int = STEPS) -> Tensor:
    r"""(...,) for matrices (..., a, b): at least the spectral norm, \|G_t\|_F^(2^-t) with G_{t+1} = G_t^H G_t.

    Give float64 for a certificate: in float32 rounding is larger than the excess, and the result can be below the
    norm. Each G is divided by its Frobenius norm, and the logarithms are added, so nothing overflows.

    Reference: Delattre et al., ICML 2023, algorithm 1.
    """
    tiny = torch.finfo(matrices.dtype).tiny
    gram = matrices if matrices.shape[-2] >= matrices.shape[-1] else matrices.mT
    largest = gram.abs().amax((-2, -1)).clamp_min(tiny)  # squares of small numbers would underflow
    gram, log, share = gram / largest[..., None, None], largest.log(), 1.0
    for _ in range(steps):
        size = torch.linalg.vector_norm(gram, dim=(-2, -1)).clamp_min(tiny)
        gram = gram / size[..., None, None]
        log = log + share * size.log()
        gram, share = gram.mH @ gram, share / 2
    last = torch.linalg.vector_norm(gram, dim=(-2, -1)).clamp_min(tiny)
    return (log + share * last.log()).exp()
