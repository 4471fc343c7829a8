"""LipSDP through cvxpy, as its authors wrote it: the reference for our own method. Extra [sdp]. LECTURE row E6."""

from __future__ import annotations

import time
import warnings
from typing import Any, Literal

import torch

from danskin.errors import InputError, MissingError, ModelError
from danskin.lipschitz.bound import LipschitzBound
from danskin.lipschitz.chain import Chain
from danskin.lipschitz.covariance import certified, slopes_everywhere


def lipsdp_by_solver(
    chain: Chain, *, per: Literal["neuron", "layer"] = "neuron", solver: str = "CLARABEL"
) -> LipschitzBound:
    """LipSDP by a general interior-point solver, l2; the solver's answer is repaired into a certificate.

    Solvers meet constraints to a tolerance, so their optimum may be below L. Here only the multipliers are taken from
    them: the bound is computed from these as in `danskin.lipschitz.covariance`, with them enlarged until they certify.

    Args:
        chain: a network; seconds for 30 hidden neurons, a minute for 100.
        per: a multiplier for each neuron, or for each layer.
        solver: of cvxpy, CLARABEL or SCS.

    Raises:
        MissingError: cvxpy is not installed.
        ModelError: the solver failed.

    Reference: Fazlyab et al., NeurIPS 2019, theorem 2. Lecture: E6.
    """
    if per not in ("neuron", "layer"):
        raise InputError(
            f"per: expected neuron or layer, got {per!r}; LipSDP-network is not offered, as it is not a bound"
        )
    try:
        import cvxpy as cp
    except ImportError as error:
        raise MissingError("LipSDP: expected cvxpy, which is not installed", "pip install 'danskin[sdp]'") from error
    start = time.perf_counter()
    slopes = slopes_everywhere(chain)
    sizes = [len(s.reach) for s in slopes]
    count = sum(sizes)
    free = cp.Variable(count if per == "neuron" else len(sizes), nonneg=True)
    if per == "layer":
        spread = torch.zeros((count, len(sizes)))
        at = 0
        for i, size in enumerate(sizes):
            spread[at : at + size, i] = 1.0
            at += size
        multipliers: Any = spread.numpy() @ free
    else:
        multipliers = free
    rho = cp.Variable()
    problem = cp.Problem(cp.Minimize(rho), [_matrix(chain, rho, multipliers, cp) >> 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what follows is repaired, however accurate it is
        problem.solve(solver=solver)
    if rho.value is None:
        raise ModelError(f"LipSDP: expected a solution, got status {problem.status} of {solver}; try another solver")
    lam = torch.as_tensor(multipliers.value, dtype=torch.float64).clamp_min(1e-12 * max(float(rho.value), 1e-12))
    ts = [
        float(rho.value) / (part * torch.where(s.reach > 0, s.reach, 1.0).square())
        for part, s in zip(lam.split(sizes), slopes, strict=True)
    ]  # Lambda / rho = T^-1 R^-2
    value = certified(chain.weights, slopes, ts)
    return LipschitzBound(value, "upper", f"LipSDP-{per}, {solver.lower()}", seconds=time.perf_counter() - start)


def _matrix(chain: Chain, rho: Any, multipliers: Any, cp: Any) -> Any:
    """Rho E - sum of the constraints - B^T B in (x, h_1, ..., h_{L-1}), with slopes [alpha, beta]."""
    import numpy as np

    slopes = [chain.slopes(i) for i in range(len(chain.activations))]
    alpha = torch.cat([low for low, _ in slopes]).numpy()
    beta = torch.cat([high for _, high in slopes]).numpy()
    n, sizes = chain.widths[0], [len(low) for low, _ in slopes]
    count, total = sum(sizes), n + sum(sizes)
    a = np.zeros((count, total))  # (x, h) to all z
    row, column = 0, 0
    for w, size in zip(chain.weights[:-1], sizes, strict=True):
        a[row : row + size, column : column + w.shape[1]] = w.numpy()
        row, column = row + size, column + w.shape[1]
    b = np.eye(total)[n:]  # (x, h) to all h
    out = np.zeros((chain.widths[-1], total))
    out[:, column:] = chain.weights[-1].numpy()
    first = np.diag([1.0] * n + [0.0] * count)
    both = a.T @ cp.diag(cp.multiply(multipliers, alpha + beta)) @ b
    return (
        rho * first
        + a.T @ cp.diag(cp.multiply(multipliers, alpha * beta)) @ a
        + b.T @ cp.diag(multipliers) @ b
        - 0.5 * (both + both.T)
        - out.T @ out
    )
