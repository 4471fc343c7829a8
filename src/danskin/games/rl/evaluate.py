"""Returns of finished policies over changed physics and random actions, from the same starts for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.games.rl.pendulum import EPISODE, Physics, advance, observe, starts
from danskin.minmax.random import Streams

#: Observations (n, batch, o) to actions (n, batch, a), for a stack of n policies.
Policies = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Condition:
    """A place to act that differs from the one learned in.

    Args:
        mass: factor on the nominal mass (and inertia), > 0.
        length: factor on the nominal length, > 0; the pendulum's alone.
        gravity: in m/s²; None for the nominal one.
        noise: probability in [0, 1] that a uniformly random action takes the policy's place.

    >>> str(Condition(mass=2.0, noise=0.1))
    'mass 2, random 0.1'
    """

    mass: float = 1.0
    length: float = 1.0
    gravity: float | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not (self.mass > 0 and self.length > 0 and 0 <= self.noise <= 1):
            raise InputError(f"Condition: expected mass, length > 0, noise in [0, 1], got {self!r}; 1, 1, 0 is nominal")

    def __str__(self) -> str:
        words = [f"mass {self.mass:g}"] if self.mass != 1 else []
        words += [f"length {self.length:g}"] if self.length != 1 else []
        words += [f"gravity {self.gravity:g}"] if self.gravity is not None else []
        words += [f"random {self.noise:g}"] if self.noise else []
        return ", ".join(words) or "nominal"


@torch.no_grad()
def pendulum_returns(policies: Policies, n: int, conditions: list[Condition], episodes: int, seed: int = 0) -> Tensor:
    """(n, conditions, episodes) returns of 200 steps, without exploration and without adversary.

    Args:
        policies: a stack of n.
        n: how many.
        conditions: where.
        episodes: starts in each; the same for all policies and conditions.
        seed: of starts and random actions.

    Lecture: G3.
    """
    streams = Streams.of(seed, torch.arange(1))
    angle, speed = (part.expand(n, len(conditions), episodes) for part in starts(streams.child(0), episodes))

    def each(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)[:, None]

    gravity = each([10.0 if c.gravity is None else c.gravity for c in conditions])
    physics = Physics(each([c.mass for c in conditions]), each([c.length for c in conditions]), gravity)
    noise, total = each([c.noise for c in conditions]), torch.zeros_like(angle)
    for t in range(EPISODE):
        seen = observe(angle, speed).reshape(n, -1, 3)
        torque = policies(seen).reshape(angle.shape).double()
        drawn = streams.child(1 + t).uniform(torch.empty(1, 2, episodes, dtype=torch.float64))[0]
        torque = torch.where(drawn[0] < noise, 4 * drawn[1] - 2, torque)
        angle, speed, reward = advance(angle, speed, torque, physics)
        total += reward
    return total.float()


@torch.no_grad()
def gymnasium_returns(
    name: str, policies: Policies, n: int, conditions: list[Condition], episodes: int, seed: int = 0, **settings: Any
) -> Tensor:
    """(n, conditions, episodes) returns in a MuJoCo environment of gymnasium; until it ends or time is up.

    Args:
        name: of the environment.
        policies: a stack of n; policy i acts in a copy of its own.
        n: how many.
        conditions: where; lengths cannot be changed here.
        episodes: starts in each, the same for all.
        seed: of starts and random actions.
        settings: of `gymnasium.make`.

    Raises:
        MissingError: gymnasium or mujoco is not installed.
        InputError: a condition that does not exist here.

    Lecture: G3.
    """
    from danskin.games.rl.environments import make
    from danskin.games.rl.physics import scale_mass, set_gravity

    out = torch.zeros(n, len(conditions), episodes)
    for c, condition in enumerate(conditions):
        if condition.length != 1:
            raise InputError(f"{name}: expected a condition of mass, gravity or noise, got {condition}; leave it out")
        envs = [make(name, **settings) for _ in range(n)]
        for env in envs:
            if condition.mass != 1:
                scale_mass(env, condition.mass)
            if condition.gravity is not None:
                set_gravity(env, condition.gravity)
        for e in range(episodes):
            out[:, c, e] = _episode(envs, policies, condition.noise, [seed, e])
        for env in envs:
            env.close()
    return out


def _episode(envs: list[Any], policies: Policies, noise: float, seed: list[int]) -> Tensor:
    """One episode of every policy, from the same start and with the same random actions."""
    draw, total = np.random.default_rng(seed), torch.zeros(len(envs))
    start = int(draw.integers(2**31))
    seen = np.stack([np.asarray(env.reset(seed=start)[0], dtype=np.float32) for env in envs])
    space, going = envs[0].action_space, list(range(len(envs)))
    while going:
        actions = policies(torch.from_numpy(seen)[:, None])[:, 0].numpy()
        chance, other = draw.random(), draw.uniform(space.low, space.high).astype(space.dtype)
        for i in list(going):
            seen[i], reward, terminated, truncated, _ = envs[i].step(other if chance < noise else actions[i])
            total[i] += float(reward)
            if terminated or truncated:
                going.remove(i)
    return total
