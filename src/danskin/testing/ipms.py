"""What every `danskin.critics.IPM` must satisfy, as functions that third parties run on their own distances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from danskin.critics import IPM
from danskin.errors import InputError
from danskin.testing.expect import expect


class IPMCase:
    """A distance with samples to try it on.

    Args:
        distance: the IPM.
        dims: dimension of the points.
        n: points of the first sample; the others have a few less.
        tolerance: of numbers that should be equal, relative to the largest of the case.
        seed: of the points.
    """

    def __init__(self, distance: IPM, dims: int, n: int, tolerance: float, seed: int) -> None:
        self.distance, self.dims, self.n, self.tolerance = distance, dims, n, tolerance
        self.name = f"{type(distance).__name__} in {dims}-D"
        self.random = torch.Generator().manual_seed(seed)

    def draw(self, n: int, shift: float = 0.0) -> Tensor:
        """(n, dims) float64."""
        return torch.randn(n, self.dims, generator=self.random, dtype=torch.float64) + shift

    def weights(self, n: int) -> Tensor:
        """(n,), sum 1, one of them 0."""
        w = torch.rand(n, generator=self.random, dtype=torch.float64)
        w[0] = 0
        return w / w.sum()

    @cached_property
    def pairs(self) -> list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]:
        """Samples near and far, with and without weights, of equal and unequal sizes."""
        n, m = self.n, max(self.n - 3, 2)
        return [
            (self.draw(n), self.draw(m), None, None),
            (self.draw(n), self.draw(n, 0.7), None, None),
            (self.draw(n), self.draw(m, 5.0), self.weights(n), self.weights(m)),
            (self.draw(1), self.draw(1, 1.0), None, None),
        ]

    def ends(self, *samples: Tensor | None) -> tuple[float, float]:
        """(lower, upper) of the value: equal for a number."""
        value = self.distance.value(*samples)  # type: ignore[arg-type]
        if isinstance(value, Tensor):
            expect(
                value.shape == () and value.dtype == torch.float64,
                f"{self.name}.value: expected a float64 scalar, got {tuple(value.shape)} {value.dtype}",
            )
            return float(value.detach()), float(value.detach())
        return float(value.lower), float(value.upper)

    def same(self, got: tuple[float, float], wanted: tuple[float, float], what: str) -> None:
        """Expect two values equal up to the tolerance."""
        slack = self.tolerance * max(*map(abs, wanted), 1.0)
        for g, w in zip(got, wanted, strict=True):
            expect(abs(g - w) <= slack, f"{self.name}: expected {what} to give {w:.9g}, got {g:.9g}")


def values_are_finite_and_not_negative(case: IPMCase) -> None:
    """0 <= lower <= upper < infinity."""
    for samples in case.pairs:
        low, high = case.ends(*samples)
        expect(0 <= low <= high < math.inf, f"{case.name}.value: expected 0 <= value < infinity, got {low} and {high}")


def equal_samples_are_nothing_apart(case: IPMCase) -> None:
    """value(x, x) = 0, in any order of the points; certainly no lower bound is above it."""
    for x, _, a, _ in case.pairs:
        order = torch.randperm(len(x), generator=case.random)
        low, _ = case.ends(x, x[order], a, None if a is None else a[order])
        scale = 1 + float(x.abs().amax())
        expect(low <= case.tolerance * scale, f"{case.name}: expected 0 between equal samples, got {low:.3g}")


def the_order_of_samples_does_not_matter(case: IPMCase) -> None:
    """value(x, y) = value(y, x)."""
    for x, y, a, b in case.pairs:
        case.same(case.ends(y, x, b, a), case.ends(x, y, a, b), "exchanged samples")


def the_order_of_points_does_not_matter(case: IPMCase) -> None:
    """Permuting points together with their weights changes nothing."""
    for x, y, a, b in case.pairs:
        i, j = (torch.randperm(len(t), generator=case.random) for t in (x, y))
        moved = x[i], y[j], None if a is None else a[i], None if b is None else b[j]
        case.same(case.ends(*moved), case.ends(x, y, a, b), "permuted points")


def weights_are_repetitions(case: IPMCase) -> None:
    """A point of weight 2/n is the same as two points of weight 1/n, and one of weight 0 as none."""
    x, y, _, _ = case.pairs[1]
    counts = torch.randint(0, 4, (len(x),), generator=case.random)
    counts[0], counts[1] = 0, 3
    repeated = x.repeat_interleave(counts, 0)
    case.same(case.ends(x, y, counts.double() / counts.sum()), case.ends(repeated, y), "weights")


def the_lower_bound_is_below(case: IPMCase) -> None:
    """0 <= lower_bound <= value."""
    for samples in case.pairs:
        low, (_, high) = case.distance.lower_bound(*samples), case.ends(*samples)
        most = high * (1 + 1e-12)
        expect(0 <= low <= most, f"{case.name}.lower_bound: expected one in [0, {high:.9g}], got {low:.9g}")


def the_witness_earns_the_lower_bound(case: IPMCase) -> None:
    """lower_bound <= E_mu f - E_nu f <= value for the witness f, with one value a point."""
    for x, y, a, b in case.pairs:
        f, (_, high) = case.distance.witness(x, y, a, b), case.ends(x, y, a, b)
        at_x, at_y = f(x).detach(), f(y).detach()
        expect(at_x.shape == (len(x),), f"{case.name}.witness: expected shape ({len(x)},), got {tuple(at_x.shape)}")
        p = torch.full((len(x),), 1 / len(x), dtype=torch.float64) if a is None else a
        q = torch.full((len(y),), 1 / len(y), dtype=torch.float64) if b is None else b
        earned, low = float(p @ at_x.double() - q @ at_y.double()), case.distance.lower_bound(x, y, a, b)
        slack = case.tolerance * max(high, 1.0)
        expect(earned >= low - slack, f"{case.name}.witness: expected to earn at least {low:.9g}, got {earned:.9g}")
        expect(earned <= high + slack, f"{case.name}.witness: expected to earn at most {high:.9g}, got {earned:.9g}")


def the_triangle_inequality_holds(case: IPMCase) -> None:
    """d(x, z) <= d(x, y) + d(y, z)."""
    for (x, y, a, b), (z, _, c, _) in zip(case.pairs, case.pairs[1:], strict=False):
        most = case.ends(x, y, a, b)[1] + case.ends(y, z, b, c)[1]
        low = case.ends(x, z, a, c)[0]
        expect(low <= most + case.tolerance * max(most, 1), f"{case.name}: expected at most {most:.9g}, got {low:.9g}")


def float32_points_are_computed_in_float64(case: IPMCase) -> None:
    """Points in float32 give what the same points in float64 give."""
    x, y, _, _ = case.pairs[1]
    x, y = x.float(), y.float()
    case.same(case.ends(x, y), case.ends(x.double(), y.double()), "float32 points")


def calls_repeat_and_touch_no_random_state(case: IPMCase) -> None:
    """The same call gives the same bits, and torch's global generator stays where it is."""
    x, y, a, b = case.pairs[2]
    state = torch.get_rng_state()
    first, second = case.ends(x, y, a, b), case.ends(x, y, a, b)
    expect(first == second, f"{case.name}.value: expected the same number again, got {first} and {second}")
    expect(torch.equal(state, torch.get_rng_state()), f"{case.name}.value: expected the global generator untouched")


