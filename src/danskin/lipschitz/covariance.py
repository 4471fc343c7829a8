r"""The heart of LipSDP without a solver: certificates as a recursion of covariances.

Two inputs x, x' of a chain differ by dx; call z_i, h_i the differences of the inputs and outputs of activation i. Each
neuron has h = m z + r w with |w| <= |z|, from its slope range [m - r, m + r]. A symmetric matrix C is a *covariance*
of a difference d if |dx|^2 >= <d, C^-1 d> always (d in the range of C). Then:

    C_0 = I;   Z_i = W_i C_{i-1} W_i^T is one of z_i;
    for every diagonal T with T > Z_i on the neurons with r > 0 (J):
    C_i = M (Z + Z_J (T - Z)_JJ^-1 Z_J^T) M + R T R  is one of h_i,

because  <z, Z^-1 z> - sum T^-1 (z^2 - w^2)  (which adds no more than 0 to |dx|^2) is least over z, given h, at
<h, C_i^-1 h>. At the end L^2 <= largest eigenvalue of W_L C_{L-1} W_L^T. These are exactly the certificates of
LipSDP-neuron (Lambda = T^-1 R^-2): block elimination of its matrix inequality, with any slope range, and neurons of
known slope (r = 0) drop out. Every T that passes the Cholesky factorisation is one; nothing has to converge.

For l_inf the input gets weights: C_0 = diag(1 / d) and |dx|_inf^2 sum(d) >= <dx, D dx>, so
L^2 <= sum(d) max_k (W_L C W_L^T)_kk.

Reference: Fazlyab et al., NeurIPS 2019 (LipSDP); Xu and Sivaranjani, NeurIPS 2024 (ECLipsE, the elimination). The
form in T is ours. LECTURE row E6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.lipschitz.bound import Norm
from danskin.lipschitz.chain import Chain

ROUNDING = 4e-16  # of a factorisation of an n x n matrix, times n and its condition


@dataclass(frozen=True, eq=False)
class Slopes:
    """h = m z + r w with |w| <= |z|, for each neuron of a layer.

    Args:
        middle: (n,) m.
        reach: (n,) r >= 0.
    """

    middle: Tensor
    reach: Tensor

    @staticmethod
    def of(least: Tensor, most: Tensor) -> Slopes:
        """From the range of slopes."""
        reach = 0.5 * (most - least)
        tiny = reach <= 1e-10 * (1 + most.abs() + least.abs())  # a known slope, but for the margin of its rounding
        return Slopes(0.5 * (least + most), torch.where(tiny, 0.0, reach))

    @property
    def steepest(self) -> Tensor:
        """(n,): the largest absolute slope."""
        return self.middle.abs() + self.reach


def slopes_everywhere(chain: Chain) -> list[Slopes]:
    """Of all activations, for all inputs."""
    return [Slopes.of(*chain.slopes(i)) for i in range(len(chain.activations))]


def step(z: Tensor, slopes: Slopes, t: Tensor) -> Tensor | None:
    """C_i from Z_i (n, n) and T (n,); None where T > Z does not hold."""
    open_ = (slopes.reach > 0).nonzero().flatten()
    whole = len(open_) == len(t)
    block, columns = (z, z) if whole else (z[open_][:, open_], z[:, open_])
    gap = torch.diag(t if whole else t[open_]) - block
    factor, info = torch.linalg.cholesky_ex(gap)
    if int(info) != 0:
        return None
    half = torch.linalg.solve_triangular(factor, columns.T, upper=False)
    c = z + half.T @ half
    m = slopes.middle
    return m[:, None] * c * m + torch.diag(slopes.reach.square() * t)


def rescued(z: Tensor, slopes: Slopes, t: Tensor) -> Tensor:
    """T, enlarged until T > Z."""
    for power in range(60):
        if step(z, slopes, t) is not None:
            return t
        t = t * (1 + 1e-9 * 4.0**power)
    return torch.full_like(t, float("inf"))


def fast_multipliers(z: Tensor, slopes: Slopes) -> Tensor:
    r"""T = \|Z\| (1 + |m| / r): with it C <= \|Z\| (|m| + r)^2, the product bound's step, and often less.

    Reference: for ReLU this is ECLipsE-Fast (Xu and Sivaranjani, NeurIPS 2024, eq. 12).
    """
    size = torch.linalg.eigvalsh(z)[-1].clamp_min(1e-300)
    reach = torch.where(slopes.reach > 0, slopes.reach, 1.0)
    return size * (1 + (slopes.middle.abs() / reach).clamp(1e-6, 1e6)) * (1 + 1e-12)


def output(weights: Sequence[Tensor], c: Tensor, norm: Norm) -> Tensor:
    """L^2 / |d|_1: the largest eigenvalue, or diagonal entry, of W_L C W_L^T."""
    last = weights[-1] @ c @ weights[-1].T
    if norm == "inf":
        return last.diagonal().max()
    return last.squeeze() if len(last) == 1 else torch.linalg.eigvalsh(last)[-1]


def bound_squared(
    weights: Sequence[Tensor], slopes: Sequence[Slopes], ts: Sequence[Tensor], norm: Norm = 2, d: Tensor | None = None
) -> Tensor | None:
    """L^2 for multipliers T_1 ... T_{L-1}; None where they certify nothing. Differentiable in weights and T.

    Args:
        weights: W_1 ... W_L, float64.
        slopes: of the activations.
        ts: one (n_i,) for each activation.
        norm: 2 or "inf".
        d: (n_0,) weights of the inputs for l_inf; default: 1.
    """
    scale: Tensor | float = 1.0
    first = weights[0]
    if norm == "inf":
        d = torch.ones_like(first[0]) if d is None else d
        scale, first = d.sum(), first * d.rsqrt()
    if len(weights) == 1:
        product = first @ first.T
        return scale * (product.diagonal().max() if norm == "inf" else torch.linalg.eigvalsh(product)[-1])
    z: Tensor = first @ first.T
    c: Tensor | None = None
    for i, (s, t) in enumerate(zip(slopes, ts, strict=True)):
        if i:
            assert c is not None
            z = weights[i] @ c @ weights[i].T
        c = step(z, s, t)
        if c is None:
            return None
    assert c is not None
    return scale * output(weights, c, norm)


def certified(
    weights: Sequence[Tensor], slopes: Sequence[Slopes], ts: Sequence[Tensor], norm: Norm = 2, d: Tensor | None = None
) -> float:
    """L for multipliers, enlarged where they certify nothing, and by what factorisations may have rounded.

    The rounding of a Cholesky solve is about n times its condition: T is moved away from Z until that is small.
    """
    with torch.no_grad():
        repaired, error = repair(weights, slopes, ts, norm, d)
        squared = bound_squared(weights, slopes, repaired, norm, d)
    if squared is None or not math.isfinite(float(squared)):
        return math.inf
    return math.sqrt(max(float(squared), 0.0)) * (1 + max(1e-9, error))


def repair(
    weights: Sequence[Tensor], slopes: Sequence[Slopes], ts: Sequence[Tensor], norm: Norm, d: Tensor | None
) -> tuple[list[Tensor], float]:
    """Multipliers that certify, and a bound of the relative rounding of what they certify."""
    first = weights[0] if norm == 2 or d is None else weights[0] * d.rsqrt()
    c: Tensor | None = None
    out: list[Tensor] = []
    error = 0.0
    for i, (s, t) in enumerate(zip(slopes, ts, strict=True)):
        z = first @ first.T if c is None else weights[i] @ c @ weights[i].T
        z = 0.5 * (z + z.T)
        t = rescued(z, s, t)
        open_ = s.reach > 0
        if bool(open_.any()):
            scale = t[open_].rsqrt()  # the condition that counts is that of I - T^-1/2 Z T^-1/2
            gap = torch.eye(len(scale), dtype=z.dtype, device=z.device) - scale[:, None] * z[open_][:, open_] * scale
            least = float(torch.linalg.eigvalsh(gap)[0])
            if least < 1e-6:
                t = t * (1 + 1e-6 + max(0.0, -least))
                least = 1e-6
            error += len(t) * ROUNDING / least
        c = step(z, s, t)
        if c is None:
            return [*out, t, *ts[i + 1 :]], math.inf
        out.append(t)
    return out, error


def fast(weights: Sequence[Tensor], slopes: Sequence[Slopes], norm: Norm = 2, d: Tensor | None = None) -> list[Tensor]:
    """The multipliers of `fast_multipliers`, layer by layer."""
    first = weights[0] if norm == 2 or d is None else weights[0] * d.rsqrt()
    c: Tensor | None = None
    out = []
    with torch.no_grad():
        for i, s in enumerate(slopes):
            z = first @ first.T if c is None else weights[i] @ c @ weights[i].T
            t = rescued(z, s, fast_multipliers(z, s))
            out.append(t)
            c = step(z, s, t)
            assert c is not None
    return out


def last_covariance(weights: Sequence[Tensor], slopes: Sequence[Slopes], ts: Sequence[Tensor]) -> Tensor | None:
    """C of the last activations (n, n) for l2, enlarged by what may be rounded; None where none is certified."""
    with torch.no_grad():
        ts, error = repair(weights, slopes, ts, 2, None)
        if not error < 1e-3:
            return None
        c = None
        for i, (s, t) in enumerate(zip(slopes, ts, strict=True)):
            c = step(weights[i] @ (weights[i].T if c is None else c @ weights[i].T), s, t)
            if c is None:
                return None
    return None if c is None else c * (1 + max(1e-9, error)) ** 2
