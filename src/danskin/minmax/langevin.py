r"""Two players that mix: Langevin chains for both, averaged within a step and across steps. Lecture: rows G2 and G3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.dynamics import PLAYERS, State, estimate, resolve_step
from danskin.minmax.number import Number
from danskin.minmax.problem import Template
from danskin.minmax.random import Streams
from danskin.minmax.rows import PerRow
from danskin.minmax.saddle import Saddle
from danskin.minmax.weak_minty import check_share


@dataclass(frozen=True)
class Langevin(PerRow):
    r"""Two-level averaging of projected Langevin chains: the chain, its mean, and the outer point that is played.

    .. math::
        w^{k+1} = P(w^k - \eta F(w^k) + \sqrt{2 \eta}\, \epsilon\, \xi), \quad
        \bar w \leftarrow (1 - \beta) \bar w + \beta w^{k+1}, \qquad z^+ = (1 - \beta) z + \beta \bar w

    with w and its mean starting at z, for k = 1 .. `inner`. With epsilon = 0 it is descent-ascent with averages: the
    ablation that tells what the noise does. For networks: `danskin.games.langevin.LangevinGame`, the same rule.

    Args:
        step_size: eta.
        epsilon: root of the temperature, >= 0. As with all solvers there is no noise without streams; `run_solver`
            asks for a seed.
        inner: K, steps of the chain in one step.
        beta: of both averages, in (0, 1].
        frozen: each player's chain answers the other's outer point; or both move together, as in the authors' plane.

    Reference: Hsieh, Liu and Cevher, ICML 2019; Kamalaruban et al., NeurIPS 2020, Algorithm 1. Lecture: rows G2 and G3.
    """

    template: ClassVar[Template] = PLAYERS
    moves: ClassVar[str] = "both at once, by averages of Langevin chains"

    step_size: Number = 0.1
    epsilon: float = 0.03
    inner: int = 100
    beta: float = 0.5
    frozen: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < math.inf:
            raise InputError(
                f"Langevin.epsilon: expected a number >= 0, got {self.epsilon!r}; 0.03 is usual, 0 means no noise"
            )
        if self.inner < 1 or self.inner != int(self.inner):
            raise InputError(f"Langevin.inner: expected a whole number of steps, at least 1, got {self.inner!r}")
        check_share("Langevin.beta", self.beta, 1)

    @property
    def calls(self) -> float:
        """One for each inner step; where opponents are frozen two, but for the first."""
        return 2 * self.inner - 1 if self.frozen else self.inner

    @property
    def noisy(self) -> bool:
        """Whether it draws random numbers of its own."""
        return self.epsilon > 0

    def begin(self, saddle: Saddle, z: Tensor, streams: Streams | None = None) -> State:
        """The state before the first step; without streams, of the rule without noise."""
        return State(saddle.project(z), 0, (), streams)

    def step(self, saddle: Saddle, state: State) -> State:
        """One outer step: `inner` steps of the chain, and what their average makes of z."""
        eta = resolve_step(self.step_size, saddle, state.t, state.z, "Langevin")
        chain = mean = state.z
        spread = (2 * eta) ** 0.5 * self.epsilon
        for k in range(self.inner):
            moved = chain - eta * self._force(saddle, state, chain, k)
            streams = state.streams_of(2 * k + 1)
            if self.noisy and streams is not None:
                moved = moved + spread * streams.normal(chain)
            chain = saddle.project(moved)
            mean = torch.lerp(mean, chain, self.beta)
        return state.moved(torch.lerp(state.z, mean, self.beta))

    def _force(self, saddle: Saddle, state: State, chain: Tensor, k: int) -> Tensor:
        """F at the chain; where opponents are frozen, each player's part with the other at the outer point."""
        if k == 0 or not self.frozen:
            return estimate(saddle, state, chain, 2 * k)
        n = saddle.split
        first, second = torch.cat([chain[:, :n], state.z[:, n:]], 1), torch.cat([state.z[:, :n], chain[:, n:]], 1)
        parts = estimate(saddle, state, first, 2 * k), estimate(saddle, state, second, 2 * k)
        return torch.cat([parts[0][:, :n], parts[1][:, n:]], 1)
