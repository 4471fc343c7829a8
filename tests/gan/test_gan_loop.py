"""The training loop: order of moves, M, resume, averages, what it refuses and warns of."""

import copy
import math

import pytest
import torch
from torch import nn

from danskin.errors import DanskinWarning, DivergenceError, InputError
from danskin.gan import (
    R1R2,
    GANTrainer,
    GradientPenalty,
    Langevin,
    NonSaturating,
    Relativistic,
    Saturating,
    Wasserstein,
    WeightClip,
    critic_conv,
    critic_mlp,
    generator_conv,
    generator_mlp,
)
from danskin.gan.optimizers import SGD, Adam, ExtraAdam, OptimisticAdam, RMSprop
from danskin.gan.trainer import Alone
from danskin.gan.watch import Watch

DATA = torch.randn(300, 2, generator=torch.Generator().manual_seed(5)) + 2


def begun(trainer, seed=0):
    torch.manual_seed(seed)
    return trainer.start(generator_mlp(shape=(2,), hidden=(8,)), critic_mlp(shape=(2,), hidden=(8,)), 2, seed)


def weights(run):
    return [p.detach().clone() for side in run.sides for p in side]


def test_a_step_is_M_critic_steps_on_the_joint_loss_and_one_of_the_generator_by_hand():
    trainer = GANTrainer(Wasserstein(), GradientPenalty(2.0), critic_steps=3, batch_size=5,
                         generator_optimizer=SGD(0.1), critic_optimizer=SGD(0.1))  # fmt: skip
    run = begun(trainer)
    G, D = copy.deepcopy(run.generator), copy.deepcopy(run.critic)
    told = run.step(DATA)
    g = torch.Generator().manual_seed(run.random.initial_seed())  # the very numbers of the step
    for _ in range(3):
        with torch.no_grad():
            z = G(torch.randn(5, 2, generator=g))
        x = DATA[torch.randint(300, (5,), generator=g)]
        eps = torch.rand(5, 1, generator=g)
        a = (z + eps * (x - z)).requires_grad_()
        (slope,) = torch.autograd.grad(D(a).sum(), a, create_graph=True)
        loss = D(z).mean() - D(x).mean() + 2 * (slope.norm(dim=1) - 1).square().mean()
        for p, d in zip(D.parameters(), torch.autograd.grad(loss, D.parameters(), allow_unused=True), strict=True):
            if d is not None:
                p.data -= 0.1 * d
    loss = -D(G(torch.randn(5, 2, generator=g))).mean()
    for p, d in zip(G.parameters(), torch.autograd.grad(loss, G.parameters()), strict=True):
        p.data -= 0.1 * d
    for p, q in zip([*G.parameters(), *D.parameters()], weights(run), strict=True):
        assert torch.allclose(p, q, atol=1e-6)
    assert told["gap"] == pytest.approx(-float(told["critic_loss"]), abs=1e-6)
    assert run.critic_step == 3 and run.t == 1


def test_simultaneous_players_answer_the_same_weights_and_alternating_ones_do_not():
    moved = {}
    for order in ("simultaneous", "alternating"):
        trainer = GANTrainer(Saturating(), order=order, batch_size=50, generator_optimizer=SGD(1.0),
                             critic_optimizer=SGD(1.0))  # fmt: skip
        run = begun(trainer)
        before = weights(run)
        run.step(DATA)
        moved[order] = [b - a for a, b in zip(before, weights(run), strict=True)]
        frozen = begun(trainer)
        for group in frozen.optimizers[1].param_groups:
            group["first_lr"] = 0.0  # the critic stands still
        frozen.step(DATA)
        alone = [b - a for a, b in zip(before, weights(frozen), strict=True)][: len(run.sides[0])]
        same = all(torch.allclose(a, b, atol=1e-7) for a, b in zip(alone, moved[order], strict=False))
        assert same == (order == "simultaneous")


