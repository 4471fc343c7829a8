"""Agent and adversary in one body: the rules, and the wrappers for gymnasium."""

import importlib
import sys

import numpy as np
import pytest
import torch

from danskin.errors import InputError, MissingError
from danskin.games.rl.rules import NoisyAction, ProbabilisticAction

LINEAR = torch.tensor([2.0, -3.0])


@pytest.mark.parametrize("rule", [NoisyAction(0.3), ProbabilisticAction(0.3)])
def test_a_linear_value_is_the_mean_of_what_both_rules_execute(rule):
    agent, adversary = torch.tensor([1.0, 0.5]), torch.tensor([-1.0, 2.0])
    expected = 0.7 * (LINEAR @ agent) + 0.3 * (LINEAR @ adversary)
    torch.testing.assert_close(rule.value(lambda a: a @ LINEAR, agent, adversary), expected)
    draws = (torch.arange(1000) + 0.5) / 1000
    executed = rule.executed(agent.expand(1000, 2), adversary.expand(1000, 2), draws)
    torch.testing.assert_close((executed @ LINEAR).mean(), expected)


def test_of_a_curved_value_one_rule_takes_the_value_of_the_mean_the_other_the_mean_of_values():
    agent, adversary = torch.tensor([1.0]), torch.tensor([-1.0])
    square = lambda a: a[..., 0] ** 2  # noqa: E731
    assert NoisyAction(0.5).value(square, agent, adversary) == 0
    assert ProbabilisticAction(0.5).value(square, agent, adversary) == 1


@pytest.mark.parametrize("kind", [NoisyAction, ProbabilisticAction])
def test_share_zero_is_the_agent_and_share_one_the_adversary(kind):
    agent, adversary, draw = torch.ones(4, 2), -torch.ones(4, 2), torch.rand(4)
    assert torch.equal(kind(0).executed(agent, adversary, draw), agent)
    assert torch.equal(kind(1).executed(agent, adversary, draw), adversary)
    assert not kind(0).adversarial and kind(1).adversarial


@pytest.mark.parametrize("kind", [NoisyAction, ProbabilisticAction])
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "0.1", True])
def test_a_share_outside_0_to_1_is_refused(kind, share):
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        kind(share)


@pytest.mark.parametrize("kind", [NoisyAction, ProbabilisticAction])
def test_a_random_adversary_has_a_say_and_learns_nothing_and_others_are_refused(kind):
    assert kind(0.1, "random").adversarial and not kind(0.1, "random").learned
    assert kind(0.1).learned and not kind(0).learned
    with pytest.raises(InputError, match="learned or random"):
        kind(0.1, "randon")


def test_without_gymnasium_the_command_that_brings_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "danskin.games.rl.environments", raising=False)
    with pytest.raises(MissingError, match=r"pip install 'danskin\[rl\]'"):
        importlib.import_module("danskin.games.rl.environments")


class TestWrappers:
    @pytest.fixture
    def env(self):
        pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'danskin[rl]'")
        from danskin.games.rl import environments

        made = environments.make("Pendulum-v1")
        yield made
        made.close()

    def test_the_body_executes_the_blend(self, env):
        from danskin.games.rl.environments import TwoPlayers

        two = TwoPlayers(env, NoisyAction(0.25))
        two.reset(seed=0)
        info = two.step((np.array([2.0]), np.array([-2.0])))[-1]
        assert info["executed"] == pytest.approx([1.0])
        assert env.unwrapped.last_u == pytest.approx(1.0)

    def test_the_adversary_acts_as_often_as_its_probability_says_and_by_the_seed(self, env):
        from danskin.games.rl.environments import TwoPlayers

        def acted():
            two = TwoPlayers(env, ProbabilisticAction(0.3))
            two.reset(seed=3)
            moves = [two.step((np.array([1.0]), np.array([-1.0]))) for _ in range(200)]
            return [float(move[-1]["executed"][0]) for move in moves]

        first = acted()
        assert set(first) == {1.0, -1.0} and first == acted()
        assert first.count(-1.0) == pytest.approx(60, abs=4 * (200 * 0.3 * 0.7) ** 0.5)

    @pytest.mark.filterwarnings("ignore::UserWarning")  # a wrapper, and a range of ±2
    def test_against_a_fixed_other_it_is_an_ordinary_environment(self, env):
        from gymnasium.utils.env_checker import check_env

        from danskin.games.rl.environments import Against, TwoPlayers

        def pull(seen):
            return np.array([2.0 if seen[1] < 0 else -2.0], dtype=np.float32)

        one = Against(TwoPlayers(env, NoisyAction(0.1)), pull)
        check_env(one, skip_render_check=True)
        one.reset(seed=1)
        reward = one.step(np.array([0.5], dtype=np.float32))[1]
        other = Against(TwoPlayers(env, NoisyAction(0.1)), lambda seen: np.array([0.5]), learner="adversary")
        seen, _ = other.reset(seed=1)
        assert other.step(pull(seen))[1] == pytest.approx(-reward)

    def test_what_does_not_fit_is_refused(self, env):
        import gymnasium

        from danskin.games.rl.environments import Against, TwoPlayers, VectorWorld, make

        with pytest.raises(InputError, match="action_space"):
            TwoPlayers(gymnasium.make("CartPole-v1"), NoisyAction(0.1))
        with pytest.raises(InputError, match="expected TwoPlayers"):
            Against(env, lambda seen: seen)
        two = TwoPlayers(env, NoisyAction(0.1))
        two.reset(seed=0)
        with pytest.raises(InputError, match="adversary's action"):
            two.step((np.array([0.0]), np.array([2.5])))
        with pytest.raises(InputError, match="Pendulum-v1"):
            make("Pendulumm-v1")
        vector = gymnasium.make_vec("Pendulum-v1", 2, vectorization_mode="sync")
        with pytest.raises(InputError, match="a seed for each of 2"):
            VectorWorld(vector, [0])
