"""The loop: act, keep what was lived through, learn; resumable between any two steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import DivergenceError, InputError
from danskin.games.rl.movers import Mover
from danskin.games.rl.networks import Actors
from danskin.games.rl.replay import Replay
from danskin.games.rl.rules import Rule
from danskin.games.rl.td3 import TD3, Players
from danskin.games.rl.world import World
from danskin.minmax.random import Streams


@dataclass(frozen=True)
class Schedule:
    """How long, and how curious.

    Args:
        steps: of every world.
        warmup: of them with random actions and without learning.
        explore: sd of the noise on both players' actions, as a share of half the range.
        capacity: transitions kept for each seed; None for all.
    """

    steps: int = 10_000
    warmup: int = 1_000
    explore: float = 0.1
    capacity: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.warmup < self.steps:
            raise InputError(
                f"Schedule: expected 0 < warmup < steps, got {self.warmup} of {self.steps}; shorten warmup"
            )
        if not self.explore >= 0:
            raise InputError(f"Schedule: expected explore >= 0, got {self.explore}; 0.1 is usual")


class Learner:
    """A stack of seeds that learn to act, each in its own world.

    Every random number depends on (seed, step, purpose) alone: a seed's run does not depend on which others run
    beside it (but for the last bits of batched products), and a checkpoint needs no generator's state.

    Args:
        world: one for each seed.
        seeds: all different.
        rule: who acts.
        mover: how agent and adversary move.
        settings: of TD3.
        schedule: how long.

    Raises:
        InputError: no seeds, or one twice.

    Lecture: G3.
    """

    def __init__(
        self, world: World, seeds: Sequence[int], rule: Rule, mover: Mover, settings: TD3, schedule: Schedule
    ) -> None:
        if not seeds or len(set(seeds)) != len(seeds):
            raise InputError(f"Learner: expected seeds that are all different, got {list(seeds)}; use range(10)")
        self.world, self.rule, self.schedule = world, rule, schedule
        self.players = Players(world, seeds, rule, mover, settings)
        capacity = schedule.capacity or schedule.steps
        self.replay = Replay(len(seeds), capacity, world.observation_size, len(world.low))
        zero = torch.zeros(1, dtype=torch.int64)
        self._streams = Streams(torch.cat([Streams.of(seed, zero).key for seed in seeds])).child(2)
        self.t = 0
        self.ongoing = torch.zeros(len(seeds))  # return of the episode so far
        self.returns: list[tuple[int, int, float]] = []  # (step, row, return) of finished episodes

    def step(self) -> None:
        """One step of every world, and one of learning after the warm-up.

        Raises:
            DivergenceError: a policy is no longer finite.
        """
        streams = self._streams.child(self.t)
        state = self.world.observation
        action = self._act(state, streams)
        move = self.world.step(action)
        self.replay.add(state, action, move.reward, move.following, move.terminated, move.real)
        self.t += 1
        self._count(move.reward * move.real, move.terminated | move.truncated)
        if self.t > self.schedule.warmup:
            self.players.learn(self.replay, streams.child(9))

    @torch.no_grad()
    def _act(self, state: Tensor, streams: Streams) -> Tensor:
        """The executed action, with curiosity."""
        agent = self._one(self.players.agent, state, streams.child(0))
        if not self.rule.adversarial:
            return agent
        if self.rule.learned:
            adversary = self._one(self.players.adversary, state, streams.child(1))
        else:
            adversary = self.players.adversary.random(state[:, None], streams.child(1))[:, 0]
        draw = streams.child(2).uniform(torch.empty(len(state), 1))[:, 0]
        return self.rule.executed(agent, adversary, draw)

    def _one(self, actors: Actors, state: Tensor, streams: Streams) -> Tensor:
        if self.t < self.schedule.warmup:
            return actors.random(state[:, None], streams)[:, 0]
        low, high = actors.middle - actors.reach, actors.middle + actors.reach
        action: Tensor = actors(state[:, None])[:, 0]
        if not bool(action.isfinite().all()):
            raise DivergenceError(f"Learner: a policy is no longer finite at step {self.t}; lower lr or epsilon")
        noise = self.schedule.explore * actors.reach * streams.normal(action)
        return torch.minimum(torch.maximum(action + noise, low), high)

    def _count(self, reward: Tensor, ended: Tensor) -> None:
        self.ongoing += reward
        for row in torch.nonzero(ended)[:, 0].tolist():
            self.returns.append((self.t, row, float(self.ongoing[row])))
            self.ongoing[row] = 0.0

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.t >= self.schedule.steps

    def run(self) -> None:
        """All steps that are left."""
        while not self.finished:
            self.step()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "t": self.t,
            "ongoing": self.ongoing.clone(),
            "returns": [list(row) for row in self.returns],
            "world": self.world.state_dict(),
            "replay": self.replay.state_dict(),
            "players": self.players.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.t, self.returns = state["t"], [(t, row, value) for t, row, value in state["returns"]]
        self.ongoing.copy_(state["ongoing"])
        self.world.load_state_dict(state["world"])
        self.replay.load_state_dict(state["replay"])
        self.players.load_state_dict(state["players"])
