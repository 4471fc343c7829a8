"""Gymnasium's Pendulum-v1, many at once, each with its own mass, length and gravity.

A test walks both side by side. Angles in radians, 0 upright; torque in newton metres, at most 2; the reward is minus
(angle² + 0.1 speed² + 0.001 torque²) with the angle in [-pi, pi).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.games.rl.world import Move, check_actions
from danskin.minmax.random import Streams

MAX_SPEED, MAX_TORQUE, SECONDS, EPISODE = 8.0, 2.0, 0.05, 200


@dataclass(frozen=True)
class Physics:
    """Of a pendulum: numbers, or tensors that broadcast against the state.

    Args:
        mass: > 0, kg.
        length: > 0, m.
        gravity: m/s².
    """

    mass: float | Tensor = 1.0
    length: float | Tensor = 1.0
    gravity: float | Tensor = 10.0

    def __post_init__(self) -> None:
        for name in ("mass", "length"):
            value = torch.as_tensor(getattr(self, name))
            if not bool((value > 0).all()):
                raise InputError(f"Pendulum: expected {name} > 0, got {value.min().item()}; nominal is 1")


def advance(angle: Tensor, speed: Tensor, torque: Tensor, physics: Physics) -> tuple[Tensor, Tensor, Tensor]:
    """One step of 0.05 s: new angle, new speed, reward. All tensors broadcast."""
    torque = torque.clamp(-MAX_TORQUE, MAX_TORQUE)
    wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    reward = -(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2)
    m, l, g = physics.mass, physics.length, physics.gravity
    pull = 3 * g / (2 * l) * torch.sin(angle) + 3.0 / (m * l**2) * torque
    speed = (speed + pull * SECONDS).clamp(-MAX_SPEED, MAX_SPEED)
    return angle + speed * SECONDS, speed, reward


def observe(angle: Tensor, speed: Tensor) -> Tensor:
    """(..., 3): cosine and sine of the angle, speed."""
    return torch.stack([torch.cos(angle), torch.sin(angle), speed], -1).float()


def starts(streams: Streams, n: int = 1) -> tuple[Tensor, Tensor]:
    """(rows, n) angles uniform in ±pi and speeds uniform in ±1, as the environment's reset draws them."""
    drawn = streams.uniform(torch.empty(len(streams.key), 2 * n, dtype=torch.float64)) * 2 - 1
    return math.pi * drawn[:, :n], drawn[:, n:]


class PendulumWorld:
    """One pendulum for each seed; an episode ends after 200 steps because time is up, never by itself.

    Args:
        seeds: one world each. What a world does depends on its own seed and actions alone.
        masses: (least, greatest) mass, drawn anew for each episode: domain randomisation; (1, 1) is the nominal one.

    Raises:
        InputError: a range that is none.
    """

    observation_size = 3

    def __init__(self, seeds: Sequence[int], masses: tuple[float, float] = (1.0, 1.0)) -> None:
        if not 0 < masses[0] <= masses[1]:
            raise InputError(f"PendulumWorld: expected masses 0 < least <= greatest, got {masses}; (1, 1) is nominal")
        self.low, self.high = torch.tensor([-MAX_TORQUE]), torch.tensor([MAX_TORQUE])
        zero = torch.zeros(1, dtype=torch.int64)
        self._streams = Streams(torch.cat([Streams.of(seed, zero).key for seed in seeds])).child(0)
        self._episode, self._elapsed, self._masses = 0, 0, masses
        self._reset()

    def _reset(self) -> None:
        angle, speed = starts(self._streams.child(self._episode))
        self._angle, self._speed = angle[:, 0], speed[:, 0]

    def _physics(self) -> Physics:
        least, greatest = self._masses
        if least == greatest:
            return Physics(mass=least)
        drawn = self._streams.child(self._episode).child(0).uniform(self._angle[:, None])[:, 0]
        return Physics(mass=least + (greatest - least) * drawn)

    @property
    def observation(self) -> Tensor:
        """(n, 3): what is seen now."""
        return observe(self._angle, self._speed)

    def step(self, action: Tensor) -> Move:
        """Execute (n, 1) torques."""
        check_actions(action, len(self._angle), 1)
        self._angle, self._speed, reward = advance(self._angle, self._speed, action[:, 0].double(), self._physics())
        following = self.observation
        self._elapsed += 1
        none = torch.zeros(len(reward), dtype=torch.bool)
        truncated = none
        if self._elapsed == EPISODE:
            self._episode, self._elapsed, truncated = self._episode + 1, 0, ~none
            self._reset()
        return Move(following, reward.float(), none, truncated, ~none)

    def state_dict(self) -> dict[str, Any]:
        """Where every pendulum is."""
        return {"angle": self._angle, "speed": self._speed, "episode": self._episode, "elapsed": self._elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._angle, self._speed = state["angle"].clone(), state["speed"].clone()
        self._episode, self._elapsed = state["episode"], state["elapsed"]
