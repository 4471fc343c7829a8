"""From any matrix to one with orthonormal columns (or rows, where it is wide): Björck, Householder, Cayley.

All are differentiable and take stacks of matrices (..., rows, columns).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.lipschitz.layers.base import below_one

Method = Literal["bjorck", "householder", "cayley"]


def check_method(method: str, owner: str) -> None:
    """It is one of `Method`."""
    if method not in get_args(Method):
        raise InputError(f"{owner}: expected method {', '.join(get_args(Method))}, got {method!r}; pick one")


def orthogonal(raw: Tensor, method: Method, iterations: int) -> Tensor:
    """Orthonormal columns (rows where it is wide) from a raw parameter of the same shape, norm at most 1."""
    wide = raw.shape[-1] > raw.shape[-2]
    tall = raw.mT if wide else raw
    if not tall.shape[-1]:
        return raw
    if method == "bjorck":
        made = bjorck(tall, iterations)
    elif method == "householder":
        made = householder(tall)
    else:
        made = cayley(tall)
    made = below_one(made, made.shape[-1])
    return made.mT if wide else made


def safe_scale(weight: Tensor) -> Tensor:
    r"""(..., 1, 1): at least the spectral norm, the smaller of sqrt(\|W\|_1 \|W\|_inf) and \|(W^T W)^2\|_F^(1/4).

    Both are bounds of the norm: the first by Schur's test, the second as the singular values of (W^T W)^2 are the
    fourth powers and a Frobenius norm is at least the largest of them.
    """
    absolute, tiny = weight.abs(), torch.finfo(weight.dtype).tiny ** 0.25
    columns, rows = absolute.sum(-2).amax(-1), absolute.sum(-1).amax(-1)
    schur = (columns * rows).clamp_min(tiny * tiny).sqrt()
    unit = weight / schur[..., None, None]  # so that fourth powers do not overflow
    gram = unit.mT @ unit
    fourth = torch.linalg.vector_norm(gram @ gram, dim=(-2, -1)).clamp_min(tiny).sqrt().sqrt()
    return (schur * fourth.clamp_max(1))[..., None, None]


def bjorck(weight: Tensor, iterations: int) -> Tensor:
    r"""The orthonormal factor of the polar decomposition by W <- W (3/2 I - 1/2 W^T W), for rows >= columns.

    The start is divided by `safe_scale`, so every iterate has norm <= 1 (s -> 3/2 s - 1/2 s^3 maps [0, 1] to
    itself): stopping early costs orthogonality, never the constant.

    Reference: Björck and Bowie, SIAM J. Numer. Anal. 8, 1971; the start as in Anil, Lucas and Grosse, ICML 2019.
    """
    weight = weight / safe_scale(weight)
    for _ in range(iterations):
        weight = 1.5 * weight - 0.5 * weight @ (weight.mT @ weight)
    return weight


def householder(raw: Tensor) -> Tensor:
    """The product of reflections I - 2 v v^T / |v|^2 whose vectors are the columns below the diagonal, and 1 on it.

    Exactly orthonormal up to rounding. Reference: Mhammedi et al., ICML 2017; LAPACK's orgqr.
    """
    below = raw.tril(-1)
    tau = 2 / (1 + below.square().sum(-2))
    return torch.linalg.householder_product(below, tau)


def cayley(raw: Tensor) -> Tensor:
    r"""[(I + A)^-1 (I - A); -2 V (I + A)^-1] with A = U - U^T + V^T V, raw = [U; V], for rows >= columns.

    Exactly orthonormal up to rounding. Reference: Trockman and Kolter, ICLR 2021, appendix.
    """
    n = raw.shape[-1]
    U, V = raw[..., :n, :], raw[..., n:, :]
    A = U - U.mT + V.mT @ V
    eye = torch.eye(n, dtype=raw.dtype, device=raw.device)
    top = torch.linalg.solve(eye + A, eye - A)
    if not V.shape[-2]:
        return top
    bottom = -2 * torch.linalg.solve((eye + A).mT, V.mT).mT
    return torch.cat([top, bottom], -2)


def initial(shape: tuple[int, ...], method: Method) -> Tensor:
    """A raw parameter whose `orthogonal` is random: orthogonal itself for Björck, normal for the others."""
    tall = (*shape[:-2], max(shape[-2:]), min(shape[-2:]))
    normal = torch.randn(tall)
    if method == "bjorck":
        made = torch.linalg.qr(normal.double()).Q.to(normal) if tall[-1] else normal
    elif method == "householder":  # vectors of a random QR: a random orthogonal matrix to begin with
        made = torch.geqrf(normal)[0] if tall[-1] else normal
    else:
        made = normal / max(tall[-2], 1) ** 0.5
    return made.mT.contiguous() if shape[-1] > shape[-2] else made
