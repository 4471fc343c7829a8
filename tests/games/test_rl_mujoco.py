"""Changed physics of MuJoCo environments, and learning in them."""

import re
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'danskin[rl]'")
mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed: pip install 'danskin[rl]'")

from danskin.errors import InputError, MissingError  # noqa: E402
from danskin.games.rl.environments import VectorWorld, make  # noqa: E402
from danskin.games.rl.evaluate import Condition, gymnasium_returns  # noqa: E402
from danskin.games.rl.learner import Learner, Schedule  # noqa: E402
from danskin.games.rl.movers import MixedNELD  # noqa: E402
from danskin.games.rl.physics import physics_state, restore_physics, scale_mass, set_gravity  # noqa: E402
from danskin.games.rl.rules import NoisyAction  # noqa: E402
from danskin.games.rl.td3 import TD3  # noqa: E402

NAMES = ["InvertedPendulum-v5", "Hopper-v5"]
MASSES = ("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0")


def written(env, factor):
    """The environment's own XML with every density multiplied, compiled anew."""
    with open(env.unwrapped.fullpath, encoding="utf-8") as stream:
        text = stream.read()
    assert "density=" not in text and "mass=" not in text  # so that all masses come from the default of 1000
    text, count = re.subn(r"<geom ", f'<geom density="{1000 * factor}" ', text)
    assert count
    return mujoco.MjModel.from_xml_string(text)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_scaled_mass_is_a_model_of_another_density(name, factor):
    env = make(name)
    nominal = {field: getattr(env.unwrapped.model, field).copy() for field in MASSES}
    scale_mass(env, factor)
    expected = written(env, factor)
    for field in MASSES:
        np.testing.assert_allclose(getattr(env.unwrapped.model, field), getattr(expected, field), rtol=1e-9, atol=1e-12)
    assert not np.allclose(env.unwrapped.model.body_inertia, nominal["body_inertia"])

    env.reset(seed=0)
    model, data = env.unwrapped.model, mujoco.MjData(expected)
    data.qpos[:], data.qvel[:] = env.unwrapped.data.qpos, env.unwrapped.data.qvel
    for i in range(20):
        env.unwrapped.data.ctrl[:] = data.ctrl[:] = np.sin(i)
        mujoco.mj_step(model, env.unwrapped.data)
        mujoco.mj_step(expected, data)
    np.testing.assert_allclose(env.unwrapped.data.qpos, data.qpos, rtol=1e-8, atol=1e-10)
    env.close()


def test_scaling_leaves_positions_and_other_bodies_as_they_are():
    env = make("Hopper-v5")
    env.reset(seed=0)
    before, masses = env.unwrapped.data.qpos.copy(), env.unwrapped.model.body_mass.copy()
    scale_mass(env, 2.0, body="torso")
    assert np.array_equal(env.unwrapped.data.qpos, before)
    row = env.unwrapped.model.body("torso").id
    changed = env.unwrapped.model.body_mass / np.where(masses, masses, 1)
    assert changed[row] == 2 and set(np.delete(changed, [0, row])) == {1.0}
    set_gravity(env, 5.0)
    assert env.unwrapped.model.opt.gravity.tolist() == [0, 0, -5.0]
    env.close()


def test_what_cannot_be_scaled_is_refused():
    env = make("InvertedPendulum-v5")
    with pytest.raises(InputError, match="factor > 0"):
        scale_mass(env, 0.0)
    with pytest.raises(InputError, match="pole"):
        scale_mass(env, 2.0, body="polle")
    with pytest.raises(InputError, match="expected a MuJoCo environment"):
        scale_mass(make("Pendulum-v1"), 2.0)
    with pytest.raises(InputError, match="length"):
        gymnasium_returns("InvertedPendulum-v5", None, 1, [Condition(length=2.0)], 1)
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_an_environment_goes_on_from_its_state_to_the_last_bit(name):
    env, other = make(name), make(name)
    env.reset(seed=1)
    other.reset(seed=2)
    draw = np.random.default_rng(0)
    actions = [draw.uniform(env.action_space.low, env.action_space.high).astype(np.float32) for _ in range(30)]
    for action in actions[:10]:
        env.step(action)
    restore_physics(other, physics_state(env))
    for action in actions[10:]:
        one, two = env.step(action), other.step(action)
        assert np.array_equal(one[0], two[0]) and one[1:4] == two[1:4]
    env.close()
    other.close()