TRAINERS = {
    "gp": GANTrainer(Wasserstein(), GradientPenalty(0.1), critic_steps=2, steps=20, decay="linear", ema=0.9),
    "clip": GANTrainer(Wasserstein(), WeightClip(0.1), critic_optimizer=RMSprop(1e-3), steps=20),
    "r3": GANTrainer(Relativistic(), R1R2(1, every=3), steps=20),
    "simultaneous": GANTrainer(NonSaturating(), order="simultaneous", critic_steps=2, steps=20),
    "fresh": GANTrainer(NonSaturating(), critic_init="fresh", critic_steps=3, steps=20),
    "extra": GANTrainer(Saturating(), order="simultaneous", generator_optimizer=ExtraAdam(), steps=20,
                        critic_optimizer=ExtraAdam()),
    "optimistic": GANTrainer(Saturating(), generator_optimizer=OptimisticAdam(), critic_optimizer=OptimisticAdam(),
                             steps=20, decay="linear"),
    "of torch": GANTrainer(NonSaturating(), generator_optimizer=lambda p: torch.optim.AdamW(p, 1e-3), steps=20,
                           critic_optimizer=lambda p: torch.optim.Adagrad(p, 1e-3), decay="linear"),
    "langevin": GANTrainer(Saturating(), R1R2(0.1), mover=Langevin(inner=2), steps=20),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAINERS)
def test_a_run_that_goes_on_from_a_checkpoint_is_the_same_bit_for_bit(name):
    import io

    trainer = TRAINERS[name]
    whole, first = begun(trainer), begun(trainer)
    for _ in range(8):
        whole.step(DATA)
    for _ in range(3):
        first.step(DATA)
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    second = begun(trainer, seed=0)
    second.step(DATA)  # what is there is replaced
    second.load_state_dict(torch.load(stream, weights_only=True))
    for _ in range(5):
        told = second.step(DATA)
    assert second.t == 8 and all(v.isfinite() for v in told.values())
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert torch.equal(whole.sample(10), second.sample(10))


@pytest.mark.parametrize("name", TRAINERS)
def test_both_players_move_and_other_seeds_differ(name):
    one, other = begun(TRAINERS[name]), begun(TRAINERS[name])
    other.seed = 1
    before = weights(one)
    for run in (one, other):
        for _ in range(2):
            run.step(DATA)
    moved = [not torch.equal(a, b) for a, b in zip(before, weights(one), strict=True)]
    assert any(moved[: len(one.sides[0])]) and any(moved[len(one.sides[0]) :])
    assert any(not torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    if name == "clip":
        assert max(p.abs().max().item() for p in one.sides[1]) <= 0.1 + 1e-8


def test_a_fresh_critic_forgets_and_a_warm_one_does_not():
    run = begun(GANTrainer(NonSaturating(), critic_init="fresh", critic_steps=1, critic_optimizer=SGD(0.1)))
    start = [p.detach().clone() for p in run.sides[1]]
    for _ in range(3):
        run.step(DATA)
    size = max((a - b).abs().max().item() for a, b in zip(start, run.sides[1], strict=True))
    warm = begun(GANTrainer(NonSaturating(), critic_steps=1, critic_optimizer=SGD(0.1)))
    for _ in range(3):
        warm.step(DATA)
    assert size < max((a - b).abs().max().item() for a, b in zip(start, warm.sides[1], strict=True))


def test_a_fresh_critic_forgets_its_moments_too():
    run = begun(GANTrainer(NonSaturating(), critic_init="fresh", critic_steps=2))
    for _ in range(3):
        run.step(DATA)
        assert {int(state["step"]) for state in run.optimizers[1].state.values()} == {2}
    assert {int(state["step"]) for state in run.optimizers[0].state.values()} == {3}


def test_networks_in_eval_mode_are_trained_in_training_mode():
    net = generator_conv(shape=(1, 8, 8), latent=3, width=4).eval()
    critic = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 1)).eval()
    GANTrainer(NonSaturating(), batch_size=8).start(net, critic, 3).step(torch.rand(50, 1, 8, 8))
    assert net[2].running_mean.any() and net.training and critic[1].training


def test_processes_draw_the_same_batch_and_places_on_its_lines_of_their_own():
    class Second(Alone):
        def sum(self, value):
            return 2 * value

    seeds = []
    for rank in range(2):
        torch.manual_seed(0)
        trainer = GANTrainer(Wasserstein(), GradientPenalty(), batch_size=8)
        run = trainer.start(generator_mlp(shape=(2,)), critic_mlp(shape=(2,)), 2, 0, Second(rank, 2))
        run.step(DATA)
        seeds.append((run.random.initial_seed(), run.own_random.initial_seed()))
    assert seeds[0][0] == seeds[1][0] and len({*seeds[0], *seeds[1]}) == 3
    with pytest.raises(InputError, match="multiple of the 2 processes"):
        GANTrainer(batch_size=7).start(generator_mlp(shape=(2,)), critic_mlp(shape=(2,)), 2, 0, Second(0, 2))


