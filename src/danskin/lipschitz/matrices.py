"""Certified upper bounds of the largest singular value of matrices: never below the true one.

A power iteration approaches the norm from below and certifies nothing. Here the norm is that of a singular value
decomposition, or a number above which a Cholesky factorisation shows that no eigenvalue of the Gram matrix is. All in
float64; each bound is enlarged by the factor `1 + MARGIN`, which is above the rounding of decompositions,
factorisations and Fourier transforms of the sizes met here (about n * 1e-16 relative to the norm). LECTURE row E6.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MARGIN = 1e-9
_DECOMPOSED = 1024  # smaller side up to which a matrix is decomposed
_FEW = 24  # sides of a stack's matrices below which a decomposition costs no more than a factorisation
_ABOVE = 1e-6  # of eigenvalues: how far above its estimate of the largest one a factorisation is tried first
_BLOCK = 128  # rows of a product
_STEPS = 4  # of the power iteration that tells which matrix promises most
_KRYLOV = 24  # products with a vector behind an estimate
_GRAM_STEPS = 12  # excess of a Gram bound for rank n: n^(2^-13), 0.1 % for n = 4096


def matrix_norm(weight: Tensor) -> float:
    """At least the largest singular value of a matrix, and equal to it but for the margin.

    By singular value decomposition where the smaller side is at most 1024, else by `largest_eigenvalue`, within 1e-6.

    >>> round(matrix_norm(torch.tensor([[3.0, 0.0], [4.0, 0.0]])), 6)
    5.0
    """
    weight = weight.detach().double()
    if not weight.numel():
        return 0.0
    if min(weight.shape) > _DECOMPOSED:
        scale = float(weight.abs().amax()) or 1.0  # no square under- or overflows
        tall = (weight if weight.shape[0] >= weight.shape[1] else weight.T) / scale
        return scale * math.sqrt(largest_eigenvalue(outer_product(tall.T[None]))) * (1 + MARGIN)
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


def largest_eigenvalue(grams: Tensor, known: float = 0.0) -> float:
    r"""At least the largest eigenvalue of a stack of Gram matrices (n, c, c), real or complex, and within 1e-6 of it.

    Most are not decomposed: a Krylov space of the matrix G that promises most estimates its largest eigenvalue from
    below; a Cholesky factorisation of s I - G for s a little above shows of all matrices at once that none exceeds s.
    Where it fails, the most promising of those that are left raises s. Squaring costs half the digits of small singular
    values, but not of the largest one.

    Args:
        grams: the stack, float64 or complex128, positive semidefinite but for rounding, numbers of about 1.
        known: a bound of other matrices; what is below it need not be known better.
    """
    if not grams.numel():
        return known
    if grams.shape[1] < _FEW:
        return max(known, float(torch.linalg.eigvalsh(grams)[:, -1].max()) * (1 + MARGIN))
    eye = torch.eye(grams.shape[1], dtype=grams.dtype, device=grams.device)
    best, above, toward = known, 0.0, None
    while True:
        if best > 0:
            _, failed = torch.linalg.cholesky_ex(best * (1 + above) * eye - grams)
            grams, toward = grams[failed != 0], toward if toward is None else toward[failed != 0]
        if not len(grams):
            return best if best == known else best * (1 + above) * (1 + MARGIN)
        toward = _powers(grams) if toward is None else toward
        at = int(torch.linalg.vector_norm(toward, dim=1).argmax())
        toward[at] = _krylov(grams[at], toward[at])
        estimate = max(float(torch.linalg.vector_norm(toward, dim=1).max()), _largest_entry(grams))
        if estimate == 0:
            return known
        above = _ABOVE if estimate > best * (1 + above) else max(_ABOVE, 4 * above)  # estimates are below the truth
        best = max(best, estimate)


def _largest_entry(grams: Tensor) -> float:
    """Of the diagonals: at most the largest eigenvalue, and 0 for matrices of zeros only."""
    return float(grams.diagonal(dim1=1, dim2=2).real.max())


def outer_product(x: Tensor) -> Tensor:
    """X X^T of a stack (n, c, m) of real matrices; of what is symmetric only one half is multiplied out."""
    half = x.shape[1] // 2
    if half < _BLOCK:
        return x @ x.mT
    a, b = x.split([half, x.shape[1] - half], 1)
    below = b @ a.mT
    return torch.cat([torch.cat([outer_product(a), below.mT], 2), torch.cat([below, outer_product(b)], 2)], 1)


def _powers(gram: Tensor) -> Tensor:
    """(n, c): vectors near the first eigenvectors; their lengths are at most, and about, the largest eigenvalues."""
    v = torch.randn(gram.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = v.to(gram).expand(len(gram), -1)[..., None]
    for _ in range(_STEPS):
        v = gram @ (v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(1e-300))
    return v.squeeze(2)


def _krylov(gram: Tensor, v: Tensor) -> Tensor:
    """A vector nearer to the first eigenvector, of which the length is at most the eigenvalue, and soon close to it."""
    basis = gram.new_zeros((min(_KRYLOV, len(gram)), len(gram)))
    basis[0] = v / torch.linalg.vector_norm(v).clamp_min(1e-300)
    size = 1
    for k in range(1, len(basis)):
        v = gram @ basis[k - 1]
        whole = torch.linalg.vector_norm(v)
        for _ in range(2):  # one projection leaves what was rounded
            v = v - basis[:k].mT @ (basis[:k].conj() @ v)
        length = torch.linalg.vector_norm(v)
        if length <= 1e-8 * whole:  # the space holds all that can be reached
            break
        basis[k], size = v / length, k + 1
    basis = basis[:size]
    values, vectors = torch.linalg.eigh(basis.conj() @ gram @ basis.mT)
    return (basis.mT @ vectors[:, -1]) * values[-1]