def learner():
    world = VectorWorld.of("InvertedPendulum-v5", [0, 1], max_episode_steps=12)
    return Learner(
        world, [0, 1], NoisyAction(0.1), MixedNELD(epsilon=0.01), TD3(hidden=(8, 8), batch=8), Schedule(90, warmup=30)
    )


def test_learning_in_mujoco_resumes_bit_for_bit_and_tells_ends_from_time_limits(tmp_path):
    whole, first, second = learner(), learner(), learner()
    whole.run()
    for _ in range(53):
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.run()
    assert torch.equal(whole.replay.content, second.replay.content) and whole.returns == second.returns
    lengths = []
    for row in (0, 1):
        ends = [0, *(t for t, r, _ in whole.returns if r == row)]
        lengths += [(b - a, float(whole.replay.content[row, b - 1, -1])) for a, b in pairwise(ends)]
    assert {terminal for length, terminal in lengths if length == 12} <= {0.0, 1.0}
    assert all(terminal == 1 for length, terminal in lengths if length < 12)  # it fell
    assert any(terminal == 0 for length, terminal in lengths if length == 12)  # time was up


def test_returns_over_conditions_are_those_of_a_loop_of_single_episodes():
    def policies(seen):
        return torch.stack([-0.5 * seen[0, :, 1:2], 2.0 * seen[1, :, 1:2]])

    conditions = [Condition(), Condition(mass=2.0)]
    found = gymnasium_returns("InvertedPendulum-v5", policies, 2, conditions, 2, max_episode_steps=40)
    for c, condition in enumerate(conditions):
        env = make("InvertedPendulum-v5", max_episode_steps=40)
        if condition.mass != 1:
            scale_mass(env, condition.mass)
        seen, _ = env.reset(seed=int(np.random.default_rng([0, 1]).integers(2**31)))
        over, total = False, 0.0
        while not over:
            action = policies(torch.tensor(seen, dtype=torch.float32).expand(2, 1, -1))[1, 0].numpy()
            seen, reward, terminated, truncated, _ = env.step(action)
            total, over = total + reward, terminated or truncated
        assert float(found[1, c, 1]) == total
        env.close()


def test_random_actions_take_the_policys_place_as_often_as_said():
    """A policy that holds the pole for all of the time; with every action random nobody does."""

    def policies(seen):
        return (3 * seen[..., 1:2] + 0.5 * seen[..., 3:4]).clamp(-3, 3)

    conditions = [Condition(), Condition(noise=1.0)]
    held, fallen = gymnasium_returns("InvertedPendulum-v5", policies, 1, conditions, 3, max_episode_steps=100)[0]
    assert held.tolist() == [100] * 3 and float(fallen.max()) < 60


def test_without_imageio_mujoco_acts_and_saving_a_picture_tells_what_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "imageio", None)  # as if it were not installed
    env = make("InvertedPendulum-v5")
    env.reset(seed=0)
    assert env.step(np.zeros(1, dtype=np.float32))[1] == 1.0
    rendering = sys.modules["gymnasium.envs.mujoco.mujoco_rendering"]
    with pytest.raises(MissingError, match=r"imwrite.*pip install 'danskin\[rl\]'"):
        rendering.imageio.imwrite("picture.png", np.zeros((2, 2, 3)))
    env.close()


def test_without_mujoco_the_command_that_brings_it_is_told(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("gymnasium.envs.mujoco", "mujoco"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(MissingError, match=r"pip install 'danskin\[rl\]'"):
        make("InvertedPendulum-v5")
