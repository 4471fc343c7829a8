"""The exact Lipschitz constant of a tiny network of ReLUs: the largest Jacobian norm over its linear regions.

Regions are met by fixing neurons one after the other: on or off, where a linear programme finds an input for which
both the earlier choices and this one hold. Branches whose certified bound (the recursion of `covariance`, with
the fixed neurons known) is not above the best region so far are not entered. LECTURE row E6.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from danskin.errors import MissingError, ModelError
from danskin.lipschitz.barrier import solve
from danskin.lipschitz.bound import LipschitzBound, Norm
from danskin.lipschitz.chain import Chain
from danskin.lipschitz.covariance import Slopes, bound_squared, certified, fast, slopes_everywhere

_ROUNDED = 1e-7  # relative, of a bound near the edge of what can be factorised
THIN = 1e-9  # half-width of regions below which they are not told from none
ASSUMED = f"regions narrower than {2 * THIN:g} are taken as empty (the linear programmes' tolerance)"


@dataclass(frozen=True, eq=False)
class Exact:
    """Both sides of the constant; equal where the search ended within its budget.

    Args:
        lower: the Jacobian norm of a region, with two inputs in it as witness.
        upper: at most this anywhere.
        regions: that were entered to the last neuron.
        programmes: linear programmes solved.
    """

    lower: LipschitzBound
    upper: LipschitzBound
    regions: int
    programmes: int

    @property
    def closed(self) -> bool:
        """Whether the two sides agree, to rounding."""
        return self.upper.value <= self.lower.value * (1 + 1e-8) + 1e-300


@dataclass(frozen=True, eq=False)
class _Branch:
    """Choices so far: layers before `layer` are affine, h = map x + shift; of `layer`, `fixed` neurons are chosen.

    Args:
        layer: being chosen.
        map, shift: of the values before it.
        fixed: slopes of its first neurons.
        normals, offsets: a x + c >= 0 for each choice, a of length 1.
        x: a point inside.
    """

    layer: int
    map: Tensor
    shift: Tensor
    fixed: tuple[float, ...]
    normals: Tensor
    offsets: Tensor
    x: Tensor


def exact_by_regions(chain: Chain, *, norm: Norm = 2, budget_s: float = 60.0, known: float = 0.0) -> Exact:
    """The Lipschitz constant of a chain of ReLUs (or leaky ones, |x|, sorted pairs), by branch and bound over regions.

    Args:
        chain: with such activations only; time grows with the number of regions, like hidden neurons to the power
            of inputs.
        norm: 2 or "inf".
        budget_s: seconds after which the search ends; the upper side is then that of the open branches.
        known: a certified lower bound, which saves branches that are not above it; it becomes the lower side where
            no region is above.

    Raises:
        ModelError: other activations.
        MissingError: scipy is not installed.

    Lecture: E6.
    """
    leaks = [leak for i in range(len(chain.activations)) if (leak := chain.leaks(i)) is not None]
    if len(leaks) < len(chain.activations):
        names = {type(part.operation).__name__ for parts in chain.activations for part in parts}
        raise ModelError(
            "model: expected ReLU, LeakyReLU, |x| or sorted pairs only, as others have no linear regions, got "
            f"{', '.join(sorted(names))}; use LipSDP"
        )
    return _Search(chain, leaks, norm, known).run(budget_s)


class _Search:
    def __init__(self, chain: Chain, leaks: list[Tensor], norm: Norm, known: float) -> None:
        self.chain, self.leaks, self.norm, self.best = chain, leaks, norm, known
        self.witness: tuple[Tensor, Tensor] | None = None
        self.regions = self.programmes = 0
        self.ts: list[Tensor] = []  # of LipSDP's optimum: with fewer slopes they certify at most the same
        begin = fast(chain.weights, everywhere := slopes_everywhere(chain), norm)
        value = certified(chain.weights, everywhere, begin, norm)
        squared = value**2 / (chain.widths[0] if norm == "inf" else 1)
        solved = solve(chain.weights, everywhere, norm, begin, squared, time.perf_counter() + 5) if begin else None
        if solved is not None and solved.d is None:
            self.ts = solved.ts

    def run(self, budget_s: float) -> Exact:
        start, order, n = time.perf_counter(), itertools.count(), self.chain.widths[0]
        weight = self.chain.weights[0]
        eye, zero = torch.eye(n, dtype=weight.dtype), weight.new_zeros(n)
        root = _Branch(0, eye, zero, (), weight.new_zeros((0, n)), weight.new_zeros(0), zero + 1e-3)
        bound = self.bound(root)
        queue, top = [(-bound, next(order), root)], 0.0
        while queue and -queue[0][0] > self.best * (1 + 1e-10):
            if time.perf_counter() - start > budget_s:
                top = -queue[0][0]
                break
            bound, _, popped = heapq.heappop(queue)
            branch: _Branch | None = popped
            while branch is not None:  # dive along the witness: a region soon, and its norm prunes the others
                branch, other = self.split(branch)
                if other is not None and (limit := min(-bound, self.bound(other))) > self.best * (1 + 1e-10):
                    heapq.heappush(queue, (-limit, next(order), other))
                if branch is not None and self.bound(branch) <= self.best * (1 + 1e-10):
                    branch = None
        seconds, upper = time.perf_counter() - start, max(self.best * (1 + 1e-9), top)
        lower = LipschitzBound(
            self.best, "lower", "regions", self.norm, self.norm, seconds=seconds, witness=self.witness
        )
        both = replace(lower, value=upper, kind="upper", witness=None, assumptions=(ASSUMED,))
        return Exact(lower, both, self.regions, self.programmes)

    def split(self, branch: _Branch) -> tuple[_Branch | None, _Branch | None]:
        """The branch that goes on at its own point, and the one on the other side of the next neuron, if there is."""
        if branch.layer == len(self.leaks):  # no activation at all
            self.finish(branch)
            return None, None
        while len(branch.fixed) == len(self.chain.weights[branch.layer]):
            slopes = torch.tensor(branch.fixed, dtype=branch.map.dtype)
            w, b = self.chain.weights[branch.layer], self.chain.biases[branch.layer]
            after = slopes[:, None] * (w @ branch.map), slopes * (w @ branch.shift + b)
            branch = replace(branch, layer=branch.layer + 1, map=after[0], shift=after[1], fixed=())
            if branch.layer == len(self.leaks):
                self.finish(branch)
                return None, None
        w, b = self.chain.weights[branch.layer], self.chain.biases[branch.layer]
        row = w[len(branch.fixed)]
        normal, offset = row @ branch.map, float(row @ branch.shift + b[len(branch.fixed)])
        leak, size = float(self.leaks[branch.layer][len(branch.fixed)]), float(normal.norm())
        if size < 1e-13 or leak == 1:
            return replace(branch, fixed=(*branch.fixed, 1.0 if offset > 0 else leak)), None
        normal, offset = normal / size, offset / size
        on = float(normal @ branch.x) + offset > 0
        sign = 1.0 if on else -1.0
        here = self.narrowed(branch, sign * normal, sign * offset, on, branch.x)
        x = self.inside(branch, -sign * normal, -sign * offset)
        other = None if x is None else self.narrowed(branch, -sign * normal, -sign * offset, not on, x)
        return here, other

    def narrowed(self, branch: _Branch, normal: Tensor, offset: float, on: bool, x: Tensor) -> _Branch:
        slope = 1.0 if on else float(self.leaks[branch.layer][len(branch.fixed)])
        offsets = torch.cat([branch.offsets, branch.offsets.new_tensor([offset])])
        normals = torch.cat([branch.normals, normal[None]])
        return replace(branch, fixed=(*branch.fixed, slope), normals=normals, offsets=offsets, x=x)

    def inside(self, branch: _Branch, normal: Tensor, offset: float) -> Tensor | None:
        """The center of the largest ball (of radius 1 at most) where all choices hold; None where there is none."""
        try:
            from scipy.optimize import linprog
        except ImportError as error:
            raise MissingError("regions: expected scipy, which is not installed", "pip install scipy") from error
        self.programmes += 1
        a = torch.cat([branch.normals, normal[None]])
        c = torch.cat([branch.offsets, branch.offsets.new_tensor([offset])])
        n = a.shape[1]
        found = linprog(
            [0.0] * n + [-1.0], A_ub=torch.cat([-a, a.new_ones((len(a), 1))], 1).numpy(), b_ub=c.numpy(),
            bounds=[(None, None)] * n + [(None, 1.0)], method="highs",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )  # fmt: skip
        if found.x is None:
            return None if found.status == 2 else branch.x
        return a.new_tensor(found.x[:n]) if -found.fun > THIN else None

    def finish(self, branch: _Branch) -> None:
        """A region: its Jacobian is one matrix."""
        self.regions += 1
        jacobian = self.chain.weights[-1] @ branch.map
        if self.norm == "inf":
            sums = jacobian.abs().sum(1)
            value, direction = float(sums.max()), jacobian[int(sums.argmax())].sign()
        else:
            _, values, right = torch.linalg.svd(jacobian, full_matrices=False)
            value, direction = float(values[0]), right[0]
        if value > self.best:
            self.best = value
            room = float((branch.normals @ branch.x + branch.offsets).min()) if len(branch.normals) else 1.0
            other = branch.x + max(room, THIN) * 0.9 * direction / max(float(direction.norm()), 1e-300)
            self.witness = branch.x, other

    def bound(self, branch: _Branch) -> float:
        """At most the norm of any region of the branch."""
        chain, at = self.chain, branch.layer
        if at == len(self.leaks):
            return math.inf
        weights = [chain.weights[at] @ branch.map, *chain.weights[at + 1 :]]
        slopes = []
        for i in range(at, len(self.leaks)):
            middle, reach = 0.5 * (1 + self.leaks[i]), 0.5 * (1 - self.leaks[i]).abs()
            if i == at and branch.fixed:
                middle[: len(branch.fixed)] = middle.new_tensor(branch.fixed)
                reach[: len(branch.fixed)] = 0.0
            slopes.append(Slopes(middle, reach))
        with torch.no_grad():
            tried = [bound_squared(weights, slopes, fast(weights, slopes, self.norm), self.norm)]
            if self.ts:
                tried.append(bound_squared(weights, slopes, self.ts[at:], self.norm))
        value = min(math.sqrt(max(float(v), 0.0)) if v is not None else math.inf for v in tried) * (1 + _ROUNDED)
        return min(value, absolute(weights, slopes)) if self.norm == "inf" else value


def absolute(weights: list[Tensor], slopes: list[Slopes]) -> float:
    r"""Max row sum of |W_L| S_{L-1} ... S_1 |W_1|, S the largest slopes: an l_inf bound, never above the product's.

    The first layers whose slopes are known are multiplied out before absolute values are taken.
    """
    first, rest = weights[0], list(zip(slopes, weights[1:], strict=True))
    while rest and not bool((rest[0][0].reach > 0).any()):
        s, w = rest.pop(0)
        first = w @ (s.middle[:, None] * first)
    total = first.abs().sum(1)
    for s, w in rest:
        total = w.abs() @ (s.steepest * total)
    return float(total.max()) * (1 + 1e-9)
