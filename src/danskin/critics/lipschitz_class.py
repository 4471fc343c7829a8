"""Distances whose critics are Lipschitz functions, by linear programme: Kantorovich's W1, Dudley, Fortet-Mourier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from danskin.critics.ipm import Witness
from danskin.critics.samples import Samples, samples
from danskin.errors import InputError
from danskin.minmax import Template

_MOST = 400_000  # pairs: HiGHS then takes a minute or so


@dataclass(frozen=True)
class Potential:
    r"""F(z) = clip(min_j g_j + slope \|z - y_j\|_p, -ceiling, ceiling): slope-Lipschitz whatever g is (McShane 1934).

    Args:
        anchors: (m, d) float64, the y_j.
        values: (m,) float64, the g_j.
        slope: >= 0.
        ceiling: > 0, may be infinite.
        p: of the norm of the points.
    """

    anchors: Tensor
    values: Tensor
    slope: float
    ceiling: float
    p: float

    def __call__(self, z: Tensor) -> Tensor:
        """(k, ...) points to (k,) values, float64."""
        z = z.to(self.anchors).reshape(len(z), -1)
        apart = ground(z, self.anchors, self.p)
        return (self.values + self.slope * apart).amin(1).clamp(-self.ceiling, self.ceiling)


def ground(x: Tensor, y: Tensor, p: float) -> Tensor:
    r"""(n, m): \|x_i - y_j\|_p, from differences, with gradient 0 where points meet."""
    return torch.cdist(x, y, float(p), compute_mode="donot_use_mm_for_euclid_dist")


def check_norm(p: float, who: str) -> None:
    """Refuse a norm that is not l1, l2 or l_inf.

    Raises:
        InputError: see above.
    """
    if p not in (1, 2, math.inf):
        raise InputError(f"{who}.p: expected 1, 2 or inf, got {p!r}; it is the norm that distances are measured in")


@dataclass(frozen=True, eq=False)
class Optimum:
    """A solved programme.

    Args:
        f: (n,) the critic at x.
        g: (m,) the critic at y.
        slope: its Lipschitz constant.
        ceiling: its largest modulus.
        plan: (n, m) multipliers of f_i - g_j <= slope d_ij, >= 0: what mass goes from x_i to y_j.
    """

    f: Tensor
    g: Tensor
    slope: float
    ceiling: float
    plan: Tensor


class _ByProgramme:
    """What the three share; a class says its own set of (slope, ceiling).

    max sum_i a_i f_i - sum_j b_j g_j over f_i - g_j <= L d_ij, |f|, |g| <= s. Pairs of one x and one y are enough:
    the McShane extension of g from the y_j lies above f at the x_i and at most g at the y_j.
    """

    p: float
    together: ClassVar[bool]  # L + s <= 1 in place of L <= 1, s <= most
    most: ClassVar[float]
    moves: ClassVar[str] = "linear programme"

    def __post_init__(self) -> None:
        check_norm(self.p, type(self).__name__)

    def value(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        """The distance; differentiable in points (through the plan) and in weights (through the potentials).

        Raises:
            InputError: samples that cannot be used, or more than 400,000 pairs of points.
        """
        s = samples(x, y, a, b)
        best = self._solved(s)
        apart = ground(s.x, s.y, self.p)
        paid = (best.plan * (apart - apart.detach())).sum() * best.slope
        moved = (s.a - s.a.detach()) @ best.f - (s.b - s.b.detach()) @ best.g
        earned = s.a.detach() @ best.f - s.b.detach() @ best.g
        return earned.clamp_min(0) + paid + moved  # rounding may leave -1e-18 in place of 0

    def witness(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Witness:
        """The optimal critic on the whole space (`Potential`), in the class to the last bit of slope and ceiling."""
        s = samples(x, y, a, b)
        return self._potential(s, self._solved(s))

    def lower_bound(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> float:
        """What the witness earns, which does not rest on the tolerances of the solver."""
        s = samples(x, y, a, b)
        f = self._potential(s, self._solved(s))
        at_x, at_y = f(s.x), f(s.y)
        size = float(at_x.abs().amax() + at_y.abs().amax())
        return max(float(s.gap(at_x, at_y).detach()) - 1e-13 * size, 0.0)

    def _potential(self, s: Samples, best: Optimum) -> Potential:
        slope, ceiling = best.slope, best.ceiling
        if self.together:
            slope = min(slope, 1.0)
            ceiling = 1 - slope
        return Potential(s.y.detach(), best.g, slope, ceiling, self.p)

    def _solved(self, s: Samples) -> Optimum:
        n, m = len(s.x), len(s.y)
        if n * m > _MOST:
            raise InputError(
                f"{type(self).__name__}: expected at most {_MOST} pairs of points, got {n} x {m}; take fewer, or "
                "danskin.transport.wasserstein for W1"
            )
        apart = ground(s.x.detach(), s.y.detach(), self.p).cpu().numpy()
        # the tolerances of the solver are absolute: it is given distances of about 1
        unit = min(float(apart.max()), max(self.most, 1.0)) or 1.0
        if not self.together:  # L = 1, and the constant is what moves both masses' potentials into [-most, most]
            return _fixed(apart / unit, s, self.most, unit)
        return _free(apart / unit, s, unit)


def _pairs(n: int, m: int):  # type: ignore[no-untyped-def]
    """The sparse (n m, n + m) matrix of f_i - g_j, row by row."""
    from scipy import sparse

    rows = np.arange(n * m)
    ones = np.ones(n * m)
    entries = (
        np.concatenate([ones, -ones]),
        (
            np.concatenate([rows, rows]),
            np.concatenate([rows // m, n + rows % m]),
        ),
    )
    return sparse.csr_matrix(entries, shape=(n * m, n + m))


def _fixed(apart: np.ndarray, s: Samples, most: float, unit: float) -> Optimum:
    """L = 1 and |f|, |g| <= most, f, g and distances in units."""
    n, m = apart.shape
    bounds = (-most / unit, most / unit) if math.isfinite(most) else (None, None)
    found, plan = _highs(-s.signed.detach().cpu().numpy(), _pairs(n, m), apart.reshape(-1), bounds)
    return _optimum(found * unit, plan, 1.0, most, s)


def _free(apart: np.ndarray, s: Samples, unit: float) -> Optimum:
    """L + s <= 1, both variables; f, g, s and distances in units."""
    from scipy import sparse

    n, m = apart.shape
    cross = sparse.hstack([_pairs(n, m), -sparse.csr_matrix(apart.reshape(-1, 1)), sparse.csr_matrix((n * m, 1))])
    eye, none, one = sparse.eye(n + m), sparse.csr_matrix((n + m, 1)), np.ones((n + m, 1))
    both = sparse.vstack([sparse.hstack([eye, none, -one]), sparse.hstack([-eye, none, -one])])
    budget = sparse.csr_matrix(np.concatenate([np.zeros(n + m), [1.0, unit]])[None])
    matrix = sparse.vstack([cross, both, budget]).tocsr()
    limits = np.concatenate([np.zeros(n * m + 2 * (n + m)), [1.0]])
    aims = np.concatenate([-s.signed.detach().cpu().numpy(), [0.0, 0.0]])
    bounds = [(None, None)] * (n + m) + [(0, None)] * 2
    found, plan = _highs(aims, matrix, limits, bounds)
    slope = float(min(max(found[-2], 0.0), 1.0))
    return _optimum(found * unit, plan[: n * m], slope, 1 - slope, s)


def _highs(aims, matrix, limits, bounds):
    """Minimise by HiGHS: (variables, multipliers >= 0)."""
    from scipy.optimize import linprog

    for tolerance in (1e-10, 1e-7):  # the least that HiGHS takes, which it does not always reach, and its own
        options = {f"{of}_feasibility_tolerance": tolerance for of in ("primal", "dual")}
        result = linprog(aims, A_ub=matrix, b_ub=limits, bounds=bounds, method="highs", options=options)
        if result.status == 0:
            break
    else:
        raise InputError(f"linear programme: expected an optimum, got: {result.message}; rescale the points")
    return result.x, -result.ineqlin.marginals


def _optimum(found: np.ndarray, plan: np.ndarray, slope: float, ceiling: float, s: Samples) -> Optimum:
    n, m = len(s.x), len(s.y)
    f, g, moved = (torch.as_tensor(t.copy()).to(s.x) for t in (found[:n], found[n : n + m], plan))
    return Optimum(f, g, slope, ceiling, moved.clamp_min(0).view(n, m))


@dataclass(frozen=True)
class Kantorovich(_ByProgramme):
    r"""W1(mu, nu) = sup of E_mu f - E_nu f over f with |f(z) - f(z')| <= \|z - z'\|_p: its dual, as a linear programme.

    Prefer `danskin.transport.wasserstein` for more than a few hundred points.

    Args:
        p: 1, 2 or inf, the norm of the points.

    Reference: Kantorovich and Rubinstein 1958. Lecture: E4, E5.

    >>> round(float(Kantorovich().value(torch.zeros(2, 1), torch.ones(1, 1))), 9)
    1.0
    """

    together: ClassVar[bool] = False
    most: ClassVar[float] = math.inf
    template: ClassVar[Template] = Template("-", "a function", "1-Lipschitz functions", "E_mu f - E_nu f")

    p: float = 2


@dataclass(frozen=True)
class FortetMourier(_ByProgramme):
    r"""sup of E_mu f - E_nu f over f with Lipschitz constant <= 1 and |f| <= 1. At most W1, and at most 2 TV.

    It is W1 of the metric min(\|z - z'\|_p, 2), and metrises convergence in law.

    Args:
        p: 1, 2 or inf, the norm of the points.

    Reference: Fortet and Mourier 1953; Dudley, Real Analysis and Probability, section 11.3. Lecture: E5.
    """

    together: ClassVar[bool] = False
    most: ClassVar[float] = 1.0
    template: ClassVar[Template] = Template("-", "a function", "1-Lipschitz functions, at most 1", "E_mu f - E_nu f")

    p: float = 2


@dataclass(frozen=True)
class Dudley(_ByProgramme):
    r"""sup of E_mu f - E_nu f over f with Lipschitz constant + sup |f| <= 1: the bounded Lipschitz (Dudley) metric.

    Between half of Fortet-Mourier and the whole of it.

    Args:
        p: 1, 2 or inf, the norm of the points.

    Reference: Dudley, Real Analysis and Probability, section 11.3. Lecture: E5.
    """

    together: ClassVar[bool] = True
    most: ClassVar[float] = 1.0
    template: ClassVar[Template] = Template("-", "a function", "constant + largest value <= 1", "E_mu f - E_nu f")

    p: float = 2
