"""Solvers around solvers: an anchor that follows slowly what fast steps find. Lecture: row G1."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.dynamics import GDA, PLAYERS, Solver, State, estimate, resolve_step
from danskin.minmax.number import Number
from danskin.minmax.problem import Template
from danskin.minmax.random import Streams
from danskin.minmax.rows import PerRow
from danskin.minmax.saddle import Saddle
from danskin.minmax.weak_minty import check_share


@dataclass(frozen=True)
class Lookahead(PerRow):
    """Lookahead-minmax: after every k steps of another solver, z = a + alpha (z - a) for both players; a = z.

    Args:
        base: the solver of the k steps.
        k: steps between two such pulls.
        alpha: how far the anchor a follows, in (0, 1].

    Reference: Chavdarova et al., ICLR 2021, Algorithm 1. Lecture: row G1.
    """

    template: ClassVar[Template] = PLAYERS
    moves: ClassVar[str] = "by another solver, pulled back to an anchor every few steps"

    base: Solver = field(default_factory=GDA)
    k: int = 5
    alpha: float = 0.5

    def __post_init__(self) -> None:
        _check_whole("Lookahead.k", self.k)
        check_share("Lookahead.alpha", self.alpha, 1)

    @property
    def calls(self) -> float:
        """As those of the base."""
        return self.base.calls

    def begin(self, saddle: Saddle, z: Tensor, streams: Streams | None = None) -> State:
        """The state before the first step: the anchor is the start."""
        state = self.base.begin(saddle, z, streams)
        return replace(state, memory=(state.z, *state.memory))

    def step(self, saddle: Saddle, state: State) -> State:
        """One step of the base, and a pull where it is due."""
        anchor, *memory = state.memory
        after = self.base.step(saddle, replace(state, memory=tuple(memory)))
        if after.t % self.k:
            return replace(after, memory=(anchor, *after.memory))
        z = anchor + self.alpha * (after.z - anchor)
        return replace(after, z=z, memory=(z, *after.memory))


@dataclass(frozen=True)
class RAPP(PerRow):
    """Relaxed approximate proximal point: w = z, then k times w = P(z - eta F(w)); z+ = (1 - alpha) z + alpha w.

    The inner loop goes to the resolvent of eta F where eta < 1 / L.

    Args:
        step_size: eta.
        k: inner steps.
        alpha: how far the anchor follows, in (0, 1].

    Reference: Pethick, Xie and Cevher, NeurIPS 2023, Algorithm 1. Lecture: row G1.
    """

    template: ClassVar[Template] = PLAYERS
    moves: ClassVar[str] = "both at once, towards a proximal point found by inner steps"

    step_size: Number = "0.9/L"
    k: int = 3
    alpha: float = 0.9

    def __post_init__(self) -> None:
        _check_whole("RAPP.k", self.k)
        check_share("RAPP.alpha", self.alpha, 1)

    @property
    def calls(self) -> float:
        """As many as inner steps."""
        return self.k

    def begin(self, saddle: Saddle, z: Tensor, streams: Streams | None = None) -> State:
        """The state before the first step."""
        return State(saddle.project(z), 0, (), streams)

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        eta, w = resolve_step(self.step_size, saddle, state.t, state.z, "RAPP"), state.z
        for k in range(self.k):
            w = saddle.project(state.z - eta * estimate(saddle, state, w, k))
        return state.moved((1 - self.alpha) * state.z + self.alpha * w)


def _check_whole(what: str, value: int) -> None:
    if value < 1 or value != int(value):
        raise InputError(f"{what}: expected a whole number of steps, at least 1, got {value!r}; 5 is usual")
