"""Extreme eigenvalues of a symmetric matrix that is known by its products, with their residuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from danskin.errors import InputError, ModelError
from danskin.inputs import whole_number

#: Which end of the spectrum: algebraically largest or smallest, or largest in absolute value.
Which = Literal["largest", "smallest", "magnitude"]


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    r"""Approximate eigenvalues, the wanted end first.

    Within `residuals[i]` of `values[i]` there is an eigenvalue, for certain and up to rounding. That it is the
    extreme one is not certain; a Rayleigh quotient never exceeds the largest one, nor falls below the smallest.

    Args:
        values: (k,) Rayleigh quotients <u, A u>, float64.
        vectors: (k, d) unit vectors u.
        residuals: (k,) |A u - value u|_2, computed with one more product each, float64.
        products: products with A that were taken, those for the residuals included.
        converged: all residuals are within the tolerance.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: bool


def lanczos(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    k: int = 1,
    *,
    which: Which = "largest",
    tolerance: float = 1e-3,
    most: int = 200,
    basis: int | None = None,
) -> Eigenpairs:
    r"""Eigenpairs of a symmetric A by the Lanczos method with full reorthogonalisation and thick restarts.

    A V = V T + b v e', V orthonormal; Ritz pairs of T whose residual b |last entry| is small stay. Every new vector is
    orthogonalised twice against the whole basis, so that no eigenvalue comes out more than once by rounding.

    Args:
        product: v (d,) to A v (d,).
        start: (d,) not 0; random, or the eigenvectors that it is orthogonal to are missed.
        k: how many eigenvalues, 1 to d.
        which: end of the spectrum.
        tolerance: residuals relative to the largest |Ritz value|, > 0.
        most: products at most, before those for the residuals.
        basis: vectors held, more than k + 1; default max(2 k + 20, 30). Memory is that many times d.

    Raises:
        InputError: settings out of range.
        ModelError: a product that is not finite.

    Reference: Wu and Simon, "Thick-restart Lanczos method", SIAM J. Matrix Anal. 2000.
    """
    d, k, most = start.numel(), whole_number(k, "k", 1), whole_number(most, "most", 1)
    size = min(d, max(2 * k + 20, 30) if basis is None else whole_number(basis, "basis", 1))
    _check(d, k, size, which, tolerance, start)
    held, matrix = start.new_zeros(size + 1, d), torch.zeros(size, size, dtype=torch.float64)
    held[0] = start / start.norm()
    dice, known, used = torch.Generator().manual_seed(0), 0, 0
    while True:
        image = _finite(product(held[known]))
        used, known = used + 1, known + 1
        column, rest = _orthogonal(image, held[:known])
        matrix[:known, known - 1] = matrix[known - 1, :known] = column.double().cpu()
        values, mixes = torch.linalg.eigh(matrix[:known, :known])
        order = _wanted(values, which)
        values, mixes = values[order], mixes[:, order]
        beta, scale = float(rest.norm()), float(values.abs().max())
        near = beta * mixes[-1, :k].abs() <= tolerance * scale
        lost = beta <= 10 * torch.finfo(start.dtype).eps * scale  # the basis spans an invariant subspace
        if known == d or (known >= k and bool(near.all())) or used >= most:
            break
        keep = known
        if known == size:
            keep = max(k, min(known - 1, (known + k) // 2))
            held[:keep] = mixes[:, :keep].T.to(held) @ held[:known]
            matrix.zero_()
            matrix[:keep, :keep] = values[:keep].diag()
        if lost:
            rest = torch.randn(d, generator=dice, dtype=torch.float64).to(held)
            rest = _orthogonal(rest, held[:keep])[1]
        held[keep], known = rest / rest.norm(), keep
    vectors = mixes[:, :k].T.to(held) @ held[:known]
    return _judged(product, vectors, used, tolerance * scale)


def _judged(product: Callable[[Tensor], Tensor], vectors: Tensor, used: int, limit: float) -> Eigenpairs:
    """Rayleigh quotients and true residuals of the vectors."""
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    images = torch.stack([_finite(product(u)) for u in vectors])
    wide, far = vectors.double(), images.double()
    values = (wide * far).sum(1)
    residuals = (far - values[:, None] * wide).norm(dim=1)
    # the tolerance, and what rounding of the products alone leaves
    rounding = 100 * torch.finfo(vectors.dtype).eps * float(far.norm(dim=1).max())
    converged = bool((residuals <= max(1.01 * limit, rounding)).all())
    return Eigenpairs(values.cpu(), vectors, residuals.cpu(), used + len(vectors), converged)


def _orthogonal(v: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """(inner products with the held vectors, what is left without them): Gram-Schmidt, twice."""
    first = held @ v
    v = v - first @ held
    second = held @ v
    return first + second, v - second @ held


def _wanted(values: Tensor, which: Which) -> Tensor:
    if which == "magnitude":
        return values.abs().argsort(descending=True)
    return values.argsort(descending=which == "largest")


def _finite(v: Tensor) -> Tensor:
    if not bool(v.isfinite().all()):
        raise ModelError(
            "product: expected finite numbers, got NaN or infinity; keep the model away from roots, logarithms and "
            "norms at 0 (x.clamp_min(1e-6).sqrt())"
        )
    return v


def _check(d: int, k: int, size: int, which: str, tolerance: float, start: Tensor) -> None:
    if which not in get_args(Which):
        raise InputError(f"which: expected one of {', '.join(get_args(Which))}, got {which!r}; pick one")
    if not tolerance > 0:
        raise InputError(f"tolerance: expected a number > 0, got {tolerance}; 1e-3 is a start")
    if k > d:
        raise InputError(f"k: expected at most the dimension {d}, got {k}; ask for fewer")
    if size < min(d, k + 2):
        raise InputError(f"basis: expected at least k + 2 = {k + 2} vectors, got {size}; leave it out")
    if start.ndim != 1 or not start.is_floating_point() or not 0 < float(start.norm()) < float("inf"):
        raise InputError(
            f"start: expected a flat floating-point vector that is not 0, got {tuple(start.shape)}; torch.randn(d)"
        )
