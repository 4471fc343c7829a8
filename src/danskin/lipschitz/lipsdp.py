"""LipSDP without a solver: descent over certificates, every iterate of which is one. LECTURE row E6."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from danskin.lipschitz.barrier import solve
from danskin.lipschitz.bound import EVERYWHERE, LipschitzBound, Norm
from danskin.lipschitz.chain import Chain
from danskin.lipschitz.covariance import Slopes, bound_squared, certified, fast, repair, slopes_everywhere
from danskin.lipschitz.descend import descend

Per = Literal["neuron", "layer"]
NEWTON = 1500  # neurons and inputs up to which Newton's method is used
_TIED = 40  # steps with one multiplier a layer
OUTPUTS = 16  # for l_inf, up to which each output has multipliers of its own


def eclipse_fast(chain: Chain, norm: Norm = 2, slopes: Sequence[Slopes] | None = None) -> LipschitzBound:
    """A certificate in closed form, layer by layer: never above the product of the norms of the chain's matrices.

    Args:
        chain: a network.
        norm: 2 or "inf".
        slopes: of the activations; default: for all inputs.

    Reference: Xu and Sivaranjani, NeurIPS 2024 (ECLipsE-Fast), here for any range of slopes.
    """
    start = time.perf_counter()
    slopes = slopes_everywhere(chain) if slopes is None else slopes
    value = certified(chain.weights, slopes, fast(chain.weights, slopes, norm), norm)
    return LipschitzBound(value, "upper", "ECLipsE-Fast", norm, norm, seconds=time.perf_counter() - start)


def lipsdp(
    chain: Chain,
    *,
    norm: Norm = 2,
    per: Per = "neuron",
    steps: int = 400,
    budget_s: float = 10.0,
    slopes: Sequence[Slopes] | None = None,
    domain: str = EVERYWHERE,
) -> LipschitzBound:
    r"""Min over T of log L(T), from the point of ECLipsE-Fast on, by descent with backtracking.

    L(T) is `danskin.lipschitz.covariance.bound_squared`; a step that leaves the certificates (a Cholesky
    factorisation fails) is taken back, so the result is a certificate whenever it stops. The optimum over T is that of
    LipSDP-neuron. The variant "LipSDP-network" of the paper, which couples neurons, is not offered: it is invalid
    (Pauli et al., 2021; a counterexample is among the tests).

    Args:
        chain: a network, see `chain_of`.
        norm: 2 or "inf" (there the weights of the inputs are optimised too).
        per: a multiplier for each "neuron" or each "layer" (LipSDP-layer).
        steps: at most.
        budget_s: seconds, at most (but for one step).
        slopes: of the activations; default: for all inputs.
        domain: of the slopes, for the result.

    Reference: Fazlyab et al., NeurIPS 2019, theorem 2. Lecture: E6.
    """
    start = time.perf_counter()
    slopes = slopes_everywhere(chain) if slopes is None else list(slopes)
    value, _ = best_multipliers(chain.weights, slopes, norm, per, steps, start + budget_s)
    seconds = time.perf_counter() - start
    return LipschitzBound(value, "upper", f"LipSDP-{per}", norm, norm, domain, seconds=seconds)


def best_multipliers(
    weights: Sequence[Tensor], slopes: Sequence[Slopes], norm: Norm, per: Per, steps: int, until: float
) -> tuple[float, tuple[str, ...]]:
    """L of the best certificate found; for l_inf the largest over outputs, each with multipliers of its own."""
    if norm == "inf" and 1 < len(weights[-1]) <= OUTPUTS:
        each = []
        for k in range(len(weights[-1])):
            left = time.perf_counter() + (until - time.perf_counter()) / (len(weights[-1]) - k)
            each.append(best_multipliers([*weights[:-1], weights[-1][k : k + 1]], slopes, norm, per, steps, left))
        return max(value for value, _ in each), ()
    begin = fast(weights, slopes, norm)
    value = certified(weights, slopes, begin, norm)
    inputs = weights[0].shape[1] if norm == "inf" else min(weights[0].shape)
    size = sum(int((s.reach > 0).sum()) for s in slopes) + inputs
    if len(weights) == 1 or not 0 < value < float("inf"):
        return value, ()
    d: Tensor | None = None
    if per == "neuron":  # a multiplier for each layer is a good start, and never left for something worse
        soon = time.perf_counter() + 0.2 * (until - time.perf_counter())
        tied, weighted = optimized(weights, slopes, norm, "layer", _TIED, soon)
        found = certified(weights, slopes, tied, norm, weighted)
        if found < value:
            value = found
            begin, d = tied, weighted
    if per == "neuron" and size <= NEWTON:
        begin, _ = repair(weights, slopes, begin, norm, d)
        start = certified(weights, slopes, begin, norm, d)
        total = 1.0 if norm == 2 else float(weights[0].shape[1] if d is None else d.sum())
        solved = solve(weights, slopes, norm, begin, start**2 / total, until, d=d)
        if solved is not None:
            return min(value, certified(weights, slopes, solved.ts, norm, solved.d)), ()
    ts, d = optimized(weights, slopes, norm, per, steps, until, begin if norm == 2 else None)
    return min(value, certified(weights, slopes, ts, norm, d)), ()


def best_ts(weights: Sequence[Tensor], slopes: Sequence[Slopes], until: float) -> list[Tensor] | None:
    """The multipliers of LipSDP-neuron's optimum, or of where time ended; None where there are none to be had."""
    size = sum(int((s.reach > 0).sum()) for s in slopes) + min(weights[0].shape)
    begin = fast(weights, slopes)
    value = certified(weights, slopes, begin)
    if size > NEWTON or not 0 < value < float("inf"):
        return None
    solved = solve(weights, slopes, 2, begin, value**2, until)
    return None if solved is None else solved.ts