def bad_samples_are_refused(case: IPMCase) -> None:
    """Empty samples, NaN, unequal dimensions, negative weights and weights that do not sum to one: InputError."""
    x, y, _, _ = case.pairs[1]
    uniform = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    negative = uniform.clone()
    negative[0], negative[1] = -uniform[0], 3 * uniform[0]
    bad: dict[str, tuple[Tensor, ...]] = {
        "no points": (x[:0], y),
        "NaN": (torch.full_like(x, math.nan), y),
        "unequal dimensions": (x, torch.cat([y, y], 1)),
        "negative weights": (x, y, negative),
        "weights of sum 2": (x, y, 2 * uniform),
    }
    for what, samples in bad.items():
        try:
            case.distance.value(*samples)
        except InputError:
            continue
        expect(False, f"{case.name}.value: expected InputError for {what}, got a value")


#: The checks by name.
IPM_CHECKS: dict[str, Callable[[IPMCase], None]] = {
    f.__name__: f
    for f in (
        values_are_finite_and_not_negative,
        equal_samples_are_nothing_apart,
        the_order_of_samples_does_not_matter,
        the_order_of_points_does_not_matter,
        weights_are_repetitions,
        the_lower_bound_is_below,
        the_witness_earns_the_lower_bound,
        the_triangle_inequality_holds,
        float32_points_are_computed_in_float64,
        calls_repeat_and_touch_no_random_state,
        bad_samples_are_refused,
    )
}


def check_ipm(
    distance: IPM,
    *,
    dims: Sequence[int] = (1, 3),
    n: int = 12,
    tolerance: float = 1e-7,
    seed: int = 0,
    skip: Sequence[str] = (),
) -> None:
    """Run all of `IPM_CHECKS` on a distance.

    Args:
        distance: an IPM.
        dims: dimensions of points, tried one after the other.
        n: points of a sample.
        tolerance: relative, of numbers that should be equal; larger for distances that are searched for.
        seed: of the points.
        skip: names of checks to leave out.

    Raises:
        AssertionError: the distance breaks its contract; the message says where.
    """
    for d in dims:
        for name, check in IPM_CHECKS.items():
            if name not in skip:
                check(IPMCase(distance, d, n, tolerance, seed))