def test_extragradient_takes_both_players_gradients_one_step_ahead():
    """On scores that are bilinear, descent-ascent leaves the solution and extragradient nears it."""

    class Score(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x[:, 0] * self.w

    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.b = nn.Parameter(torch.ones(1))

        def forward(self, z):
            return 0 * z[:, :1] + self.b

    ends = {}
    for name, optimizer in (("plain", SGD(0.1)), ("extra", ExtraAdam(0.1, (0.0, 0.999)))):
        trainer = GANTrainer(Wasserstein(), WeightClip(100.0), order="simultaneous", generator_optimizer=optimizer,
                             critic_optimizer=optimizer, steps=300)  # fmt: skip
        run = trainer.start(Shift(), Score(), 1)
        for _ in range(300):
            run.step(torch.zeros(10, 1))  # Phi = w (0 - b): solved by 0, 0
        ends[name] = math.hypot(float(run.critic.w.detach()), float(run.generator.b.detach()))
    assert ends["plain"] > 2 and ends["extra"] < 0.7


def test_the_average_keeps_batchnorm_buffers_and_is_what_is_sampled():
    torch.manual_seed(0)
    net = generator_conv(shape=(1, 8, 8), latent=3, width=4)
    run = GANTrainer(NonSaturating(), ema=0.5, batch_size=8).start(net, critic_conv(shape=(1, 8, 8), width=4), 3)
    images = torch.rand(50, 1, 8, 8)
    seen = []
    for _ in range(3):
        run.step(images)
        seen.append(net.state_dict()["2.running_mean"].clone())
    expected = 0.5 * (0.5 * seen[0] + 0.5 * seen[1]) + 0.5 * seen[2]
    assert torch.allclose(run.sampler.state_dict()["2.running_mean"], expected)
    assert not torch.equal(run.sampler.state_dict()["2.running_mean"], seen[2])
    modes = [m.training for m in run.sampler.modules()]
    one = run.sample(6, batch_size=4)
    assert torch.allclose(one, run.sample(6), atol=1e-6) and [m.training for m in run.sampler.modules()] == modes
    assert 0 <= one.min() and one.max() <= 1


def test_bytes_are_images_in_the_unit_interval():
    seen = []

    class Looks(nn.Linear):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x.flatten(1))

    run = GANTrainer(NonSaturating(), batch_size=4).start(generator_mlp(shape=(1, 4, 4)), Looks(16, 1), 2)
    run.step(torch.full((9, 1, 4, 4), 255, dtype=torch.uint8))
    assert any(bool((x == 1).all()) for x in seen)


def test_samplers_of_data_and_of_latents_may_be_functions():
    calls = []

    def data(n, generator):
        calls.append(n)
        return torch.randn(n, 2, generator=generator)

    run = GANTrainer(NonSaturating(), batch_size=7).start(
        generator_mlp(shape=(2,)), critic_mlp(shape=(2,)), lambda n, g: torch.rand(n, 2, generator=g)
    )
    run.step(data)
    assert calls == [7] and run.sample(3).shape == (3, 2)


def test_batchnorm_in_a_critic_with_a_penalty_is_warned_of():
    critic = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.warns(DanskinWarning, match="expected no BatchNorm"):
        GANTrainer(Wasserstein(), GradientPenalty()).start(generator_mlp(shape=(2,)), critic, 2)
    GANTrainer(NonSaturating()).start(generator_mlp(shape=(2,)), critic, 2)  # no penalty, no warning


@pytest.mark.parametrize("value", [
    RMSprop(0.1, alpha=0.7), SGD(0.1, momentum=0.3), Adam(0.1, (0.2, 0.6)), ExtraAdam(0.1, (0.2, 0.6)),
    OptimisticAdam(0.1, (0.2, 0.6)),
], ids=str)  # fmt: skip
def test_the_optimiser_has_the_settings_that_were_asked_for(value):
    assert vars(value).items() <= value([nn.Parameter(torch.ones(2))]).param_groups[0].items()


def test_settings_that_do_not_go_together_are_refused():
    for options, text in (
        ({"critic_steps": 0}, "at least 1"),
        ({"steps": 0}, "at least 1"),
        ({"order": "both"}, "alternating or simultaneous"),
        ({"ema": 1.0}, r"\[0, 1\)"),
        ({"generator_optimizer": ExtraAdam()}, "both look ahead"),
        ({"mover": Langevin()}, "loses what the other wins"),
        ({"objective": Saturating(), "mover": Langevin(), "critic_steps": 2}, "both chains move together"),
    ):
        with pytest.raises(InputError, match=text):
            GANTrainer(**options)
    for lr in (0, -1.0):
        with pytest.raises(InputError, match="above 0"):
            Adam(lr)
    with pytest.warns(DanskinWarning, match="scores will run away"):
        GANTrainer(Wasserstein())


