"""Gymnasium environments: two players in one, one player against a fixed other, and many as worlds to learn in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.errors import InputError, MissingError, suggest
from danskin.games.rl.extra import import_mujoco_without_imageio, needed
from danskin.games.rl.physics import physics_state, restore_physics
from danskin.games.rl.rules import Rule
from danskin.games.rl.world import Move, check_actions

gymnasium = needed("gymnasium")
_Wrapper: Any = gymnasium.Wrapper
_Recorded: Any = gymnasium.utils.RecordConstructorArgs  # so that gymnasium can make the environment anew
_RESETS = ("NextStep", "Disabled")


def check_box(env: Any, who: str) -> None:
    """See that observations and actions are vectors, and actions bounded.

    Raises:
        InputError: anything else.
    """
    for name in ("observation_space", "action_space"):
        space = getattr(env, name)
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise InputError(f"{who}: expected a Box of one dimension as {name}, got {space}; wrap the environment")
    if not np.isfinite([env.action_space.low, env.action_space.high]).all():
        raise InputError(f"{who}: expected bounded actions, got {env.action_space}; use gymnasium's RescaleAction")


def make(name: str, **settings: Any) -> Any:
    """gymnasium.make with this library's errors, and MuJoCo without imageio.

    Raises:
        MissingError: gymnasium, or the simulator that the environment needs, is not installed.
        InputError: there is no such environment.
    """
    try:
        try:
            return gymnasium.make(name, **settings)
        except ImportError as error:
            if error.name != "imageio":
                raise
        import_mujoco_without_imageio()
        return gymnasium.make(name, **settings)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise MissingError(f"{name}: its simulator is needed, got {error}", "pip install 'danskin[rl]'") from error
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        found = suggest(name, gymnasium.registry, most=5)
        raise InputError(f"environment: expected one that gymnasium knows, got {name!r}; {found}") from error


class TwoPlayers(_Wrapper, _Recorded):
    """Agent and adversary share the body of an environment; an action is a pair of actions.

    `step` takes (agent's action, adversary's action), each from the environment's own action space; info["executed"]
    is what the body did. The reward is the agent's; the adversary's is its negative.

    Args:
        env: with a bounded Box of actions.
        rule: `NoisyAction` (NR-MDP) or `ProbabilisticAction` (PR-MDP).

    Raises:
        InputError: another kind of space, or actions outside it.

    Lecture: G3.
    """

    def __init__(self, env: Any, rule: Rule) -> None:
        check_box(env, "TwoPlayers")
        _Recorded.__init__(self, rule=rule)
        _Wrapper.__init__(self, env)
        self.rule = rule
        self.action_space = gymnasium.spaces.Tuple((env.action_space, env.action_space))

    def step(self, action: Any) -> Any:
        """Execute what the rule makes of both actions."""
        space = self.env.action_space
        agent, adversary = (np.asarray(part, dtype=space.dtype) for part in action)
        for who, part in (("agent's", agent), ("adversary's", adversary)):
            if not space.contains(part):
                raise InputError(f"TwoPlayers: expected the {who} action in {space}, got {part}; clip it")
        draw = torch.tensor(self.np_random.random())
        executed = self.rule.executed(torch.from_numpy(agent), torch.from_numpy(adversary), draw).numpy()
        observation, reward, terminated, truncated, info = self.env.step(executed)
        return observation, reward, terminated, truncated, info | {"executed": executed}


class Against(_Wrapper, _Recorded):
    """One player's view of `TwoPlayers`: an ordinary environment with the other player in it.

    Args:
        env: of two players.
        other: from an observation to an action.
        learner: "agent" where the other is the adversary; "adversary" where the other is the agent, and rewards are
            negated.

    Raises:
        InputError: an environment of one player, or another name.
    """

    def __init__(self, env: Any, other: Callable[[np.ndarray], np.ndarray], learner: str = "agent") -> None:
        if not isinstance(env, TwoPlayers):
            raise InputError(f"Against: expected TwoPlayers, got {type(env).__name__}; wrap the environment first")
        if learner not in ("agent", "adversary"):
            raise InputError(
                f"Against: expected agent or adversary, got {learner!r}; {suggest(learner, ('agent', 'adversary'))}"
            )
        _Recorded.__init__(self, other=other, learner=learner)
        _Wrapper.__init__(self, env)
        self.other, self.learner = other, learner
        self._seen: Any = None
        self.action_space = env.env.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As the environment does."""
        self._seen, info = self.env.reset(seed=seed, options=options)
        return self._seen, info

    def step(self, action: Any) -> Any:
        """The learner's action; the other answers to what both see."""
        theirs = self.other(self._seen)
        pair = (action, theirs) if self.learner == "agent" else (theirs, action)
        self._seen, reward, *rest = self.env.step(pair)
        return self._seen, reward if self.learner == "agent" else -reward, *rest


