"""Returns over changed physics of the pendulum, beside gymnasium's own."""

import pytest
import torch

from danskin.errors import InputError
from danskin.games.rl.evaluate import Condition, pendulum_returns
from danskin.games.rl.pendulum import EPISODE, observe, starts
from danskin.minmax.random import Streams

CONDITIONS = [Condition(), Condition(mass=2.0), Condition(length=0.75), Condition(gravity=7.0), Condition(mass=0.5)]


def policies(seen):
    """Two that hold on to what they see, each in its own way."""
    return torch.stack([2 * torch.tanh(seen[0, :, 1:2] - seen[0, :, 2:]), seen[1, :, :1] - 0.5 * seen[1, :, 2:]])


def test_returns_are_those_of_gymnasiums_pendulum_with_changed_attributes():
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'danskin[rl]'")
    found = pendulum_returns(policies, 2, CONDITIONS, episodes=2, seed=3)
    assert found.shape == (2, 5, 2)
    angle, speed = starts(Streams.of(3, torch.arange(1)).child(0), 2)
    for c, condition in enumerate(CONDITIONS):
        for i in range(2):
            env = gymnasium.make("Pendulum-v1").unwrapped
            env.reset(seed=0)
            env.m, env.l, env.g = condition.mass, condition.length, condition.gravity or 10.0
            env.state, total = torch.stack([angle[0, 1], speed[0, 1]]).numpy(), 0.0
            for _ in range(EPISODE):
                seen = observe(*torch.from_numpy(env.state.copy())).expand(2, 1, 3)
                total += float(env.step(policies(seen)[i, 0].numpy())[1])
            assert float(found[i, c, 1]) == pytest.approx(total, rel=1e-4)


def test_random_actions_are_uniform_in_the_range_and_as_frequent_as_said():
    """A pole so heavy that no torque moves it, and a policy that has none: only random torques cost, 0.001 u^2 each."""
    still, heavy = torch.zeros(1, 3000, 1), {"mass": 1e9, "gravity": 1e-9}
    conditions = [Condition(**heavy), Condition(**heavy, noise=0.3)]
    both = pendulum_returns(lambda seen: still[:, : seen.shape[1]], 1, conditions, episodes=1500)
    cost = (both[0, 0] - both[0, 1]).double().mean() / EPISODE
    assert float(cost) == pytest.approx(0.3 * 0.001 * 4 / 3, rel=0.05)


def test_conditions_that_are_none_are_refused():
    for bad in ({"mass": 0.0}, {"length": -1.0}, {"noise": 1.5}):
        with pytest.raises(InputError, match="mass, length > 0"):
            Condition(**bad)
