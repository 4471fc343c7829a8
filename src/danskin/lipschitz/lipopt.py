r"""LiPopt: the l_inf constant of a small network as the maximum of a polynomial, bounded by a linear programme.

For one output, L = max of p(t, s) = w_L^T diag(s_{L-1}) W_{L-1} ... diag(s_1) W_1 t over t in [-1, 1]^n and slopes
s in [alpha, beta]: a polynomial of degree 1 in each variable. On the unit cube every
product of some variables and some (1 - variables) is >= 0 (Krivine; Sherali and Adams for such polynomials); level k
takes those with k factors, and the moments y of any distribution on the cube satisfy all of them. HiGHS solves it; the
value is corrected from the dual multipliers so that it holds whatever HiGHS rounds. LECTURE row E6.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from danskin.errors import InputError, MissingError
from danskin.lipschitz.bound import EVERYWHERE, LipschitzBound
from danskin.lipschitz.chain import Chain
from danskin.lipschitz.covariance import Slopes, slopes_everywhere

Monomial = tuple[int, ...]  # the variables in it, rising
Polynomial = dict[Monomial, float]
ROWS = 60_000  # of a programme, at most


def lipopt(
    chain: Chain, level: int | None = None, *, slopes: list[Slopes] | None = None, domain: str = EVERYWHERE
) -> LipschitzBound:
    """An upper bound of the l_inf Lipschitz constant; higher levels are tighter and much dearer.

    Args:
        chain: a small network; several outputs are bounded one by one.
        level: factors of a product, at least the number of hidden layers + 1; default: one more, if it is small.
        slopes: of the activations; default: for all inputs.
        domain: of the slopes, for the result.

    Raises:
        InputError: too low a level, or a programme that is too large.
        MissingError: scipy is not installed.

    Reference: Latorre, Rolland and Cevher, ICLR 2020, theorem 1 and section 4. Lecture: E6.
    """
    start = time.perf_counter()
    slopes = slopes_everywhere(chain) if slopes is None else slopes
    opens = sum(int((s.reach > 0).sum()) for s in slopes)
    variables, degree = chain.widths[0] + opens, len(chain.activations) + 1
    if level is None:
        level = min(variables, degree + 1 if rows_of(variables, degree + 1) <= ROWS // 4 else degree)
    if level < min(degree, variables):
        raise InputError(f"level: expected at least the polynomial's degree {degree}, got {level}; raise it")
    if rows_of(variables, level) > ROWS:
        raise InputError(
            f"lipopt: expected at most {ROWS} products, got {rows_of(variables, level)} for {variables} variables at "
            f"level {level}; lower the level or take a smaller network"
        )
    value = max(_maximum(gradient(chain, slopes, k), variables, level) for k in range(chain.widths[-1]))
    seconds = time.perf_counter() - start
    return LipschitzBound(value, "upper", f"LiPopt-{level}", "inf", "inf", domain, seconds=seconds)


def rows_of(variables: int, level: int) -> int:
    """How many products there are: the rows of the programme."""
    return math.comb(variables, min(level, variables)) * 2 ** min(level, variables)


def gradient(chain: Chain, slopes: list[Slopes], output: int) -> Polynomial:
    """The polynomial on the unit cube: t = 2 u - 1, and s = alpha + (beta - alpha) v for each neuron of open slope."""
    n = chain.widths[0]
    rows: list[Polynomial] = [{(i,): 2.0, (): -1.0} for i in range(n)]
    at = n
    for w, s in zip(chain.weights, slopes, strict=False):
        rows = [_combined(weights, rows) for weights in w.tolist()]
        bent = []
        for row, middle, reach in zip(rows, s.middle.tolist(), s.reach.tolist(), strict=True):
            made = {m: c * (middle - reach) for m, c in row.items()}
            if reach > 0:
                for m, c in row.items():
                    made[(*m, at)] = made.get((*m, at), 0.0) + 2 * reach * c
                at += 1
            bent.append(made)
        rows = bent
    return _combined(chain.weights[-1][output].tolist(), rows)


def _combined(weights: Iterable[float], rows: list[Polynomial]) -> Polynomial:
    total: Polynomial = defaultdict(float)
    for weight, row in zip(weights, rows, strict=True):
        for monomial, c in row.items():
            total[monomial] += weight * c
    return dict(total)


def _maximum(p: Polynomial, variables: int, level: int) -> float:
    """At least max p over the unit cube."""
    try:
        import numpy as np
        from scipy.optimize import linprog
        from scipy.sparse import csr_matrix
    except ImportError as error:
        raise MissingError("lipopt: expected scipy, which is not installed", "pip install scipy") from error
    level = min(level, variables)
    names = [m for k in range(level + 1) for m in itertools.combinations(range(variables), k)]
    place = {m: i for i, m in enumerate(names)}
    data, columns, starts = [], [], [0]
    for chosen in itertools.combinations(range(variables), level):
        for mask in range(2**level):
            kept = tuple(v for i, v in enumerate(chosen) if mask >> i & 1)
            turned = tuple(v for i, v in enumerate(chosen) if not mask >> i & 1)
            for k in range(len(turned) + 1):
                for some in itertools.combinations(turned, k):
                    columns.append(place[tuple(sorted((*kept, *some)))])
                    data.append(-1.0 if k % 2 else 1.0)
            starts.append(len(data))
    products = csr_matrix((data, columns, starts), shape=(len(starts) - 1, len(names)))
    target = np.zeros(len(names))
    for m, c in p.items():
        target[place[m]] = c
    constant, scale = target[0], max(1e-300, float(np.abs(target).max()))
    found: Any = linprog(
        -target[1:] / scale, A_ub=-products[:, 1:], b_ub=np.asarray(products[:, [0]].todense()).ravel(),
        bounds=[(None, None)] * (len(names) - 1), method="highs-ds",
    )  # fmt: skip
    if found.ineqlin is None or found.status != 0:
        return float(constant + np.abs(target[1:]).sum())
    # any multipliers >= 0 prove a bound: what is left over of the identity is at most the sum of its coefficients
    multipliers = np.maximum(-found.ineqlin.marginals, 0.0) * scale
    identity = target + products.T @ multipliers
    return float(identity[0] + np.abs(identity[1:]).sum()) * (1 + 1e-12)
