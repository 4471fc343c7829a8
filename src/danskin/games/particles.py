"""Mixed equilibria on particles with weights and positions: Wasserstein-Fisher-Rao steps, plain and extrapolated.

A player is a measure sum_i a_i delta(x_i). Weights move by mirror descent (Fisher-Rao), positions by gradients
(Wasserstein); with one of them frozen it is mirror descent on a matrix game, or descent-ascent of many points.
Lecture: row G2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.games.mixed import Domain, MixedGame
from danskin.minmax import Streams
from danskin.minmax.problem import Template


@dataclass(frozen=True, eq=False)
class Measure:
    """sum_i weights_i delta(points_i).

    Args:
        points: (m, d) float64.
        weights: (m,) float64 >= 0 that sum to 1.
    """

    points: Tensor
    weights: Tensor

    @staticmethod
    def uniform(points: Tensor) -> Measure:
        """Equal weights."""
        return Measure(points, points.new_full((len(points),), 1 / len(points)))

    def merged(self, within: float, least: float = 1e-6) -> Measure:
        """Particles nearer than `within` joined at their mean, those lighter than `least` left out: for reading."""
        order = self.weights.argsort(descending=True)
        left, points, weights = [int(i) for i in order if self.weights[i] > least], [], []
        while left:
            near = [i for i in left if (self.points[i] - self.points[left[0]]).norm() <= within]
            mass = self.weights[near]
            points.append((mass[:, None] * self.points[near]).sum(0) / mass.sum())
            weights.append(mass.sum())
            left = [i for i in left if i not in near]
        total = torch.stack(weights)
        return Measure(torch.stack(points), total / total.sum())


@dataclass(frozen=True)
class Gap:
    """How much both players together could gain by moving alone.

    Args:
        found: by the best answers on a grid: at most the true gap, and at least 0.
        bound: found + L (h_x + h_y), never below the true gap; None where Phi's Lipschitz constant L is unknown. h is
            how far any point is from the grid at most.
    """

    found: float
    bound: float | None


@dataclass(frozen=True, eq=False)
class Played:
    """How a run of particles ended.

    Args:
        x: measure of the minimising player, after the last step.
        y: measure of the maximising player.
        gap: of these two.
        averages: gap of the averages over all steps, where asked for: as many particles as there were in all of them.
        path: gaps along the run, (step, found).
        seen: the measures at these steps and before the first one, (step, x, y).
    """

    x: Measure
    y: Measure
    gap: Gap
    averages: Gap | None
    path: tuple[tuple[int, float], ...]
    seen: tuple[tuple[int, Measure, Measure], ...]


def gap_of(game: MixedGame, x: Measure, y: Measure, points: int = 400) -> Gap:
    """max_y' E_mu Phi(x, y') - min_x' E_nu Phi(x', y), the best answers looked for on a grid and at the particles.

    Args:
        game: with domains of few dimensions: points^d payoffs are taken for each particle.
        x: of the minimising player.
        y: of the maximising player.
        points: of the grid in each coordinate.
    """
    with torch.no_grad():
        against_x = x.weights @ game.payoff(x.points, torch.cat([game.y.grid(points), y.points]))
        against_y = game.payoff(torch.cat([game.x.grid(points), x.points]), y.points) @ y.weights
        found = max(float(against_x.max() - against_y.min()), 0.0)
    if game.lipschitz is None:
        return Gap(found, None)
    return Gap(found, found + game.lipschitz * (game.x.spacing(points) + game.y.spacing(points)))


@dataclass(frozen=True)
class WassersteinFisherRao:
    """a_i <- a_i exp(-step_weights V(x_i)) / Z, x_i <- P(x_i - step_points grad V(x_i)), V(x) = sum_j b_j Phi(x, y_j).

    The other player moves by the same rule against -Phi, both at once. With `extrapolate` the step is made from where
    both are, with potentials at where it would have led: mirror-prox, whose last iterate converges where the plain rule
    turns.

    Args:
        step_weights: > 0; 0 freezes the weights.
        step_points: > 0; 0 freezes the positions.
        extrapolate: two evaluations a step in place of one.

    Reference: Domingo-Enrich et al. 2020 (interacting Wasserstein-Fisher-Rao flows); Wang and Chizat 2022 (their
    mirror-prox form on particles).
    Lecture: row G2.
    """

    template: ClassVar[Template] = Template("first player", "second player", "measures on its set", "mean payoff")
    moves: ClassVar[str] = "both at once, weights times exp(gradient), positions by gradients one step ahead"

    step_weights: float = 0.1
    step_points: float = 0.1
    extrapolate: bool = True

    def __post_init__(self) -> None:
        for name in ("step_weights", "step_points"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise InputError(
                    f"WassersteinFisherRao.{name}: expected a step >= 0, got {value!r}; 0 freezes that part"
                )

    def step(self, game: MixedGame, x: Measure, y: Measure) -> tuple[Measure, Measure, Measure, Measure]:
        """(x, y after the step, and the measures whose potentials were used)."""
        at = x, y
        if self.extrapolate:
            at = self._moved(game, (x, y), (x, y))
        return (*self._moved(game, (x, y), at), *at)

    def _moved(
        self, game: MixedGame, start: tuple[Measure, Measure], at: tuple[Measure, Measure]
    ) -> tuple[Measure, Measure]:
        """From `start`, with the potentials and their gradients that particles have at `at`."""
        px, py = at[0].points.detach().requires_grad_(), at[1].points.detach().requires_grad_()
        payoff = game.payoff(px, py)
        if payoff.shape != (len(px), len(py)):
            raise InputError(
                f"payoff: expected ({len(px)}, {len(py)}) values, one for each pair, got {tuple(payoff.shape)}; it "
                "takes (m, d) and (n, e) and returns (m, n)"
            )
        vx, vy = payoff @ at[1].weights, at[0].weights @ payoff
        (gx,) = torch.autograd.grad(vx.sum(), px, retain_graph=True)
        (gy,) = torch.autograd.grad(vy.sum(), py)
        return (
            self._one(start[0], vx.detach(), gx, game.x),
            self._one(start[1], -vy.detach(), -gy, game.y),
        )

    def _one(self, measure: Measure, potential: Tensor, slope: Tensor, domain: Domain) -> Measure:
        logs = measure.weights.log() - self.step_weights * potential
        points = domain.project(measure.points - self.step_points * slope) if self.step_points else measure.points
        return Measure(points, logs.softmax(0) if self.step_weights else measure.weights)

    def play(
        self, game: MixedGame, particles: int = 50, steps: int = 1000, *, seed: int = 0, average: bool = False,
        look: int = 0, points: int = 400, listen: Callable[[int], None] | None = None,
    ) -> Played:  # fmt: skip
        """From particles drawn uniformly, with equal weights.

        Args:
            game: what is played.
            particles: of each player, at least 1.
            steps: at least 1.
            seed: of the draw.
            average: also the gap of the averages of the measures whose potentials were used; keeps all particles.
            look: steps between looks at the gap and the measures; 0 for none but at the end.
            points: of the grid of the gap, see `gap_of`.
            listen: is told the step of each look.

        Raises:
            InputError: no particles, no steps, or a payoff that is not one value for each pair or not finite.
        """
        for name, number in (("particles", particles), ("steps", steps)):
            if number < 1:
                raise InputError(f"play: expected at least 1 of {name}, got {number}")
        streams = Streams.of(seed, torch.arange(particles))
        x, y = (_drawn(domain, streams.child(k), particles) for k, domain in enumerate((game.x, game.y)))
        path, used, seen = [], [], [(0, x, y)]
        for k in range(1, steps + 1):
            x, y, *at = self.step(game, x, y)
            if average:
                used.append(at)
            if look and k % look == 0:
                path.append((k, gap_of(game, x, y, points).found))
                seen.append((k, x, y))
                if listen is not None:
                    listen(k)
        if not all(t.isfinite().all() for m in (x, y) for t in (m.points, m.weights)):
            raise InputError(
                "payoff: expected finite values and gradients, got others on the way; bound the domain, or step less"
            )
        averages = None
        if average:
            mean_x, mean_y = (_joined([at[k] for at in used]) for k in range(2))
            averages = gap_of(game, mean_x, mean_y, points)
        return Played(x, y, gap_of(game, x, y, points), averages, tuple(path), tuple(seen))


def _drawn(domain: Domain, streams: Streams, n: int) -> Measure:
    like = torch.empty(n, domain.dimension, dtype=torch.float64)
    return Measure.uniform(domain.low + (domain.high - domain.low) * streams.uniform(like))


def _joined(measures: list[Measure]) -> Measure:
    """The average of measures."""
    share = 1 / len(measures)
    return replace(
        measures[0],
        points=torch.cat([m.points for m in measures]),
        weights=torch.cat([share * m.weights for m in measures]),
    )


#: What plays measures, by the name that the command line calls it.
MEASURE_SOLVERS: dict[str, Any] = {"particles": WassersteinFisherRao}
