r"""The Langevin training rule for two players: mixed strategies by noise and averages.

A player that plays a distribution over weights instead of one vector answers the other player with a Gibbs measure,
and a Langevin chain draws from it. Keep the mean of the chain in place of the measure, and what is left is a training
rule for any two networks.

**Temperature.** With drift from a loss L and noise :math:`\sqrt{2\eta}\,\epsilon\,\xi` the chain's law tends to
:math:`\exp(-L/\epsilon^2)`, so :math:`\epsilon^2` is the temperature of *the loss as it is handed over*. For a mean
over n examples whose sum is the potential U = n L of a posterior :math:`\exp(-U)`, take
:math:`\epsilon = 1/\sqrt{n}`. Nothing is multiplied by n here: whoever hands over a mean says so with epsilon.

Reference: Y.-P. Hsieh, C. Liu and V. Cevher, "Finding mixed Nash equilibria of generative adversarial networks", ICML
2019; P. Kamalaruban et al., "Robust reinforcement learning via adversarial training with Langevin dynamics", NeurIPS
2020; C. Li et al., "Preconditioned stochastic gradient Langevin dynamics for deep neural networks", AAAI 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.random import Streams

#: A number, or what it is at step t = 0, 1, ...
Schedule = float | Callable[[int], float]


def geometric(start: float, ratio: float) -> Callable[[int], float]:
    """Start * ratio^t: the falling step sizes and temperatures of the Langevin papers.

    >>> geometric(2.0, 0.5)(2)
    0.5
    """
    return lambda t: start * ratio**t


def at(schedule: Schedule, t: int) -> float:
    """The value of a schedule at step t."""
    return float(schedule(t)) if callable(schedule) else float(schedule)


class Noise:
    """Standard normal numbers that depend on seed, step and place alone, so that they need no state.

    Args:
        seeds: one; or one for each network of a stack, whose parameters have a leading dimension of that length. What
            a network of a stack is given does not depend on the others.
    """

    def __init__(self, seeds: int | Sequence[int]) -> None:
        self.stack = None if isinstance(seeds, int) else len(seeds)
        keys = [seeds] if isinstance(seeds, int) else list(seeds)
        zero = torch.zeros(1, dtype=torch.int64)
        self.streams = Streams(torch.cat([Streams.of(seed, zero).key for seed in keys]))

    def __call__(self, like: Sequence[Tensor], step: int) -> list[Tensor]:
        """One draw in the shape of each tensor.

        Raises:
            InputError: a stack's tensor without its leading dimension.
        """
        rows = self.stack or 1
        for tensor in like:
            if self.stack is not None and (tensor.ndim == 0 or len(tensor) != rows):
                raise InputError(
                    f"Langevin: expected parameters with a leading dimension of {rows}, one row for each seed, got one "
                    f"of shape {tuple(tensor.shape)}; give one seed for a network that is no stack"
                )
        sizes = [tensor.numel() // rows for tensor in like]
        drawn = Streams(self.streams.key.to(like[0].device)).child(step).normal(like[0].new_empty(rows, sum(sizes)))
        return [part.reshape(t.shape).to(t) for part, t in zip(drawn.split(sizes, 1), like, strict=True)]


@dataclass(frozen=True)
class LangevinStep:
    r"""One step of a Langevin chain, plain (SGLD) or preconditioned (RMSprop-SGLD).

    .. math:: \theta \leftarrow \theta - \eta D^{-1} g + \sqrt{2 \eta D^{-1}}\, \epsilon\, \xi

    with D = 1, or :math:`v \leftarrow \alpha v + (1 - \alpha) g^2`, :math:`D = \sqrt v + \delta`. The term of the
    preconditioner's own derivative is left out, as in all practice. For a quadratic h θ²/2 with D held fixed the
    stationary variance is :math:`\epsilon^2 / (h (1 - \eta h / (2 D)))`: temperature over curvature, but for the
    step's length.

    Args:
        rms: alpha in [0, 1) for RMSprop-SGLD; None for SGLD.
        floor: delta > 0.
    """

    rms: float | None = None
    floor: float = 1e-8

    def __post_init__(self) -> None:
        if self.rms is not None and not 0 <= self.rms < 1:
            raise InputError(f"Langevin: expected rms in [0, 1), got {self.rms}; 0.99 is usual, None for plain SGLD")
        if not self.floor > 0:
            raise InputError(f"Langevin: expected floor > 0, got {self.floor}; 1e-8 is usual")

    def __call__(
        self, theta: Tensor, gradient: Tensor, v: Tensor | None, lr: float, epsilon: float, noise: Tensor | None
    ) -> None:
        """Move `theta` (and the running mean of squares `v`) in place.

        Args:
            theta: where the chain is.
            gradient: of what is minimised.
            v: the running mean; None for SGLD.
            lr: eta.
            epsilon: root of the temperature.
            noise: as theta; None for epsilon = 0.
        """
        if v is None:
            theta.sub_(gradient, alpha=lr)
            if noise is not None:
                theta.add_(noise, alpha=math.sqrt(2 * lr) * epsilon)
            return
        assert self.rms is not None
        v.mul_(self.rms).addcmul_(gradient, gradient, value=1 - self.rms)
        precision = v.sqrt().add_(self.floor)
        theta.addcdiv_(gradient, precision, value=-lr)
        if noise is not None:
            theta.addcdiv_(noise, precision.sqrt_(), value=math.sqrt(2 * lr) * epsilon)


class LangevinGame:
    r"""Min over x, max over y of Phi(x, y), both players mixed: an inner Langevin chain for each, averaged twice.

    With outer points (x, y), for k = 1 .. K_t:

    .. math::
        x^{k+1} &= x^k - \eta_t \nabla_x \Phi(x^k, y) + \sqrt{2\eta_t}\,\epsilon_t\,\xi, \qquad
        y^{k+1} = y^k + \eta_t \nabla_y \Phi(x, y^k) + \sqrt{2\eta_t}\,\epsilon_t\,\xi' \\
        \bar x &\leftarrow (1-\beta) \bar x + \beta x^{k+1}, \qquad \bar y \leftarrow (1-\beta) \bar y + \beta y^{k+1}

    and then :math:`x \leftarrow (1-\beta) x + \beta \bar x`, the same for y. Both chains and both averages start at
    the outer points. With K = 1 this is one (preconditioned) Langevin step, shortened to the share beta squared; with
    epsilon = 0 it is gradient descent-ascent with averages. The parameters hold the outer points before and after
    `step`: what is played, saved and judged is the average, never the last noisy sample.

    Args:
        x: parameters of the player that minimises.
        y: parameters of the player that maximises.
        lr: eta_t > 0, a number or a function of t.
        epsilon: epsilon_t >= 0, root of the temperature of Phi as it is handed over; 0 for no noise.
        inner: K_t >= 1. State it: the published schedule stays at 1 for its first 69,314 steps.
        beta: of both averages, in (0, 1].
        rms: see `LangevinStep`.
        frozen: each chain plays against the other player's outer point (as the robust-RL code does), or both move
            together.
        project: brings a tensor of the chain back into its set, in place; None for all of space.
        seeds: see `Noise`.

    Raises:
        InputError: a number outside its range, or no parameters at all.

    Lecture: G2, G3.
    """

    def __init__(
        self,
        x: Iterable[Tensor],
        y: Iterable[Tensor],
        *,
        lr: Schedule,
        epsilon: Schedule,
        inner: Schedule = 1,
        beta: float = 0.9,
        rms: float | None = None,
        frozen: bool = True,
        project: Callable[[Tensor], object] | None = None,
        seeds: int | Sequence[int] = 0,
    ) -> None:
        self.sides = [[p for p in side if p.requires_grad] for side in (x, y)]
        if not any(self.sides):
            raise InputError(
                "LangevinGame: expected parameters that require gradients, got none; pass net.parameters()"
            )
        if not 0 < beta <= 1:
            raise InputError(f"LangevinGame: expected beta in (0, 1], got {beta}; 0.9 is usual")
        self.lr, self.epsilon, self.inner, self.beta = lr, epsilon, inner, beta
        self.move, self.frozen, self.project = LangevinStep(rms), frozen, project
        self.noise, self.t, self.draws = Noise(seeds), 0, 0
        self.v = [[torch.zeros_like(p) if rms is not None else None for p in side] for side in self.sides]
        self._settings(0)

    def _settings(self, t: int) -> tuple[float, float, int]:
        lr, epsilon, inner = at(self.lr, t), at(self.epsilon, t), at(self.inner, t)
        if not (lr > 0 and math.isfinite(lr)):
            raise InputError(f"LangevinGame: expected lr > 0, got {lr} at step {t}; 1e-4 to 1e-2 is usual")
        if not (epsilon >= 0 and math.isfinite(epsilon)):
            raise InputError(f"LangevinGame: expected epsilon >= 0, got {epsilon} at step {t}; 0 switches noise off")
        if inner < 1 or inner != int(inner):
            raise InputError(f"LangevinGame: expected a whole number of inner steps >= 1, got {inner} at step {t}")
        return lr, epsilon, int(inner)

    def step(self, payoff: Callable[[], Tensor]) -> None:
        """One outer step.

        Args:
            payoff: Phi at the parameters as they are, a scalar; called once for each gradient that is needed, and free
                to take another batch each time. For a stack of networks: the sum of their payoffs.
        """
        lr, epsilon, inner = self._settings(self.t)
        outer = [[p.detach().clone() for p in side] for side in self.sides]
        chain = [[p.clone() for p in side] for side in outer]
        mean = [[p.clone() for p in side] for side in outer]
        try:
            for k in range(inner):
                both = self._gradients(payoff, chain, outer, together=k == 0 or not self.frozen)
                for side, gradients in enumerate(both):
                    self._advance(side, chain[side], gradients, lr, epsilon)
                    for average, point in zip(mean[side], chain[side], strict=True):
                        average.lerp_(point, self.beta)
                self.draws += 1
        except BaseException:
            self._place(*outer)
            raise
        with torch.no_grad():
            for side in (0, 1):
                for p, start, average in zip(self.sides[side], outer[side], mean[side], strict=True):
                    p.copy_(torch.lerp(start, average, self.beta))
        self.t += 1

    def _gradients(
        self, payoff: Callable[[], Tensor], chain: list[list[Tensor]], outer: list[list[Tensor]], together: bool
    ) -> list[list[Tensor]]:
        """Of both players: at one point, or each at its own against the other's outer one."""
        if together:
            self._place(chain[0], chain[1])
            found = torch.autograd.grad(payoff(), [*self.sides[0], *self.sides[1]])
            n = len(self.sides[0])
            return [list(found[:n]), list(found[n:])]
        out = []
        for side in (0, 1):
            points = [chain[0], outer[1]] if side == 0 else [outer[0], chain[1]]
            self._place(*points)
            out.append(list(torch.autograd.grad(payoff(), self.sides[side])) if self.sides[side] else [])
        return out

    def _place(self, x: list[Tensor], y: list[Tensor]) -> None:
        with torch.no_grad():
            for side, points in zip(self.sides, (x, y), strict=True):
                for p, point in zip(side, points, strict=True):
                    p.copy_(point)

    def _advance(self, side: int, points: list[Tensor], gradients: list[Tensor], lr: float, epsilon: float) -> None:
        noise: list[Tensor] | list[None] = [None] * len(points)
        if epsilon > 0 and points:
            noise = self.noise(points, 2 * self.draws + side)
        sign = 1.0 if side == 0 else -1.0
        for point, g, v, xi in zip(points, gradients, self.v[side], noise, strict=True):
            self.move(point, g * sign, v, lr, epsilon, xi)
            if self.project is not None:
                self.project(point)

    def state_dict(self) -> dict[str, Any]:
        """What `step` needs besides the parameters; noise needs only the counts."""
        return {"t": self.t, "draws": self.draws, "v": [[v for v in side if v is not None] for side in self.v]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.t, self.draws = state["t"], state["draws"]
        for side, saved in zip(self.v, state["v"], strict=True):
            for v, old in zip((v for v in side if v is not None), saved, strict=True):
                v.copy_(old)
