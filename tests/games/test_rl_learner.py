"""Learning to act: what enters the replay, what the critic is told, and going on after a stop."""

import math

import pytest
import torch

from danskin.errors import DivergenceError, InputError, ModelError
from danskin.games.rl.learner import Learner, Schedule
from danskin.games.rl.movers import DescentAscent, ExtraAdam, MixedNELD
from danskin.games.rl.pendulum import EPISODE, PendulumWorld, Physics, advance, observe
from danskin.games.rl.replay import Batch, Replay
from danskin.games.rl.rules import NoisyAction, ProbabilisticAction
from danskin.games.rl.td3 import TD3, Players, ddpg
from danskin.minmax.random import Streams

SMALL = TD3(hidden=(8, 8), batch=8)
STREAMS = Streams.of(0, torch.arange(1))


def learner(mover=None, rule=None, seeds=(0, 1), steps=60, world=None, settings=SMALL, warmup=20):
    world, rule, mover = world or PendulumWorld(list(seeds)), rule or NoisyAction(0.1), mover or DescentAscent()
    return Learner(world, list(seeds), rule, mover, settings, Schedule(steps, warmup))


def test_the_batched_pendulum_walks_as_gymnasiums_does():
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'danskin[rl]'")
    draw = torch.Generator().manual_seed(0)
    for mass, length, gravity in [(1.0, 1.0, 10.0), (0.5, 1.3, 7.0), (2.0, 0.8, 13.0)]:
        env = gymnasium.make("Pendulum-v1").unwrapped
        env.m, env.l, env.g = mass, length, gravity
        env.reset(seed=1)
        angle, speed = torch.from_numpy(env.state.copy())
        for _ in range(EPISODE):
            torque = 6 * torch.rand(1, generator=draw, dtype=torch.float64) - 3
            seen, reward, terminated, *_ = env.step(torque.numpy())
            angle, speed, mine = advance(angle, speed, torque[0], Physics(mass, length, gravity))
            assert abs(float(mine) - reward) < 1e-9 and not terminated
            torch.testing.assert_close(observe(angle, speed), torch.from_numpy(seen), rtol=0, atol=1e-6)


def test_a_pendulum_without_mass_is_refused():
    with pytest.raises(InputError, match="mass > 0"):
        Physics(mass=torch.tensor([1.0, 0.0]))


def test_time_being_up_is_no_end_of_the_world():
    run = learner(steps=EPISODE + 30, warmup=EPISODE + 20)
    run.run()
    held = run.replay.content[:, : run.t]
    assert bool((held[..., -1] == 0).all())  # no transition is terminal
    assert [(t, row) for t, row, _ in run.returns] == [(EPISODE, 0), (EPISODE, 1)]
    last = held[:, EPISODE - 1]
    angle = torch.atan2(last[:, 1], last[:, 0]).double()
    after = observe(*advance(angle, last[:, 2].double(), last[:, 3].double(), Physics())[:2])
    torch.testing.assert_close(last[:, 5:8], after, rtol=0, atol=1e-5)  # leads where physics says, not to the reset
    assert not torch.allclose(last[:, 5:8], held[:, EPISODE, :3], atol=1e-2)


def test_the_target_looks_beyond_time_limits_but_not_beyond_ends():
    settings = TD3(hidden=(4,), smoothing=0.0, discount=0.9)
    players = Players(PendulumWorld([0]), [0], NoisyAction(0.25), DescentAscent(), settings)
    state, action = torch.randn(1, 2, 3), torch.randn(1, 2, 1)
    batch = Batch(state, action, torch.tensor([[1.0, 2.0]]), state + 1, torch.tensor([[0.0, 1.0]]))
    u, v = players.targets["agent"](state + 1), players.targets["adversary"](state + 1)
    values = players.targets["critic"](state + 1, 0.75 * u + 0.25 * v)
    found = players.target(batch, Streams.of(0, torch.arange(1)))
    torch.testing.assert_close(found[0, 0], 1 + 0.9 * torch.minimum(values[0], values[1])[0, 0])
    assert found[0, 1] == 2


