"""What a network must satisfy to be a critic that certifies W1, as functions that third parties run on their own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from danskin.critics import Kantorovich, certified
from danskin.critics.certified import frozen, values
from danskin.lipschitz import LipschitzBound, product_bound
from danskin.testing.expect import expect, expect_same

BoundOf = Callable[[nn.Module, Sequence[int]], LipschitzBound]


class CriticCase:
    """A critic with samples to try it on.

    Args:
        critic: a module, (n, *shape) to (n,) or (n, 1).
        shape: of one point.
        bound: how its Lipschitz constant is certified.
        trials: pairs of samples, of sizes of points from 0.01 to 100.
        seed: of the samples.
    """

    def __init__(self, critic: nn.Module, shape: Sequence[int], bound: BoundOf, trials: int, seed: int) -> None:
        self.critic, self.shape, self.bound, self.trials = critic, tuple(shape), bound, trials
        self.name = f"{type(critic).__name__} on {self.shape}"
        self.random = torch.Generator().manual_seed(seed)
        self.wide = frozen(critic)

    @cached_property
    def certificate(self) -> LipschitzBound:
        """Of the critic in float64, made once."""
        return self.bound(self.wide, self.shape)

    def draw(self, n: int, scale: float = 1.0) -> Tensor:
        """(n, *shape) float64."""
        return torch.randn(n, *self.shape, generator=self.random, dtype=torch.float64) * scale

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Samples of several sizes and scales, apart by a random shift."""
        scales = torch.logspace(-2, 2, self.trials).tolist()
        return [(self.draw(14, s), self.draw(11, s) + self.draw(1, s)) for s in scales]

    def downhill(self) -> tuple[Tensor, Tensor]:
        """A sample, and the same moved along minus the mean gradient: of a linear critic the bound is then W1."""
        x = self.draw(14).requires_grad_()
        (slope,) = torch.autograd.grad(self.wide(x).sum(), x)
        return x.detach(), x.detach() - slope.mean(0, keepdim=True)


def each_point_has_one_value_of_its_own(case: CriticCase) -> None:
    """The value of a point does not depend on the batch that it is in."""
    z = case.draw(9)
    together = values(case.wide, z)
    alone = torch.cat([values(case.wide, z[i : i + 1]) for i in range(len(z))])
    gap, size = float((together - alone).abs().max()), 1 + float(together.abs().max())
    expect(gap <= 1e-9 * size, f"{case.name}: expected the same values one by one, got {gap:.3g} off")


def float32_and_float64_agree(case: CriticCase) -> None:
    """The critic in float32, in eval mode, answers as its float64 copy."""
    z = case.draw(9).float()
    with torch.no_grad():
        got = copy.deepcopy(case.critic).float().eval()(z).reshape(len(z)).double()
    wanted = values(case.wide, z)
    gap, size = float((got - wanted).abs().max()), 1 + float(wanted.abs().max())
    expect(gap <= 1e-3 * size, f"{case.name}: expected float32 near float64, got {gap:.3g} off")


def no_quotient_exceeds_the_certificate(case: CriticCase) -> None:
    r"""|d(x) - d(y)| <= L \|x - y\|_2 for points near and far, also along gradients."""
    constant = case.certificate.value
    for x, y in case.pairs():
        n = min(len(x), len(y))
        z = x[:n].clone().requires_grad_()
        (slope,) = torch.autograd.grad(case.wide(z).sum(), z)
        for other in (y[:n], x[:n] + 1e-4 * case.draw(n), x[:n] + 1e-4 * slope):
            moved = (values(case.wide, x[:n]) - values(case.wide, other)).abs()
            most = constant * (x[:n] - other).reshape(n, -1).norm(dim=1)
            size = 1e-12 * float(values(case.wide, x[:n]).abs().max())
            worst = float((moved - most * (1 + 1e-9) - size).max())
            expect(worst <= 0, f"{case.name}: expected |d(x) - d(y)| <= {constant:.6g} |x - y|, got {worst:.3g} more")


def the_certified_bound_is_below_w1(case: CriticCase) -> None:
    """|gap| / L <= exact W1, with and without weights, for l1, l2 and l_inf distances."""
    for x, y in [*case.pairs(), case.downhill()]:
        a, b = (torch.rand(len(t), generator=case.random, dtype=torch.float64) for t in (x, y))
        for p, weights in (
            (2, (None, None)),
            (2, (a / a.sum(), b / b.sum())),
            (1, (None, None)),
            (math.inf, (None,) * 2),
        ):
            low = certified(case.critic, x, y, *weights, p=p, bound=case.certificate).lower
            exact = float(Kantorovich(p).value(x, y, *weights))
            expect(low <= exact * (1 + 1e-9), f"{case.name}: expected a bound of at most {exact:.9g}, got {low:.9g}")


def the_bound_does_not_depend_on_the_scale_of_the_critic(case: CriticCase) -> None:
    """1000 d certifies what d does, though its gap is 1000 times as large."""
    x, y = case.pairs()[case.trials // 2]
    scaled = nn.Sequential(copy.deepcopy(case.critic), _Times(1000.0))
    one, other = (certified(c, x, y, bound=case.bound) for c in (case.critic, scaled))
    expect(
        abs(other.gap - 1000 * one.gap) <= 1e-6 * abs(other.gap) + 1e-9,
        f"{case.name}: expected a gap of {1000 * one.gap:.6g}, got {other.gap:.6g}",
    )
    slack = 1e-6 * one.lower + 1e-9
    expect(abs(other.lower - one.lower) <= slack, f"{case.name}: expected {one.lower:.6g}, got {other.lower:.6g}")


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def the_critic_is_left_as_found(case: CriticCase) -> None:
    """Certifying changes no parameter, buffer or training flag."""
    held = {k: v.clone() for k, v in case.critic.state_dict().items()}
    flags = [m.training for m in case.critic.modules()]
    x, y = case.pairs()[0]
    certified(case.critic, x, y, bound=case.bound)
    for name, tensor in case.critic.state_dict().items():
        expect_same(tensor, held[name], f"{case.name}.{name} after it was certified")
    expect(flags == [m.training for m in case.critic.modules()], f"{case.name}: expected training flags kept")


#: The checks by name.
CRITIC_CHECKS: dict[str, Callable[[CriticCase], None]] = {
    f.__name__: f
    for f in (
        each_point_has_one_value_of_its_own,
        float32_and_float64_agree,
        no_quotient_exceeds_the_certificate,
        the_certified_bound_is_below_w1,
        the_bound_does_not_depend_on_the_scale_of_the_critic,
        the_critic_is_left_as_found,
    )
}


def check_critic(
    critic: nn.Module,
    shape: Sequence[int],
    *,
    bound: BoundOf = product_bound,
    trials: int = 3,
    seed: int = 0,
    skip: Sequence[str] = (),
) -> None:
    """Run all of `CRITIC_CHECKS` on a critic.

    Args:
        critic: a module, (n, *shape) to (n,) or (n, 1); left as found.
        shape: of one point.
        bound: how its Lipschitz constant is certified.
        trials: pairs of samples.
        seed: of the samples.
        skip: names of checks to leave out.

    Raises:
        AssertionError: the critic breaks its contract; the message says where.
        ModelError: it holds an operation that has no bound.
    """
    for name, check in CRITIC_CHECKS.items():
        if name not in skip:
            check(CriticCase(critic, shape, bound, trials, seed))