def test_weights_that_are_not_finite_end_the_run_by_name():
    run = begun(GANTrainer(NonSaturating()))
    told = run.step(DATA)
    run.check_finite(told)
    with torch.no_grad():
        run.sides[1][0][0] = math.nan
    with pytest.raises(DivergenceError, match="weights of the critic"):
        run.check_finite(told)
    with pytest.raises(DivergenceError, match="critic_loss"):
        run.check_finite(run.step(DATA))


def test_data_that_do_not_fit_the_generator_or_are_none_are_refused():
    run = begun(GANTrainer(NonSaturating()))
    with pytest.raises(InputError, match="got none"):
        run.step(DATA[:0])
    with pytest.raises(InputError, match=r"generator: expected examples as the data are, \(128, 3\)"):
        run.step(torch.randn(9, 3))


@pytest.mark.parametrize("data", [DATA[:1], torch.ones(9, 2)], ids=["one example", "all alike"])
def test_real_examples_that_do_not_differ_are_no_divergence(data):
    run = begun(GANTrainer(NonSaturating(), batch_size=len(data)))
    told = run.step(data)
    run.check_finite(told)
    assert told["spread"] == 1


def test_the_watch_tells_stuck_saturated_collapsed_and_running_away_once():
    good = {"critic_loss": 1.0, "generator_loss": 0.7, "generator_weight": 0.5, "spread": 1.0, "gap": 0.1}

    def told(**changed):
        watch, found = Watch(window=3), []
        for step in range(6):
            moving = {"critic_loss": 1.0 + 0.01 * step, "generator_loss": 0.7 - 0.01 * step}
            found += [(step, flag) for flag in watch.look(step, good | moving | changed)]
        return found

    assert told() == []
    assert told(critic_loss=-0.0, generator_loss=13.82) == [(2, "stuck")]  # as StudioGAN issue 112 shows it
    assert told(generator_weight=1e-5) == [(2, "saturated")]
    assert told(spread=1e-3) == [(2, "collapsed")]
    assert told(gap=-3e7) == [(2, "running_away")]


def test_a_hopeless_start_is_seen_as_saturated():
    run = begun(GANTrainer(Saturating(), critic_optimizer=SGD(1e-9), generator_optimizer=SGD(1e-3)))
    with torch.no_grad():
        run.critic[-1].bias.fill_(-40.0)
    watch, found = Watch(), []
    for step in range(6):
        found += watch.look(step, {k: float(v) for k, v in run.step(DATA).items()})
    assert "saturated" in found


def test_wasserstein_critics_reach_the_distance_of_a_translation_and_the_gap_keeps_its_sign():
    """Points moved by (3, 0): W1 is 3; the penalised critic's gap is near it, and told as minus the loss."""
    torch.manual_seed(0)
    trainer = GANTrainer(Wasserstein(), GradientPenalty(10.0), batch_size=64, critic_steps=20, decay="constant",
                         generator_optimizer=SGD(1e-12), critic_optimizer=Adam(1e-2))  # fmt: skip

    class Still(nn.Linear):
        def forward(self, z):
            return z + 0 * super().forward(z)

    run = trainer.start(Still(2, 2), critic_mlp(shape=(2,), hidden=(32,)), 2)
    for _ in range(20):
        told = run.step(lambda n, g: torch.randn(n, 2, generator=g) + torch.tensor([3.0, 0.0]))
    assert float(told["gap"]) == pytest.approx(3, abs=0.5) and float(told["critic_loss"]) < 0
    assert float(told["slope"]) == pytest.approx(1, abs=0.15)


def test_learning_rates_fall_in_a_line_to_0_where_it_is_asked():
    seen = {}
    for decay in ("constant", "linear"):
        run = begun(GANTrainer(NonSaturating(), steps=4, decay=decay, generator_optimizer=SGD(0.4),
                               critic_optimizer=SGD(0.8)))  # fmt: skip
        seen[decay] = []
        for _ in range(4):
            run.step(DATA)
            seen[decay].append([o.param_groups[0]["lr"] for o in run.optimizers])
    assert seen["constant"] == [[0.4, 0.8]] * 4
    assert torch.allclose(torch.tensor(seen["linear"]), torch.tensor([[0.4, 0.8], [0.3, 0.6], [0.2, 0.4], [0.1, 0.2]]))