@pytest.mark.parametrize("rule", [NoisyAction(0.3), ProbabilisticAction(0.3)])
def test_the_agent_climbs_the_value_at_the_states_own_actions_and_the_adversary_descends(rule):
    players = Players(PendulumWorld([0]), [0], rule, DescentAscent(1e-3), SMALL)
    state = torch.randn(1, 50, 3)
    before = players.payoff(state, STREAMS)
    own = {"agent": players.agent, "adversary": players.adversary}
    for name, sign in (("agent", -1), ("adversary", 1)):
        net = own[name]
        grads = torch.autograd.grad(players.payoff(state, STREAMS), list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), grads, strict=True):
                p.add_(g, alpha=sign * 1e-2)
            after = players.payoff(state, STREAMS)
            for p, g in zip(net.parameters(), grads, strict=True):
                p.sub_(g, alpha=sign * 1e-2)
        assert sign * (after - before) > 0
    start = [p.detach().clone() for p in players.agent.parameters()]
    other = [p.detach().clone() for p in players.adversary.parameters()]
    g_agent = torch.autograd.grad(players.payoff(state, STREAMS), list(players.agent.parameters()))
    g_other = torch.autograd.grad(players.payoff(state, STREAMS), list(players.adversary.parameters()))
    players.moving.step(lambda: players.payoff(state, STREAMS))
    for p, was, g in zip(players.agent.parameters(), start, g_agent, strict=True):
        assert bool(((p - was) * g <= 0).all())
    for p, was, g in zip(players.adversary.parameters(), other, g_other, strict=True):
        assert bool(((p - was) * g >= 0).all())


def test_the_first_critic_alone_is_the_first_of_both():
    players = Players(PendulumWorld([0, 1, 2]), [0, 1, 2], NoisyAction(0.1), DescentAscent(), SMALL)
    s, a = torch.randn(3, 5, 3), torch.randn(3, 5, 1)
    torch.testing.assert_close(players.critic.first(s, a), players.critic(s, a)[0])


def test_the_step_that_only_resets_never_enters_the_replay():
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'danskin[rl]'")
    from danskin.games.rl.environments import VectorWorld

    vector = gymnasium.make_vec("Pendulum-v1", 2, vectorization_mode="sync", max_episode_steps=7)
    assert vector.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.NEXT_STEP
    run = learner(world=VectorWorld(vector, [0, 1]), steps=80)
    run.run()
    assert run.replay.written.tolist() == [70, 70]  # of 80 steps, every eighth only reset
    held = run.replay.content[:, :70]
    state, action, following = held[..., :3], held[..., 3], held[..., 5:8]
    angle = torch.atan2(state[..., 1], state[..., 0]).double()
    after = observe(*advance(angle, state[..., 2].double(), action.double(), Physics())[:2])
    torch.testing.assert_close(following, after, rtol=0, atol=1e-5)
    assert bool((held[..., -1] == 0).all()) and len(run.returns) == 2 * 10
    assert run.returns[0][2] == pytest.approx(float(held[0, :7, 4].sum()), rel=1e-5)


