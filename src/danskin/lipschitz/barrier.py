r"""The optimum of LipSDP-neuron by Newton's method on a barrier, in plain torch.

In the variables xi = (x, w_1, ..., w_{L-1}) of `danskin.lipschitz.covariance` every z_j = <b_j, xi> and y = B xi are
linear, and the matrix inequality reads

    minimise sum_g rho_g   over rho, lambda:   M = sum_g rho_g E_g + sum_j lambda_j (e_j e_j^T - b_j b_j^T) - B^T B > 0,

with one rho for l2, and one for each input for l_inf. Its terms have rank two, so the gradient and Hessian of
-log det M cost one inverse S = M^-1 and a few products: H_jk = S_jk^2 - (S b_k)_j^2 - (S b_j)_k^2 + (b_j^T S b_k)^2.
A general interior-point solver does not know this. On the central path the value is within dim(M) / tau of the optimum.

Reference: Boyd and Vandenberghe, section 11.3 (barrier method). LECTURE row E6.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.lipschitz.bound import Norm
from danskin.lipschitz.covariance import Slopes

_GROWTH = 20.0  # of tau, once centred
_CENTRED = 0.05  # Newton decrement below which tau grows
_MOST = 200  # Newton steps


@dataclass(frozen=True, eq=False)
class Solved:
    """Where the method stopped.

    Args:
        ts: T of each activation, see `covariance`; for neurons of known slope 1.
        d: weights of the inputs for l_inf, else None.
        gap: the bound squared is at most this share above the optimum, by duality.
        steps: of Newton's method.
    """

    ts: list[Tensor]
    d: Tensor | None
    gap: float
    steps: int


@dataclass(frozen=True, eq=False)
class Program:
    """The matrices of the inequality.

    Args:
        rows: (N, n_0 + N) b_j of the neurons that are open.
        out: (outputs, n_0 + N) B.
        groups: (n_0, G) which rho each input has.
        opens: of each layer, places of the open neurons.
        widths: neurons of each layer.
    """

    rows: Tensor
    out: Tensor
    groups: Tensor
    opens: list[Tensor]
    widths: list[int]

    @staticmethod
    def of(weights: Sequence[Tensor], slopes: Sequence[Slopes], norm: Norm) -> Program:
        """Write out xi -> z and xi -> y."""
        n, opens = weights[0].shape[1], [(s.reach > 0).nonzero().flatten() for s in slopes]
        size = n + sum(len(o) for o in opens)
        like = weights[0]
        h, at, rows = torch.eye(n, size, dtype=like.dtype, device=like.device), n, []
        for w, s, o in zip(weights, slopes, opens, strict=False):
            z = w @ h
            rows.append(z[o])
            h = s.middle[:, None] * z
            h[o, torch.arange(at, at + len(o), device=o.device)] += s.reach[o]
            at += len(o)
        groups = like.new_ones((n, 1)) if norm == 2 else torch.eye(n, dtype=like.dtype, device=like.device)
        widths = [len(s.reach) for s in slopes]
        return Program(torch.cat(rows) if rows else like.new_zeros((0, size)), weights[-1] @ h, groups, opens, widths)

    def matrix(self, rho: Tensor, lam: Tensor) -> Tensor:
        """M."""
        diagonal = torch.cat([self.groups @ rho, lam])
        return torch.diag(diagonal) - (self.rows.T * lam) @ self.rows - self.out.T @ self.out


def solve(
    weights: Sequence[Tensor],
    slopes: Sequence[Slopes],
    norm: Norm,
    begin: Sequence[Tensor],
    squared: float,
    until: float,
    accuracy: float = 1e-5,
    d: Tensor | None = None,
) -> Solved | None:
    """Follow the central path from a certificate.

    Args:
        weights: W_1 ... W_L; for l_inf one output.
        slopes: of the activations.
        norm: 2 or "inf".
        begin: T of a certificate.
        squared: its L^2 (for l_inf over the sum of d).
        until: of `time.perf_counter`.
        accuracy: of the bound squared, relative.
        d: its weights of the inputs for l_inf; None for 1.

    Returns:
        None where no step could be taken.
    """
    if not squared > 0 or not math.isfinite(squared):
        return None
    with torch.no_grad():
        reduced = _reduced(weights) if norm == 2 else list(weights)
        size = 1.0 / math.sqrt(squared)
        program = Program.of([*reduced[:-1], reduced[-1] * size], slopes, norm)
        rho = program.groups.new_full((program.groups.shape[1],), 1.05)
        rho = rho if d is None or norm == 2 else rho * d
        lam = torch.cat([1 / t[o] for t, o in zip(begin, program.opens, strict=True)])
        found = _follow(program, rho, lam, until, accuracy)
        if found is None:
            return None
        rho, lam, gap, steps = found
        scale = rho.mean()
        parts = lam.split([len(o) for o in program.opens])
        ts = []
        for part, o, width in zip(parts, program.opens, program.widths, strict=True):
            t = part.new_ones(width)
            t[o] = scale / part
            ts.append(t)
    return Solved(ts, rho / scale if norm == "inf" else None, gap, steps)


def _reduced(weights: Sequence[Tensor]) -> list[Tensor]:
    """W_1 on the space that it sees: W_1 = R Q with orthonormal rows Q, where there are more inputs than neurons."""
    first = weights[0]
    if first.shape[1] <= first.shape[0]:
        return list(weights)
    return [torch.linalg.qr(first.T)[1].T, *weights[1:]]


def _follow(
    program: Program, rho: Tensor, lam: Tensor, until: float, accuracy: float
) -> tuple[Tensor, Tensor, float, int] | None:
    dim = program.rows.shape[1]
    value = _barrier(program, rho, lam)
    if value is None:
        return None
    tau, gap = dim / float(rho.sum()), math.inf
    for count in range(_MOST):
        if time.perf_counter() > until:
            return rho, lam, gap, count
        gradient, hessian = _derivatives(program, rho, lam)
        slope = gradient.clone()
        slope[: len(rho)] += tau
        move = _newton(hessian, slope)
        decrement = float(-(slope @ move))
        if not decrement > 0 or not math.isfinite(decrement):
            return rho, lam, gap, count
        if decrement < _CENTRED:
            gap = min(gap, (dim + math.sqrt(dim * decrement)) / tau / float(rho.sum()))
            if gap < accuracy:
                return rho, lam, gap, count
            tau *= _GROWTH
            continue
        length = 1.0 / (1.0 + math.sqrt(decrement)) if decrement > 0.25 else 1.0
        length, found = _search(program, rho, lam, move, tau, value, decrement, max(length, 1.0))
        if found is None:
            return rho, lam, gap, count
        rho, lam, value = rho + length * move[: len(rho)], lam + length * move[len(rho) :], found
    return rho, lam, gap, _MOST


def _newton(hessian: Tensor, slope: Tensor) -> Tensor:
    """The solution of H move = -slope, with H scaled to a unit diagonal."""
    scale = hessian.diagonal().clamp_min(1e-300).rsqrt()
    scaled = scale[:, None] * hessian * scale
    factor, info = torch.linalg.cholesky_ex(scaled)
    if int(info) != 0:
        scaled = scaled + 1e-10 * torch.eye(len(scale), dtype=scale.dtype, device=scale.device)
        factor, info = torch.linalg.cholesky_ex(scaled)
        if int(info) != 0:
            return torch.full_like(slope, math.nan)
    return -scale * torch.cholesky_solve((scale * slope)[:, None], factor)[:, 0]


def _search(
    program: Program, rho: Tensor, lam: Tensor, move: Tensor, tau: float, value: float, decrement: float, length: float
) -> tuple[float, float | None]:
    g, base = len(rho), tau * float(rho.sum()) + value
    for _ in range(40):
        tried_rho, tried_lam = rho + length * move[:g], lam + length * move[g:]
        tried = _barrier(program, tried_rho, tried_lam)
        if tried is not None and tau * float(tried_rho.sum()) + tried <= base - 0.1 * length * decrement + 1e-12:
            return length, tried
        length *= 0.5
    return length, None


def _barrier(program: Program, rho: Tensor, lam: Tensor) -> float | None:
    """-log det M, or None where M > 0 does not hold (lambda > 0 follows from it)."""
    factor, info = torch.linalg.cholesky_ex(program.matrix(rho, lam))
    return None if int(info) != 0 else -2 * float(factor.diagonal().log().sum())


def _derivatives(program: Program, rho: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of -log det M in (rho, lambda)."""
    n, groups = program.groups.shape[0], program.groups
    s = torch.cholesky_inverse(torch.linalg.cholesky(program.matrix(rho, lam)))
    sb = s @ program.rows.T  # (n_0 + N, N)
    bsb = program.rows @ sb
    gradient = -torch.cat([groups.T @ s.diagonal()[:n], s.diagonal()[n:] - bsb.diagonal()])
    cross = sb[n:].square()
    neurons = s[n:, n:].square() - cross - cross.T + bsb.square()
    mixed = groups.T @ (s[:n, n:].square() - sb[:n].square())
    inputs = groups.T @ s[:n, :n].square() @ groups
    return gradient, torch.cat([torch.cat([inputs, mixed], 1), torch.cat([mixed.T, neurons], 1)])
