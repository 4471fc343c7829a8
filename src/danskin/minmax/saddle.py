"""Two players that both move: min over x, max over y of Phi(x, y) as an operator on z = (x, y)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.random import Streams
from danskin.minmax.sets import Set

#: z (batch, d) -> F(z) (batch, d); row i of the result depends on row i of z only.
Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Saddle:
    r"""A variational inequality: find z* in Z with <F(z*), z - z*> >= 0 for all z in Z.

    Of min over x, max over y of Phi(x, y) it is F(z) = (grad_x Phi, -grad_y Phi) with z = (x, y); its solutions are
    the first-order critical points. Of a convex-concave Phi they are the equilibria.

    Args:
        operator: F, (batch, d) -> (batch, d), row by row; made of torch operations, where a solver asks for its
            Jacobian.
        split: the first `split` coordinates of z are x, the others y.
        feasible: Z, a set of x times a set of y (`Product`, `Box`); None for all of space.
        payoff: Phi, (batch, d) -> (batch,), what x minimises; None where F is no gradient field.
        lipschitz: a constant L of F on Z, where one is known: what "1/L" in a step size means.
        lipschitz_l1: likewise from the l1 to the l_inf norm, "L1" in a step size: the one of entropic steps.
        bilinear: whether Phi is linear in x for each y and in y for each x: gaps are exact then.
        noisy: (z, streams) -> an estimate of F(z) that is right in the mean; the same streams are the same sample
            at any z. None: F itself.

    Lecture: row G1.
    """

    operator: Operator
    split: int
    feasible: Set | None = None
    payoff: Callable[[Tensor], Tensor] | None = None
    lipschitz: float | None = None
    lipschitz_l1: float | None = None
    bilinear: bool = False
    noisy: Callable[[Tensor, Streams], Tensor] | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """F(z)."""
        return self.operator(z)

    def sample(self, z: Tensor, streams: Streams) -> Tensor:
        """An estimate of F(z) with the sample that belongs to the streams; F(z) where there is no noise."""
        return self.operator(z) if self.noisy is None else self.noisy(z, streams)

    def project(self, z: Tensor) -> Tensor:
        """The nearest point of Z; z itself where Z is all of space."""
        return z if self.feasible is None else self.feasible.project(z)

    @staticmethod
    def of(payoff: Callable[[Tensor, Tensor], Tensor], split: int, feasible: Set | None = None, **more: Any) -> Saddle:
        """The saddle of any differentiable payoff, whose gradients autograd takes.

        Args:
            payoff: (x (batch, split), y (batch, d - split)) -> Phi (batch,), row by row.
            split: dimension of x.
            feasible: as in the class.
            more: `lipschitz`, `bilinear`, `noisy` of the class.

        >>> import torch
        >>> hyperbola = Saddle.of(lambda x, y: (x * y).sum(1), split=1)
        >>> hyperbola(torch.tensor([[2.0, 3.0]]))
        tensor([[ 3., -2.]])
        """

        def value(z: Tensor) -> Tensor:
            return payoff(z[:, :split], z[:, split:])

        return Saddle(Gradients(value, split), split, feasible, value, **more)


@dataclass(frozen=True, eq=False)
class Gradients:
    """F(z) = (grad_x Phi, -grad_y Phi) of a payoff, by autograd; differentiable itself where gradients are on."""

    payoff: Callable[[Tensor], Tensor]
    split: int

    def __call__(self, z: Tensor) -> Tensor:
        """F(z)."""
        further = torch.is_grad_enabled() and z.requires_grad
        with torch.enable_grad():
            point = z if further else z.detach().requires_grad_()
            value = self.payoff(point)
            if value.shape != (len(z),):
                raise InputError(
                    f"payoff: expected one value for each of {len(z)} rows, shape ({len(z)},), got "
                    f"{tuple(value.shape)}; sum over the coordinates of a row, not over rows"
                )
            (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=further)
        return flip(gradient, self.split)


def flip(gradient: Tensor, split: int) -> Tensor:
    """(grad_x, grad_y) -> (grad_x, -grad_y)."""
    return torch.cat([gradient[:, :split], -gradient[:, split:]], 1)


def pull_back(F: Operator, z: Tensor, v: Tensor) -> Tensor:
    """J(z)^T v row by row, with J the Jacobian of F: one evaluation of F and one backward pass."""
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        value = F(point)
        if not value.requires_grad:  # F does not depend on z
            return torch.zeros_like(z)
        (out,) = torch.autograd.grad(value, point, v, allow_unused=True)
    return torch.zeros_like(z) if out is None else out


def jacobian(F: Operator, z: Tensor) -> Tensor:
    """(batch, d, d): row i of J is the gradient of F_i; one evaluation of F and d backward passes."""
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        value = F(point)
        if not value.requires_grad:
            return z.new_zeros(*z.shape, z.shape[1])
        rows = [torch.autograd.grad(part.sum(), point, retain_graph=True)[0] for part in value.unbind(1)]
    return torch.stack(rows, 1)
