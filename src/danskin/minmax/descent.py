r"""What x does with the maximisers y*: Danskin's theorem, used as it holds.

With f(x) = max over y in Y of Phi(x, y) and Y*(x) its maximisers, f has the directional derivative

    Df(x; d) = max over y* in Y*(x) of <d, grad_x Phi(x, y*)>,

and, where Phi is convex in x (Bertsekas' variant), its subdifferential is the convex hull of these
gradients. Only where the maximiser is unique is one of them the gradient. Minus the gradient at *one* of
several maximisers need not be a descent direction ("Corollary A.2" of Madry et al. is wrong); minus the
shortest vector of the hull is the steepest descent direction unless it is 0. Lecture: rows C2 and C3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.maximize import Maximizer
from danskin.minmax.problem import Problem
from danskin.minmax.random import Streams
from danskin.minmax.result import Maximum


def worst_case(problem: Problem, batch: Any, maximizer: Maximizer, generator: Streams | None = None) -> Maximum:
    """The inner half: y* as the maximiser finds it, inside the problem's guard."""
    with problem.guard():
        return maximizer(problem.adversary_payoff(batch), problem.start(batch), problem.feasible(batch), generator)


def danskin(
    problem: Problem, batch: Any, maximizer: Maximizer, generator: Streams | None = None
) -> tuple[Tensor, Maximum]:
    """The loss mean_i Phi_i(x, y_i*), ready for backward(), and how y* was found.

    Its gradient is taken at y* held fixed: the gradient of the max where y* is its only maximiser, and
    one of its generators elsewhere.
    """
    maximum = worst_case(problem, batch, maximizer, generator)
    return problem.payoff(batch, maximum.y).mean(), maximum


@dataclass(frozen=True, eq=False)
class Subdifferential:
    """The convex hull of the gradients at the maximisers.

    Args:
        generators: (k, n) grad_x Phi(x, y_j*), one row per maximiser.
    """

    generators: Tensor

    def directional_derivative(self, d: Tensor) -> Tensor:
        """Df(x; d) = max_j <d, g_j>, a scalar; d has n entries in any shape."""
        return (self.generators @ d.reshape(-1).to(self.generators)).max()

    def weights(self) -> Tensor:
        """(k,) convex weights of the shortest vector of the hull."""
        return min_norm_weights(self.generators @ self.generators.T)

    def shortest(self) -> Tensor:
        """(n,) the vector of the hull with the least l2 norm; 0 says that x is stationary."""
        return self.weights().to(self.generators) @ self.generators

    def contains(self, v: Tensor, tolerance: float = 1e-7) -> bool:
        """Whether v lies in the hull, up to `tolerance` in l2."""
        moved = Subdifferential(self.generators - v.reshape(1, -1).to(self.generators))
        return bool(moved.shortest().norm() <= tolerance)

    def descent_direction(self) -> Tensor:
        """(n,) the steepest descent direction, of length 1; 0 when there is none."""
        shortest = self.shortest()
        scale = self.generators.norm(dim=1).amax()
        return torch.zeros_like(shortest) if shortest.norm() <= 1e-7 * scale else -shortest / shortest.norm()


def subdifferential(
    phi: Callable[[Tensor, Any], Tensor], x: Tensor, ys: Sequence[Any] | Tensor, tolerance: float = 1e-6
) -> Subdifferential:
    """The subdifferential of max_y Phi(x, y) at x, from candidate maximisers.

    Args:
        phi: (x, y) -> scalar.
        x: any shape.
        ys: candidates; those whose value is within `tolerance` of the best are the maximisers.
        tolerance: 0 keeps exact ties only; a larger one gives the epsilon-active set.
    """
    if len(ys) == 0:
        raise InputError("subdifferential: expected at least one candidate y, got none; pass the maximisers")
    values, gradients = [], []
    for y in ys:
        point = x.detach().requires_grad_()
        with torch.enable_grad():
            value = phi(point, y)
        (g,) = torch.autograd.grad(value, point)
        values.append(value.detach())
        gradients.append(g.reshape(-1))
    best = torch.stack(values)
    return Subdifferential(torch.stack(gradients)[best >= best.max() - tolerance])


def directional_derivative(
    phi: Callable[[Tensor, Any], Tensor],
    x: Tensor,
    ys: Sequence[Any] | Tensor,
    d: Tensor,
    tolerance: float = 1e-6,
) -> Tensor:
    """Df(x; d) of f(x) = max_y Phi(x, y), from candidate maximisers (see `subdifferential`)."""
    return subdifferential(phi, x, ys, tolerance).directional_derivative(d)


def min_norm_weights(gram: Tensor) -> Tensor:
    r"""Argmin over the simplex of w' G w: the weights of the shortest vector in a convex hull.

    Wolfe's algorithm ("Finding the nearest point in a polytope", 1976): exact, in finitely many steps.

    Args:
        gram: (k, k) inner products of the generators.
    """
    G = gram.detach().to("cpu", torch.float64)
    G = G / G.diagonal().max().clamp_min(1e-300)  # the weights do not depend on the scale; the solver's cut-offs would
    k = len(G)
    w = torch.zeros(k, dtype=torch.float64)
    w[int(G.diagonal().argmin())] = 1.0
    for _ in range(50 * k):
        products = G @ w
        j = int(products.argmin())
        if float(w @ products) - float(products[j]) <= 1e-14:
            break
        support = (w > 0).nonzero().flatten()
        if j in support.tolist():
            break
        w = _affine_minimum(G, w, torch.cat([support, torch.tensor([j])]))
    return w.to(gram)


def _affine_minimum(G: Tensor, w: Tensor, support: Tensor) -> Tensor:
    """Wolfe's inner loop: go to the minimum over the affine hull, dropping corners that block the way."""
    while True:
        m = len(support)
        bordered = torch.ones(m + 1, m + 1, dtype=G.dtype)
        bordered[:m, :m] = G[support][:, support]
        bordered[m, m] = 0.0
        target = torch.zeros(m + 1, dtype=G.dtype)
        target[m] = 1.0
        v = torch.linalg.lstsq(bordered, target.unsqueeze(1), driver="gelsd").solution[:m, 0]
        old = w[support]
        new = torch.zeros_like(w)
        if bool((v > 1e-12).all()) or m == 1:
            new[support] = v.clamp_min(0) / v.clamp_min(0).sum()
            return new
        blocked = v <= 1e-12
        theta = (old / (old - v).clamp_min(1e-300))[blocked].min().clamp(0, 1)
        mixed = (1 - theta) * old + theta * v
        stay = mixed > 1e-12
        if bool(stay.all()):
            stay[int(mixed.argmin())] = False
        new[support] = torch.where(stay, mixed, 0.0)
        w, support = new, support[stay]
