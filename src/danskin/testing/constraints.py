"""What every constraint of a critic must satisfy, as functions that third parties run on their own constraints."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from danskin.gan import GANRun, GANTrainer, Wasserstein, critic_mlp, generator_mlp
from danskin.gan.constraint import Constraint, Penalty
from danskin.testing.expect import expect, expect_close, expect_same

MakeConstraint = Callable[[], Constraint]
_N = 6


class ConstraintCase:
    """A constraint, and a critic of its layers to try it on.

    Args:
        make: the constraint.
        dtype: of critic and examples.
        seed: of all random numbers.
    """

    def __init__(self, make: MakeConstraint, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        self.constraint, self.dtype, self.seed = make(), dtype, seed
        self.name = f"{type(self.constraint).__name__} {dtype}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = critic_mlp(shape=(3,), constraint=self.constraint, hidden=(8, 8)).to(dtype)
        self.real, self.fake = (self._drawn(k) for k in (1, 2))

    def _drawn(self, k: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + k)
        return torch.randn(_N, 3, generator=generator, dtype=torch.float64).to(self.dtype)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, step: int = 0) -> Penalty | None:
        """The penalty, always with the same random numbers."""
        return self.constraint.penalty(critic, real, fake, step, torch.Generator().manual_seed(self.seed))


def values_are_as_told(case: ConstraintCase) -> None:
    """A penalty is a finite scalar, at least 0, and what is told of slopes has no graph."""
    found = case.penalty(case.critic, case.real, case.fake)
    if found is None:
        return
    expect(found.value.shape == (), f"{case.name}: expected a scalar penalty, got shape {tuple(found.value.shape)}")
    expect(found.value.isfinite() & (found.value >= 0), f"{case.name}: expected a finite penalty >= 0")
    if found.norms is not None:
        expect(not found.norms.requires_grad, f"{case.name}: expected slopes without a graph; detach them")
        expect(found.norms.ndim == 1, f"{case.name}: expected slopes (n,), got shape {tuple(found.norms.shape)}")


def all_is_left_as_found(case: ConstraintCase) -> None:
    """A penalty touches no weight, no `.grad`, no example, and not the global random state."""
    before = [p.detach().clone() for p in case.critic.parameters()]
    kept, state = (case.real.clone(), case.fake.clone()), torch.get_rng_state()
    case.penalty(case.critic, case.real, case.fake)
    for was, now in zip(before, case.critic.parameters(), strict=True):
        expect_same(now.detach(), was, f"{case.name}: a weight of the critic")
        expect(now.grad is None, f"{case.name}: expected no .grad after penalty; use torch.autograd.grad")
    for was, example in zip(kept, (case.real, case.fake), strict=True):
        expect_same(example, was, f"{case.name}: the examples")
    expect_same(torch.get_rng_state(), state, f"{case.name}: the global random state (draw from `generator`)")


def random_numbers_are_the_generators(case: ConstraintCase) -> None:
    """The same generator gives the same penalty."""
    one, two = (case.penalty(case.critic, case.real, case.fake) for _ in range(2))
    if one is not None and two is not None:
        expect_same(one.value.detach(), two.value.detach(), f"{case.name}: the penalty drawn again")


def the_generator_gets_no_gradient(case: ConstraintCase) -> None:
    """A penalty does not move the generator."""
    fake = case.fake.clone().requires_grad_()
    found = case.penalty(case.critic, case.real, fake * 1)
    if found is not None and found.value.requires_grad:
        (g,) = torch.autograd.grad(found.value, fake, allow_unused=True)
        expect(g is None or bool((g == 0).all()), f"{case.name}: expected no gradient at generated examples; detach")


def examples_have_slopes_of_their_own(case: ConstraintCase) -> None:
    """Twice the same examples give the same mean: a norm over the whole batch would grow."""
    one = case.constraint.penalty(case.critic, case.real, case.real, 0, torch.Generator().manual_seed(0))
    twice = torch.cat([case.real, case.real])
    two = case.constraint.penalty(case.critic, twice, twice, 0, torch.Generator().manual_seed(0))
    if one is None or two is None or one.norms is None or two.norms is None:
        return
    size = float(one.norms.double().mean()), float(two.norms.double().mean())
    rise = abs(size[1] - size[0]) / max(size[0], 1e-12)
    expect(rise < 0.25, f"{case.name}: expected slopes of single examples, got a mean that depends on the batch's size")


def flat_critics_have_finite_gradients(case: ConstraintCase) -> None:
    """At slope 0 the penalty's gradient in the weights is finite (the norm's root is not differentiable there)."""
    off = nn.Linear(3, 4)
    with torch.no_grad():
        off.bias.fill_(-1e3)
    critic = nn.Sequential(off, nn.ReLU(), nn.Linear(4, 1)).to(case.dtype)
    found = case.penalty(critic, case.real, case.fake)
    if found is None or not found.value.requires_grad:
        return
    for g in torch.autograd.grad(found.value, list(critic.parameters()), allow_unused=True):
        expect(g is None or bool(g.isfinite().all()), f"{case.name}: expected finite gradients at slope 0, got NaN")


def projections_are_projections(case: ConstraintCase) -> None:
    """A second projection changes nothing."""
    critic = copy.deepcopy(case.critic)
    with torch.no_grad():
        for p in critic.parameters():
            p.mul_(3)
    case.constraint.project_(critic)
    once = [p.detach().clone() for p in critic.parameters()]
    case.constraint.project_(critic)
    for was, now in zip(once, critic.parameters(), strict=True):
        expect_close(now, was, 1e-12 if case.dtype == torch.float64 else 1e-6, f"{case.name}: projected twice")


def training_goes_on(case: ConstraintCase) -> None:
    """Steps of the loop stay finite, move the critic, and go on bit for bit from a saved state."""

    def begun() -> GANRun:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(case.seed)
            nets = (
                generator_mlp(shape=(3,), hidden=(8,)),
                critic_mlp(shape=(3,), constraint=case.constraint, hidden=(8,)),
            )
        trainer = GANTrainer(Wasserstein(), case.constraint, critic_steps=2, batch_size=8, steps=6)
        return trainer.start(*nets, latent=2, seed=case.seed)

    data = case.real.float()
    whole, first, second = begun(), begun(), begun()
    for _ in range(4):
        told = whole.step(data)
    whole.check_finite(told)
    for _ in range(2):
        first.step(data)
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.step(data)
    pairs = zip(whole.critic.parameters(), second.critic.parameters(), strict=True)
    for one, other in pairs:
        expect_same(other.detach(), one.detach(), f"{case.name}: a weight after a resumed run")


CONSTRAINT_CHECKS: tuple[Callable[[ConstraintCase], None], ...] = (
    values_are_as_told,
    all_is_left_as_found,
    random_numbers_are_the_generators,
    the_generator_gets_no_gradient,
    examples_have_slopes_of_their_own,
    flat_critics_have_finite_gradients,
    projections_are_projections,
    training_goes_on,
)


def check_constraint(
    make: MakeConstraint, *, dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64), seed: int = 0
) -> None:
    """Run every check on a constraint of one's own.

    Args:
        make: the constraint; called once for each dtype.
        dtypes: to try it in.
        seed: of all random numbers.

    Raises:
        AssertionError: it breaks its contract; the message says how.

    >>> from danskin.gan import GradientPenalty
    >>> check_constraint(lambda: GradientPenalty(10))
    """
    for dtype in dtypes:
        for check in CONSTRAINT_CHECKS:
            check(ConstraintCase(make, dtype, seed))
