"""SeqLip: the network's norm split between adjacent layers, each pair maximised over all slopes. LECTURE row E6."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.lipschitz.bound import LipschitzBound
from danskin.lipschitz.chain import Chain

EXACT = 16  # neurons of a layer up to which all 2^n patterns are tried
_BATCH = 4096


def seqlip(chain: Chain, *, exact: bool = True) -> LipschitzBound:
    r"""prod_i max over s in [alpha, beta]^n of |S'_{i+1} V_{i+1}^T diag(s) U_i S'_i|, with W_i = U_i S_i V_i^T.

    S' is S at both ends and its root between. The norm is convex in s, so the maximum is at a corner: `exact` tries
    them all, and the result is an upper bound of L. Else corners are changed one by one while that helps, which finds
    a lower bound of this upper bound: an *estimate*, no certificate. l2 only. Not ordered against LipSDP.

    Args:
        chain: a network.
        exact: all corners of every layer, at most 16 neurons each.

    Raises:
        InputError: `exact` for a layer that is too wide.

    Reference: Virmaux and Scaman, NeurIPS 2018, section 4. Lecture: E6.
    """
    start = time.perf_counter()
    widest = max(chain.widths[1:-1], default=0)
    if exact and widest > EXACT:
        raise InputError(
            f"seqlip: expected layers of at most {EXACT} neurons for all 2^n patterns, got {widest}; use exact=False "
            "for an estimate"
        )
    factors = [torch.linalg.svd(w, full_matrices=False) for w in chain.weights]
    value = float(factors[0][1][0]) if not chain.activations else 1.0
    last = len(chain.activations) - 1
    for i in range(last + 1):
        (u, s, _), (_, s_next, v_next) = factors[i], factors[i + 1]
        right = u * (s if i == 0 else s.sqrt())
        left = (s_next if i == last else s_next.sqrt())[:, None] * v_next
        low, high = chain.slopes(i)
        value *= _all(left, right, low, high) if exact else _greedy(left, right, low, high)
    seconds = time.perf_counter() - start
    if exact:
        return LipschitzBound(value * (1 + 1e-9), "upper", "SeqLip", seconds=seconds)
    return LipschitzBound(value, "estimate", "SeqLip, greedy", seconds=seconds)


def _norms(left: Tensor, right: Tensor, s: Tensor) -> Tensor:
    """(n,): the norms of left diag(s) right for s (n, neurons)."""
    product = (left[None] * s[:, None, :]) @ right
    if min(product.shape[1:]) == 1:
        return torch.linalg.vector_norm(product.flatten(1), dim=1)
    gram = product @ product.mT if product.shape[1] <= product.shape[2] else product.mT @ product
    return torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0).sqrt()


def _all(left: Tensor, right: Tensor, low: Tensor, high: Tensor) -> float:
    n, best = len(low), 0.0
    places = torch.arange(n, device=low.device)
    for some in torch.arange(2**n, device=low.device).split(_BATCH):
        on = (some[:, None] >> places) & 1
        best = max(best, float(_norms(left, right, torch.where(on.bool(), high, low)).max()))
    return best


def _greedy(left: Tensor, right: Tensor, low: Tensor, high: Tensor) -> float:
    """Change the best coordinate until none helps; from all on, all off, and the sign of the first singular vector."""
    best = 0.0
    lead = (left @ right).flatten(1)
    vector = torch.linalg.svd(lead)[2][0] if lead.numel() else lead.new_zeros(right.shape[1])
    for s in (high.clone(), torch.where(right @ vector > 0, high, low)):
        value = float(_norms(left, right, s[None]))
        while True:
            flips = s.expand(len(s), -1).clone()
            flips.diagonal().copy_(torch.where(s == high, low, high))
            found = torch.cat([_norms(left, right, part) for part in flips.split(256)])
            at = int(found.argmax())
            if not float(found[at]) > value * (1 + 1e-12) or not math.isfinite(float(found[at])):
                break
            s, value = flips[at], float(found[at])
        best = max(best, value)
    return best