class VectorWorld:
    """A gymnasium vector environment as worlds to learn in.

    With autoreset NEXT_STEP (gymnasium's default) the step after an end executes nothing and shows the reset state: it
    is marked as not real and never enters the replay. With DISABLED the worlds are reset here, with seeds that depend
    on (seed, episode) alone: `of` makes such ones, and only those can be saved.

    Args:
        vector: the environments.
        seeds: one for each.

    Raises:
        InputError: another number of seeds, autoreset SAME_STEP, spaces that are no vectors.
    """

    def __init__(self, vector: Any, seeds: Sequence[int]) -> None:
        mode = vector.metadata.get("autoreset_mode")
        self._mode = getattr(mode, "value", str(mode))
        if self._mode not in _RESETS:
            raise InputError(f"VectorWorld: expected autoreset {' or '.join(_RESETS)}, got {self._mode}; choose one")
        if vector.num_envs != len(seeds):
            raise InputError(f"VectorWorld: expected a seed for each of {vector.num_envs} worlds, got {len(seeds)}")
        single = vector.single_action_space
        self.low, self.high = torch.from_numpy(single.low.copy()), torch.from_numpy(single.high.copy())
        self.observation_size = vector.single_observation_space.shape[0]
        self.vector, self.seeds = vector, list(seeds)
        self._episode, self._over = [0] * len(seeds), np.zeros(len(seeds), dtype=bool)
        self._seen = self._reset(np.ones(len(seeds), dtype=bool))

    @staticmethod
    def of(name: str, seeds: Sequence[int], **settings: Any) -> VectorWorld:
        """Worlds of one kind, by gymnasium's name, stepped in this process; see `make` for what it raises."""
        check = make(name, **settings)
        check_box(check, name)
        check.close()
        mode = gymnasium.vector.AutoresetMode.DISABLED
        makers = [lambda: make(name, **settings) for _ in seeds]
        return VectorWorld(gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=mode), seeds)

    def _reset(self, rows: np.ndarray) -> np.ndarray:
        pairs = zip(self.seeds, self._episode, strict=True)
        seeds = [int(np.random.SeedSequence([seed % 2**64, turn]).generate_state(1)[0]) for seed, turn in pairs]
        options = None if rows.all() else {"reset_mask": rows}
        seen, _ = self.vector.reset(seed=seeds, options=options)
        for row in np.flatnonzero(rows):
            self._episode[row] += 1
        return seen

    @property
    def observation(self) -> Tensor:
        """(n, o) float32: what is seen now."""
        return torch.from_numpy(np.asarray(self._seen, dtype=np.float32))

    def step(self, action: Tensor) -> Move:
        """Execute (n, a) actions."""
        check_actions(action, len(self.seeds), len(self.low))
        real = ~self._over if self._mode == "NextStep" else np.ones(len(self.seeds), dtype=bool)
        seen, reward, terminated, truncated, _ = self.vector.step(action.numpy())
        over = terminated | truncated
        parts = (np.asarray(seen, dtype=np.float32), reward.astype(np.float32), terminated, truncated, real)
        move = Move(*(torch.from_numpy(part.copy()) for part in parts))
        self._seen, self._over = seen, over
        if self._mode == "Disabled" and over.any():
            self._seen, self._over = self._reset(over), np.zeros_like(over)
        return move

    def state_dict(self) -> dict[str, Any]:
        """Where every environment is.

        Raises:
            InputError: environments whose state cannot be read: not of MuJoCo, or not made by `of`.
        """
        if self._mode != "Disabled" or not hasattr(self.vector, "envs"):
            raise InputError("VectorWorld: expected worlds made by VectorWorld.of to save them, got others; use it")
        physics = [physics_state(env) for env in self.vector.envs]
        return {"episode": list(self._episode), "physics": physics, "seen": torch.from_numpy(self._seen.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._episode, self._seen = list(state["episode"]), state["seen"].numpy().copy()
        for env, saved in zip(self.vector.envs, state["physics"], strict=True):
            restore_physics(env, saved)