def optimized(
    weights: Sequence[Tensor],
    slopes: Sequence[Slopes],
    norm: Norm,
    per: Per,
    steps: int,
    until: float,
    begin: Sequence[Tensor] | None = None,
) -> tuple[list[Tensor], Tensor | None]:
    """The best multipliers that were found, and the weights of the inputs for l_inf."""
    if len(weights) == 1 and norm == 2:
        return [], None
    begin = fast(weights, slopes, norm) if begin is None else begin
    logs = [(t if per == "neuron" else t[:1]).log() + 1e-4 for t in begin]
    if per == "layer":
        logs = [torch.where(s.reach > 0, t, 0.0).max().view(1).log() + 1e-4 for s, t in zip(slopes, begin, strict=True)]
    sizes = [len(v) for v in logs]
    inputs = weights[0].shape[1] if norm == "inf" else 0
    theta = torch.cat([*logs, weights[0].new_zeros(inputs)])

    def parts(theta: Tensor) -> tuple[list[Tensor], Tensor | None]:
        *own, rest = theta.split([*sizes, inputs])
        ts = [v.exp().expand(len(s.reach)) for v, s in zip(own, slopes, strict=True)]
        return ts, rest.exp() if inputs else None

    def objective(theta: Tensor) -> Tensor | None:
        ts, d = parts(theta)
        squared = bound_squared(weights, slopes, ts, norm, d)
        return None if squared is None else 0.5 * squared.clamp_min(1e-300).log()

    with torch.enable_grad():
        theta = descend(objective, theta, steps, until)
    ts, d = parts(theta)
    return [t.detach() for t in ts], None if d is None else d.detach()


def lipsdp_penalty(
    weights: Sequence[Tensor], slopes: Sequence[Slopes], state: list[Tensor] | None = None, steps: int = 3
) -> tuple[Tensor, list[Tensor]]:
    """An upper bound of log L as a term of a training loss: differentiable in the weights.

    By Danskin's theorem its gradient is that of the bound at the best multipliers, held fixed. They are carried from
    step to step (`state`) and moved a little each time.

    Args:
        weights: W_1 ... W_L, (out, in), with gradients; any float dtype.
        slopes: of the activations, float64.
        state: what the last call gave; None at first.
        steps: of the descent over multipliers.

    Returns:
        log L, float64, to be minimised, and the state for the next call.

    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> half = torch.full((8,), 0.5, dtype=torch.float64)
    >>> value, state = lipsdp_penalty([net[0].weight, net[2].weight], [Slopes(half, half)])
    >>> value.backward()
    """
    wide = [w.double() for w in weights]
    fixed = [w.detach() for w in wide]
    begin = fast(fixed, slopes) if state is None else state
    begin, _ = repair(fixed, slopes, begin, 2, None)
    ts, _ = optimized(fixed, slopes, 2, "neuron", steps, float("inf"), begin)
    squared = bound_squared(wide, slopes, ts)
    if squared is None:  # the last step rounded itself out
        ts, _ = repair(fixed, slopes, ts, 2, None)
        squared = bound_squared(wide, slopes, ts)
    assert squared is not None
    return 0.5 * squared.log(), ts
