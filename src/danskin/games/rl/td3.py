"""TD3 and DDPG for two players that share a body, a stack of seeds at once.

The critic values the *executed* action: Q(s, a) with s and a of the same moment, in learning and in the players'
gradients alike.

Reference: S. Fujimoto, H. van Hoof and D. Meger, "Addressing function approximation error in actor-critic methods",
ICML 2018; T. Lillicrap et al., "Continuous control with deep reinforcement learning", ICLR 2016.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.games.rl.movers import Mover
from danskin.games.rl.networks import Actors, Critics
from danskin.games.rl.replay import Batch, Replay
from danskin.games.rl.rules import Rule
from danskin.games.rl.world import World
from danskin.minmax.random import Streams


@dataclass(frozen=True)
class TD3:
    """Settings of TD3; `DDPG` is the same with one critic, no delay and no smoothing.

    Args:
        hidden: widths of all networks.
        discount: gamma in [0, 1).
        polyak: share by which target networks follow, in (0, 1].
        critic_lr: of Adam.
        batch: transitions of a step.
        critics: 2 for the smaller of twins, or 1.
        delay: critic steps for each step of the players.
        smoothing: sd of the noise on target actions, as a share of half the range.
        clip: of that noise.

    Lecture: G3.
    """

    hidden: tuple[int, ...] = (64, 64)
    discount: float = 0.99
    polyak: float = 0.005
    critic_lr: float = 1e-3
    batch: int = 100
    critics: int = 2
    delay: int = 2
    smoothing: float = 0.2
    clip: float = 0.5

    def __post_init__(self) -> None:
        checks = {
            "discount in [0, 1)": 0 <= self.discount < 1,
            "polyak in (0, 1]": 0 < self.polyak <= 1,
            "critic_lr > 0": self.critic_lr > 0,
            "batch >= 1": self.batch >= 1,
            "critics 1 or 2": self.critics in (1, 2),
            "delay >= 1": self.delay >= 1,
            "smoothing >= 0": self.smoothing >= 0,
            "clip >= 0": self.clip >= 0,
            "hidden widths >= 1": all(width >= 1 for width in self.hidden),
        }
        for what, holds in checks.items():
            if not holds:
                raise InputError(f"TD3: expected {what}, got {self}; leave it out for the usual value")


def ddpg(**settings: Any) -> TD3:
    """DDPG: TD3 with one critic, no delay and no smoothing.

    >>> ddpg(batch=64).critics
    1
    """
    return TD3(**({"critics": 1, "delay": 1, "smoothing": 0.0} | settings))


class Players:
    """Agent, adversary, critics and their targets, for a stack of seeds.

    Args:
        world: tells the widths and ranges.
        seeds: one for each row of the stack; a seed's initial weights are the same under every rule and mover.
        rule: who acts.
        mover: how agent and adversary move.
        settings: of TD3.
    """

    def __init__(self, world: World, seeds: Sequence[int], rule: Rule, mover: Mover, settings: TD3) -> None:
        self.rule, self.settings = rule, settings
        zero = torch.zeros(1, dtype=torch.int64)
        streams = Streams(torch.cat([Streams.of(seed, zero).key for seed in seeds])).child(1)
        o, a = world.observation_size, len(world.low)
        self.agent = Actors(streams.child(0), o, world.low, world.high, settings.hidden)
        self.adversary = Actors(streams.child(1), o, world.low, world.high, settings.hidden)
        self.critic = Critics(streams.child(2), o, a, settings.hidden, settings.critics)
        self.networks = {"agent": self.agent, "adversary": self.adversary, "critic": self.critic}
        self.targets = {name: copy.deepcopy(net).requires_grad_(False) for name, net in self.networks.items()}
        self.optimizer = torch.optim.Adam(self.critic.parameters(), settings.critic_lr, fused=True)
        adversary = list(self.adversary.parameters()) if rule.learned else []
        self.moving = mover.start(list(self.agent.parameters()), adversary, seeds)
        self.updates = 0

    def learn(self, replay: Replay, streams: Streams) -> None:
        """One step of the critics and, every `delay` of them, one of the players.

        Args:
            replay: to draw from.
            streams: of this step, one for each seed.
        """
        batch = replay.sample(streams.child(0), self.settings.batch)
        loss = self.critic_loss(batch, streams.child(1))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        if self.updates % self.settings.delay:
            return
        turns = itertools.count()

        def payoff() -> Tensor:
            turn = next(turns)  # the critics' batch first, then a fresh one for each further gradient
            own = streams.child(2 + turn)
            drawn = replay.sample(own, self.settings.batch) if turn else batch
            return self.payoff(drawn.state, own.child(0))

        self.moving.step(payoff)
        self._follow()

    def payoff(self, state: Tensor, streams: Streams) -> Tensor:
        """What the agent minimises and the adversary maximises: minus the mean value, summed over the seeds.

        Args:
            state: (n, batch, o).
            streams: of a random adversary, one for each seed.
        """
        agent = adversary = self.agent(state)
        if self.rule.learned:
            adversary = self.adversary(state)
        elif self.rule.adversarial:
            adversary = self.adversary.random(state, streams)
        value = self.rule.value(lambda action: self.critic.first(state, action), agent, adversary)
        return -value.mean(-1).sum()

    def critic_loss(self, batch: Batch, streams: Streams) -> Tensor:
        """Squared distance to the one-step target, mean over the batch, summed over critics and seeds."""
        target = self.target(batch, streams)
        return (self.critic(batch.state, batch.action) - target).square().mean(-1).sum()

    @torch.no_grad()
    def target(self, batch: Batch, streams: Streams) -> Tensor:
        """(n, batch): r + gamma (1 - terminal) times the smaller target value of what the targets would do next."""
        s = batch.following
        agent = self._smooth(self.targets["agent"](s), streams.child(0))
        adversary = agent
        if self.rule.learned:
            adversary = self._smooth(self.targets["adversary"](s), streams.child(1))
        elif self.rule.adversarial:  # one draw a transition: the target's mean is that over the adversary's actions
            adversary = self.adversary.random(s, streams.child(1))
        value = self.rule.value(lambda action: self.targets["critic"](s, action).amin(0), agent, adversary)
        return batch.reward + self.settings.discount * (1 - batch.terminal) * value

    def _smooth(self, action: Tensor, streams: Streams) -> Tensor:
        if not self.settings.smoothing:
            return action
        noise = (streams.normal(action) * self.settings.smoothing).clamp(-self.settings.clip, self.settings.clip)
        low, high = self.agent.middle - self.agent.reach, self.agent.middle + self.agent.reach
        return torch.minimum(torch.maximum(action + noise * self.agent.reach, low), high)

    @torch.no_grad()
    def _follow(self) -> None:
        for name, net in self.networks.items():
            if name == "adversary" and not self.rule.learned:
                continue
            torch._foreach_lerp_(list(self.targets[name].parameters()), list(net.parameters()), self.settings.polyak)

    def state_dict(self) -> dict[str, Any]:
        """All that learning depends on."""
        return {
            "networks": {name: net.state_dict() for name, net in self.networks.items()},
            "targets": {name: net.state_dict() for name, net in self.targets.items()},
            "optimizer": self.optimizer.state_dict(),
            "moving": self.moving.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        for name, net in self.networks.items():
            net.load_state_dict(state["networks"][name])
            self.targets[name].load_state_dict(state["targets"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.moving.load_state_dict(state["moving"])
        self.updates = state["updates"]