def test_same_step_autoreset_is_refused():
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'danskin[rl]'")
    from danskin.games.rl.environments import VectorWorld

    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    vector = gymnasium.make_vec("Pendulum-v1", 2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
    with pytest.raises(InputError, match="SameStep"):
        VectorWorld(vector, [0, 1])


MOVERS = {
    "adam": DescentAscent(),
    "rmsprop": DescentAscent(optimizer="rmsprop"),
    "extra": ExtraAdam(),
    "langevin": MixedNELD(inner=2, epsilon=0.01),
    "sgld": MixedNELD(rms=None, epsilon=0.01),
}


def weights(run):
    return torch.cat([p.detach().flatten() for net in run.players.networks.values() for p in net.parameters()])


@pytest.mark.parametrize("name", MOVERS)
def test_going_on_from_a_checkpoint_is_bit_for_bit_as_if_nothing_had_happened(name, tmp_path):
    whole, first, second = (learner(MOVERS[name], ProbabilisticAction(0.2)) for _ in range(3))
    whole.run()
    for _ in range(37):
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.run()
    assert torch.equal(weights(whole), weights(second))
    assert torch.equal(whole.replay.content, second.replay.content)
    assert not torch.equal(weights(whole), weights(first))


def test_a_seed_does_not_depend_on_which_others_run_beside_it():
    both, alone = learner(MOVERS["langevin"], seeds=(5, 3)), learner(MOVERS["langevin"], seeds=(3,))
    both.run()
    alone.run()
    for name, net in alone.players.networks.items():
        for p, q in zip(net.parameters(), both.players.networks[name].parameters(), strict=True):
            mine = q.view(-1, 2, *q.shape[1:])[:, 1].reshape(p.shape)
            torch.testing.assert_close(p, mine, rtol=1e-3, atol=1e-4)


def test_without_say_the_adversary_is_not_trained_and_the_agent_acts_alone():
    run = learner(rule=NoisyAction(0.0))
    before = [p.detach().clone() for p in run.players.adversary.parameters()]
    run.run()
    assert all(torch.equal(p, q) for p, q in zip(run.players.adversary.parameters(), before, strict=True))


def test_a_random_adversary_acts_as_often_as_its_probability_says_uniformly_in_the_range_and_learns_nothing():
    run = learner(rule=ProbabilisticAction(0.3, "random"), seeds=range(40), steps=EPISODE + 120, warmup=20)
    run.schedule = Schedule(EPISODE + 120, 20, explore=0.0)
    before = [p.detach().clone() for p in run.players.adversary.parameters()]
    for _ in range(20):
        run.step()
    others = []
    while not run.finished:
        state = run.world.observation
        own = run.players.agent(state[:, None])[:, 0].detach()
        run.step()
        executed = run.replay.content[:, run.t - 1, 3]
        others += executed[(executed - own[:, 0]).abs() > 1e-6].tolist()
    n = 40 * (EPISODE + 100)
    assert len(others) == pytest.approx(0.3 * n, abs=4 * (n * 0.3 * 0.7) ** 0.5)
    found = torch.tensor(others).sort()[0]
    even = -2 + 4 * (torch.arange(len(found)) + 0.5) / len(found)
    assert float((found - even).abs().max()) < 4 * 1.63 / len(found) ** 0.5  # Kolmogorov-Smirnov at 1 %
    for net in (run.players.adversary, run.players.targets["adversary"]):
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("kind", [NoisyAction, ProbabilisticAction])
@torch.no_grad()
def test_the_value_of_what_a_random_adversary_does_is_its_mean_over_uniform_actions(kind):
    settings, n, rule = TD3(hidden=(8, 8), smoothing=0.0, discount=0.9), 20_000, kind(0.25, "random")
    players = Players(PendulumWorld([0]), [0], rule, DescentAscent(), settings)
    for net in (players.agent, players.targets["agent"]):
        net.body.layers[-1].bias.fill_(1.0)  # an action far from the middle, where a random one is on average
    state = torch.tensor([[[0.6, -0.8, 1.5]]])
    own, grid = players.agent(state), (-2 + 4 * (torch.arange(1000) + 0.5) / 1000).reshape(1, -1, 1)
    seen, mine, many = state.expand(1, 1000, 3), own.expand(1, 1000, 1), state.expand(1, n, 3)
    zeros = torch.zeros(1, n)
    batch = Batch(many, own.expand(1, n, 1), zeros, many, zeros)
    payoff, target = -players.payoff(many, STREAMS), players.target(batch, STREAMS).mean()

    def twins(action):
        return 0.9 * players.targets["critic"](seen[:, : action.shape[1]], action).amin(0)

    def first(action):
        return players.critic.first(seen[:, : action.shape[1]], action)

    for q, found in ((first, payoff), (twins, target)):
        values = rule.value(q, mine, grid)
        tolerance = 4 * float(values.std()) / n**0.5
        assert abs(float(found - values.mean())) < tolerance
        assert abs(float(q(own) - values.mean())) > 2 * tolerance  # the agent alone has another value
    assert len(players.moving.state_dict()["optimizers"]) == 1


def test_targets_follow_by_their_share_with_every_step_of_the_players_and_nothing_learns_before():
    run = learner(settings=TD3(hidden=(8, 8), batch=8, polyak=0.01, delay=2), steps=30, warmup=20)
    start = weights(run)
    for _ in range(20):
        run.step()
    assert torch.equal(weights(run), start) and run.players.updates == 0
    run.step()
    targets = [p.clone() for net in run.players.targets.values() for p in net.parameters()]
    run.step()
    now = [p.detach() for net in run.players.networks.values() for p in net.parameters()]
    after = [p for net in run.players.targets.values() for p in net.parameters()]
    for old, new, found in zip(targets, now, after, strict=True):
        torch.testing.assert_close(found, 0.99 * old + 0.01 * new)


def test_noise_on_target_actions_is_a_share_of_half_the_range_and_clipped():
    settings = TD3(hidden=(4,), smoothing=0.2, clip=0.25)
    players = Players(PendulumWorld([0]), [0], NoisyAction(0.0), DescentAscent(), settings)
    moved = players._smooth(torch.zeros(1, 20_000, 1), STREAMS)  # half the range is 2
    assert float(moved.abs().max()) == pytest.approx(0.5)
    inside = moved[moved.abs() < 0.499]
    share = math.erf(0.25 / 0.2 / 2**0.5)  # of a normal number within its clip
    assert len(inside) / 20_000 == pytest.approx(share, abs=0.02)
    assert float(players._smooth(torch.full((1, 1000, 1), 2.0), STREAMS).max()) == 2  # never beyond the range


def test_random_masses_are_uniform_between_their_ends_and_anew_for_each_episode():
    world = PendulumWorld(range(2000), (0.5, 2.0))
    first = world._physics().mass
    assert 0.5 < float(first.min()) < 0.51 and 1.99 < float(first.max()) < 2.0
    assert float(first.mean()) == pytest.approx(1.25, abs=4 * 1.5 / 12**0.5 / 2000**0.5)
    for _ in range(EPISODE):
        world.step(torch.zeros(2000, 1))
    assert not torch.equal(world._physics().mass, first)


def test_replay_is_a_ring_for_each_seed():
    replay = Replay(2, 3, 1, 1)
    for i in range(5):
        x = torch.full((2, 1), float(i))
        replay.add(x, x, x[:, 0], x, torch.zeros(2, dtype=torch.bool), torch.tensor([True, i < 1]))
    assert replay.written.tolist() == [5, 1]
    drawn = replay.sample(Streams.of(0, torch.arange(2)), 200)
    assert set(drawn.state[0].flatten().tolist()) == {2.0, 3.0, 4.0}
    assert set(drawn.state[1].flatten().tolist()) == {0.0}


def test_bad_input_is_told():
    with pytest.raises(InputError, match="all different"):
        learner(seeds=(1, 1))
    with pytest.raises(InputError, match="warmup"):
        Schedule(10, warmup=10)
    with pytest.raises(InputError, match="discount"):
        TD3(discount=1.0)
    with pytest.raises(InputError, match="adam or rmsprop"):
        DescentAscent(optimizer="adamw")
    with pytest.raises(InputError, match="act before you learn"):
        Replay(1, 3, 1, 1).sample(Streams.of(0, torch.arange(1)), 2)
    world = PendulumWorld([0])
    with pytest.raises(InputError, match=r"\(1, 1\)"):
        world.step(torch.zeros(2, 1))
    with pytest.raises(ModelError, match="finite"):
        world.step(torch.full((1, 1), math.nan))
    assert ddpg().delay == 1


def test_a_policy_that_is_no_longer_finite_ends_the_run():
    run = learner()
    for _ in range(25):
        run.step()
    with torch.no_grad():
        next(iter(run.players.agent.parameters())).fill_(math.nan)
    with pytest.raises(DivergenceError, match="no longer finite"):
        run.run()


@pytest.mark.slow
def test_it_learns_to_swing_the_pendulum_up():
    run = learner(rule=NoisyAction(0.0), seeds=range(4), steps=7000, settings=TD3(), warmup=1000)
    run.run()
    early = [v for t, _, v in run.returns if t <= 1000]
    late = [v for t, _, v in run.returns if t > 6000]
    assert sum(late) / len(late) > sum(early) / len(early) + 600
