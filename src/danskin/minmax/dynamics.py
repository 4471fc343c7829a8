"""Both players move: gradient descent-ascent, extragradient, optimistic and past steps, mirror descent and mirror-prox.

A solver is a frozen dataclass with the pure functions ``begin(saddle, z, streams)`` and ``step(saddle, state)``. All
work row by row: a thousand starts are one batch. F(z) = (grad_x Phi, -grad_y Phi), P projects on Z, eta is `step_size`.
Those for problems without monotonicity are in `danskin.minmax.weak_minty`, those around another solver in
`danskin.minmax.anchored`. Lecture: row G1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.number import Number, number
from danskin.minmax.problem import Template
from danskin.minmax.product import mirror
from danskin.minmax.random import Streams
from danskin.minmax.rows import PerRow
from danskin.minmax.saddle import Saddle, pull_back
from danskin.minmax.sets import rowwise

#: Who is who for all solvers.
PLAYERS = Template("first player", "second player", "its set", "payoff of the game")


@dataclass(frozen=True, eq=False)
class State:
    """Where a solver is.

    Args:
        z: (batch, d) the iterate.
        t: steps made.
        memory: what the solver keeps, (batch, d) each.
        streams: of random numbers, one per row; None without noise.
        ahead: (batch, d) the point whose average converges, where it is not z.
    """

    z: Tensor
    t: int = 0
    memory: tuple[Tensor, ...] = ()
    streams: Streams | None = None
    ahead: Tensor | None = None

    def moved(self, z: Tensor, *memory: Tensor, ahead: Tensor | None = None) -> State:
        """One step later."""
        return replace(self, z=z, t=self.t + 1, memory=memory, ahead=ahead)

    def streams_of(self, k: int) -> Streams | None:
        """The streams of the k-th sample of this step."""
        return None if self.streams is None else self.streams.child(self.t).child(k)


@runtime_checkable
class Solver(Protocol):
    """What moves both players."""

    @property
    def calls(self) -> float:
        """How many evaluations of F one step costs."""
        ...

    def begin(self, saddle: Saddle, z: Tensor, streams: Streams | None = None) -> State:
        """The state before the first step; z (batch, d) is projected on Z."""
        ...

    def step(self, saddle: Saddle, state: State) -> State:
        """The state one step later; the one given is left as it is."""
        ...


def resolve_step(value: Number, saddle: Saddle, t: int, z: Tensor, who: str) -> Any:
    """A step size as a number, or as (batch, 1): a number, one per row, or a text in t (steps made), L and L1.

    Raises:
        InputError: it is not a number above 0, or needs a Lipschitz constant that is not known.
    """
    if isinstance(value, str):
        known = {"t": t, "L": saddle.lipschitz, "L1": saddle.lipschitz_l1}
        missing = [name for name in ("L1", "L") if known[name] is None and re.search(rf"\b{name}\b", value)]
        if missing:
            raise InputError(
                f"{who}.step_size: expected a number, got {value!r}: no {missing[0]} is known of this F; give a step "
                "such as 0.01"
            )
        value = number(value, **known)
    if isinstance(value, Tensor):
        return rowwise(value, z)
    if isinstance(value, str) or not value > 0:
        raise InputError(f"{who}.step_size: expected a number above 0, got {value!r}; take a share of 1/L")
    return value


def estimate(saddle: Saddle, state: State, z: Tensor, k: int) -> Tensor:
    """F(z), or the k-th sample of it in this step where F is noisy."""
    streams = state.streams_of(k)
    return saddle(z) if streams is None else saddle.sample(z, streams)


@dataclass(frozen=True)
class _Stepping(PerRow):
    """What the solvers of this file share: a step size, and a start without memory."""

    template: ClassVar[Template] = PLAYERS
    calls: ClassVar[float] = 1

    step_size: Number = "1/L"

    def eta(self, saddle: Saddle, state: State) -> Any:
        """The step size at a state."""
        return resolve_step(self.step_size, saddle, state.t, state.z, type(self).__name__)

    def begin(self, saddle: Saddle, z: Tensor, streams: Streams | None = None) -> State:
        """The state before the first step."""
        return State(saddle.project(z), 0, (), streams)


@dataclass(frozen=True)
class GDA(_Stepping):
    """Simultaneous gradient descent-ascent: z+ = P(z - eta F(z)).

    On the bilinear game it diverges for every step: the distance to the equilibrium grows by sqrt(1 + eta^2) a step.
    Prefer `Extragradient`. Lecture: row G1.
    """

    moves: ClassVar[str] = "both at once, one gradient step each"

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        z = state.z
        return state.moved(saddle.project(z - self.eta(saddle, state) * estimate(saddle, state, z, 0)))


@dataclass(frozen=True)
class AlternatingGDA(_Stepping):
    """Alternating gradient descent-ascent: x+ = P(x - eta grad_x Phi(x, y)), then y+ = P(y + eta grad_y Phi(x+, y)).

    On the bilinear game it stays bounded and its average converges. Needs Z to be a product. Lecture: row G1.
    """

    moves: ClassVar[str] = "in turn, one gradient step each"
    calls: ClassVar[float] = 2  # of which half is used each time

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        z, eta, n = state.z, self.eta(saddle, state), saddle.split
        first = z - eta * estimate(saddle, state, z, 0)
        z = saddle.project(_joined(first, z, n))
        second = z - eta * estimate(saddle, state, z, 1)
        return state.moved(saddle.project(_joined(z, second, n)))


@dataclass(frozen=True)
class Extragradient(_Stepping):
    """Extragradient (Korpelevich 1976): w = P(z - eta F(z)), z+ = P(z - eta F(w)); Euclidean mirror-prox.

    Converges for monotone F with eta < 1 / L; on the bilinear game the squared distance shrinks by
    (1 - eta^2)^2 + eta^2 a step. Step size at most 1 / L. Lecture: row G1.
    """

    moves: ClassVar[str] = "both at once, by the gradient one step ahead"
    calls: ClassVar[float] = 2

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        z, eta = state.z, self.eta(saddle, state)
        ahead = saddle.project(z - eta * estimate(saddle, state, z, 0))
        return state.moved(saddle.project(z - eta * estimate(saddle, state, ahead, 1)), ahead=ahead)


@dataclass(frozen=True)
class OptimisticGDA(_Stepping):
    """Optimistic gradient descent-ascent: z+ = P(z - 2 eta F(z) + eta F(z-)), z- the iterate before.

    One new gradient a step. The first step has no z- and is that of GDA. Step size at most 1 / (2 L).
    Reference: Daskalakis et al., ICLR 2018, eq. (3). Lecture: row G1.
    """

    moves: ClassVar[str] = "both at once, twice the gradient less the last one"

    step_size: Number = "0.5/L"

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        z, value = state.z, estimate(saddle, state, state.z, 0)
        before = state.memory[0] if state.memory else value
        return state.moved(saddle.project(z - self.eta(saddle, state) * (2 * value - before)), value)


@dataclass(frozen=True)
class PastExtragradient(_Stepping):
    """Past extragradient (Popov 1980): w = P(z - eta F(w-)), z+ = P(z - eta F(w)), w- the point ahead of before.

    One new gradient a step: the look ahead uses the gradient kept from before (the first one is F at the start). In all
    of space its points w are the iterates of `OptimisticGDA`. Step size at most 1 / (2 L). Lecture: row G1.
    """

    moves: ClassVar[str] = "both at once, by the gradient one step ahead, looked at with the last one"

    step_size: Number = "0.5/L"

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        z, eta = state.z, self.eta(saddle, state)
        before = state.memory[0] if state.memory else estimate(saddle, state, z, 0)
        value = estimate(saddle, state, saddle.project(z - eta * before), 1)
        return state.moved(saddle.project(z - eta * value), value)


@dataclass(frozen=True)
class Consensus(_Stepping):
    r"""Consensus optimisation: z+ = P(z - eta (F(z) + weight J(z)^T F(z))), J the Jacobian of F.

    The second term is the gradient of \|F\|^2 / 2, whose critical points can attract although F is not 0 there.
    Reference: Mescheder, Nowozin and Geiger, NeurIPS 2017. Lecture: row G1.

    Args:
        step_size: eta; with L about 1 / (L (1 + weight L)) is safe.
        weight: of the second term.
    """

    moves: ClassVar[str] = "both at once, the gradient and that of its squared norm"
    calls: ClassVar[float] = 2  # an evaluation, and a backward pass through another

    step_size: Number = "1/L"
    weight: float = 0.5

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        z, value = state.z, saddle(state.z)
        pull = pull_back(saddle.operator, z, value)
        return state.moved(saddle.project(z - self.eta(saddle, state) * (value + self.weight * pull)))


@dataclass(frozen=True)
class MirrorDescent(_Stepping):
    """Entropic mirror descent for both: z+ proportional to z exp(-eta F(z)), on simplices.

    Its average has a duality gap of order 1 / sqrt(T) with steps of that order; its last iterate need not converge.
    Reference: Nemirovski and Yudin 1983. Lecture: row G2.
    """

    moves: ClassVar[str] = "both at once, weights times exp(gradient)"

    step_size: Number = "1/(L1*(t+1)**0.5)"

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        value = self.eta(saddle, state) * estimate(saddle, state, state.z, 0)
        return state.moved(mirror(saddle.feasible, state.z, value))


@dataclass(frozen=True)
class MirrorProx(_Stepping):
    """Entropic mirror-prox: w proportional to z exp(-eta F(z)), z+ proportional to z exp(-eta F(w)), on simplices.

    The average of the points w has a duality gap of order 1 / T on matrix games, with eta at most 1 / (2 max |A|).
    Reference: Nemirovski, SIAM J. Optim. 15, 2004. Lecture: row G2.
    """

    moves: ClassVar[str] = "both at once, weights times exp(gradient one step ahead)"
    calls: ClassVar[float] = 2

    step_size: Number = "0.5/L1"

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        z, eta = state.z, self.eta(saddle, state)
        ahead = mirror(saddle.feasible, z, eta * estimate(saddle, state, z, 0))
        return state.moved(mirror(saddle.feasible, z, eta * estimate(saddle, state, ahead, 1)), ahead=ahead)


def _joined(x: Tensor, y: Tensor, split: int) -> Tensor:
    return torch.cat([x[:, :split], y[:, split:]], 1)
