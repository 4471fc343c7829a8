"""A run of robust RL: one method on a stack of seeds, resumable at any moment, then its returns. Lecture: row G3.

The folder holds config.yaml, status.json, metrics.jsonl (a line for each finished episode), checkpoints/last.pt and
result.json (returns of every seed in every condition).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

import danskin
from danskin.errors import CheckpointError, ConfigError
from danskin.files import read_lines, write_json
from danskin.games.rl.evaluate import Condition, gymnasium_returns, pendulum_returns
from danskin.games.rl.learner import Learner, Schedule
from danskin.games.rl.movers import DescentAscent, ExtraAdam, MixedNELD
from danskin.games.rl.pendulum import PendulumWorld
from danskin.games.rl.rules import NoisyAction, ProbabilisticAction
from danskin.games.rl.td3 import TD3
from danskin.games.rl.world import World
from danskin.run import checkpoint
from danskin.run.interrupts import stop_between_steps
from danskin.run.lock import locked
from danskin.run.recipe import to_yaml
from danskin.run.record import Record, config_in

PENDULUM = "pendulum"


@dataclass(frozen=True)
class Sweep:
    """Conditions in which finished policies act, each kind by itself around the nominal one.

    Args:
        mass: factors.
        length: factors; the pendulum's alone.
        gravity: in m/s².
        noise: probabilities of a random action.
        episodes: starts in each condition.
    """

    mass: tuple[float, ...] = ()
    length: tuple[float, ...] = ()
    gravity: tuple[float, ...] = ()
    noise: tuple[float, ...] = ()
    episodes: int = 50

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"sweep.episodes: expected at least 1, got {self.episodes}; 50 is usual")

    def conditions(self) -> list[tuple[str, Condition]]:
        """(kind, condition); the nominal one first, as a kind of its own."""
        found = [("nominal", Condition())]
        for kind in ("mass", "length", "gravity", "noise"):
            found += [(kind, Condition(**{kind: value})) for value in getattr(self, kind)]
        return found


@dataclass(frozen=True)
class RobustRLConfig:
    """One method of robust RL on a stack of seeds.

    Args:
        name: of the method.
        environment: "pendulum" (many at once, as gymnasium's) or the name of a MuJoCo environment of gymnasium.
        rule: who acts.
        mover: how agent and adversary move.
        td3: settings of the learner.
        schedule: how long.
        seeds: how many, from 0.
        masses: (least, greatest) mass in training, drawn for each episode; the pendulum's alone.
        sweep: where finished policies act.
        checkpoint_every: steps.
        threads: of torch.
    """

    kind: ClassVar[str] = "reproduce"

    name: str = "robust_rl"
    environment: str = PENDULUM
    rule: NoisyAction | ProbabilisticAction = field(default_factory=NoisyAction)
    mover: DescentAscent | ExtraAdam | MixedNELD = field(default_factory=DescentAscent)
    td3: TD3 = field(default_factory=TD3)
    schedule: Schedule = field(default_factory=Schedule)
    seeds: int = 10
    masses: tuple[float, float] = (1.0, 1.0)
    sweep: Sweep = field(default_factory=Sweep)
    checkpoint_every: int = 1000
    threads: int = 1

    def __post_init__(self) -> None:
        for what in ("seeds", "checkpoint_every", "threads"):
            if getattr(self, what) < 1:
                raise ConfigError(f"{what}: expected at least 1, got {getattr(self, what)}; give a whole number")
        if self.environment != PENDULUM and (self.masses != (1.0, 1.0) or self.sweep.length):
            raise ConfigError(
                f"environment: expected {PENDULUM!r} for masses or lengths that vary, got {self.environment!r}; leave "
                "masses and sweep.length out"
            )

    def world(self) -> World:
        """A world for each seed.

        Raises:
            MissingError: gymnasium or mujoco is needed and not installed.
        """
        if self.environment == PENDULUM:
            return PendulumWorld(range(self.seeds), self.masses)
        from danskin.games.rl.environments import VectorWorld

        return VectorWorld.of(self.environment, range(self.seeds))

    def learner(self) -> Learner:
        """At its first step."""
        return Learner(self.world(), range(self.seeds), self.rule, self.mover, self.td3, self.schedule)


def run_robust_rl(
    config: RobustRLConfig, folder: Path, listen: Callable[[dict[str, Any]], None] = lambda event: None
) -> dict[str, Any]:
    """Train and evaluate, or go on with what is in the folder; a finished run is left alone.

    Args:
        config: of the run.
        folder: made if it is not there.
        listen: is told every event.

    Returns:
        What result.json holds.

    Raises:
        ConfigError: the folder holds a run of another config, or another process works there.
        MissingError: gymnasium or mujoco is needed and not installed.
        DivergenceError: a policy is no longer finite.
        KeyboardInterrupt: asked to stop; a checkpoint is saved.
    """
    torch.set_num_threads(config.threads)
    with locked(folder):
        record = _opened(config, folder)
        done = record.result()
        if done is not None:
            return done
        try:
            learner = _trained(config, record, listen)
            listen({"event": "evaluate", "model": config.name})
            result = _result(config, learner)
            write_json(folder / "result.json", result)
            record.status("finished", "done")
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            record.status("interrupted" if stopped else "failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            record.close()
    return result


def _opened(config: RobustRLConfig, folder: Path) -> Record:
    if not (folder / "config.yaml").is_file():
        for left in folder.glob(".*.tmp"):  # by a kill in the middle of the first write
            left.unlink()
        return Record.create(config, folder.parent, folder)
    record, known = Record.open(folder, RobustRLConfig)
    if known != config:
        raise ConfigError(f"{folder}: expected a run of this very config, got one of another; choose another --out")
    return record


def _trained(config: RobustRLConfig, record: Record, listen: Callable[[dict[str, Any]], None]) -> Learner:
    learner, last = config.learner(), record.folder / "checkpoints" / "last.pt"
    if last.is_file():
        saved = checkpoint.load(last)
        if set(saved) != {"state", "config"}:
            raise CheckpointError(f"{last}: expected a checkpoint of robust RL, got another file; delete it")
        if config_in(saved["config"], RobustRLConfig, str(last)) != config:
            raise CheckpointError(f"{last}: expected a checkpoint of this very config, got one of another; delete it")
        learner.load_state_dict(saved["state"])

    def save() -> None:
        checkpoint.save(last, {"state": learner.state_dict(), "config": to_yaml(config)})

    path = record.folder / "metrics.jsonl"  # may be ahead of the checkpoint: what is there is not written again
    written = len(read_lines(path, ("step", "seed", "return"))) if path.is_file() else 0
    with stop_between_steps() as stop:
        while not learner.finished:
            told = len(learner.returns)
            learner.step()
            for t, row, value in learner.returns[told:]:
                event = {"event": "episode", "model": config.name, "step": t, "seed": row, "return": value}
                told += 1
                if told > written:
                    record.event(event)
                listen(event)
            if learner.t % config.checkpoint_every == 0 or learner.finished:
                save()
            if stop():
                save()
                raise KeyboardInterrupt
    return learner


def _result(config: RobustRLConfig, learner: Learner) -> dict[str, Any]:
    kinds, conditions = zip(*config.sweep.conditions(), strict=True)
    if config.environment == PENDULUM:
        found = pendulum_returns(learner.players.agent, config.seeds, list(conditions), config.sweep.episodes)
    else:
        found = gymnasium_returns(
            config.environment, learner.players.agent, config.seeds, list(conditions), config.sweep.episodes
        )
    means = found.double().mean(-1)
    return {
        "danskin": danskin.__version__,
        "method": config.name,
        "environment": config.environment,
        "conditions": [{"kind": kind, "name": str(c)} for kind, c in zip(kinds, conditions, strict=True)],
        "episodes": config.sweep.episodes,
        "returns": [[round(v, 3) for v in row] for row in means.tolist()],  # of each seed in each condition
        "curve": [[t, row, round(value, 3)] for t, row, value in learner.returns],
    }
