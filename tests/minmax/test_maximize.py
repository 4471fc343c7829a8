"""Maximisers: known optima, what is kept, who leaves the batch, and what it costs."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from danskin.errors import InputError, ModelError
from danskin.minmax import (
    L1,
    L2,
    Ascent,
    BestOf,
    Box,
    Intersection,
    Linf,
    MajorizeMinimize,
    Restarts,
    Simplex,
    Status,
    Streams,
    Vertex,
)

N, D = 4, 5
SETS = {
    "linf": Linf(0.7),
    "l2": L2(0.7),
    "l1": L1(0.7),
    "box": Box(-0.3, 0.6),
    "simplex": Simplex(),
    "l2 and box": Intersection(L2(0.7), Box(-0.3, 0.6)),
    "l1 and box": Intersection(L1(0.7), Box(-0.3, 0.6)),
}
ZERO = torch.zeros(N, D, dtype=torch.float64)


def streams(n=N):
    return Streams.of(0, torch.arange(n))


class Quadratic:
    """c y - y' H y / 2 per row, strictly concave, with a record of the values seen."""

    def __init__(self, seed=0):
        random = torch.Generator().manual_seed(seed)
        self.c = torch.randn(N, D, generator=random, dtype=torch.float64)
        root = torch.randn(N, D, D, generator=random, dtype=torch.float64)
        self.H = root @ root.mT / D + 0.2 * torch.eye(D, dtype=torch.float64)
        self.seen = []

    def __call__(self, y):
        value = (self.c * y).sum(1) - torch.einsum("ni,nij,nj->n", y, self.H, y) / 2
        self.seen.append(value.detach())
        return value

    def best(self, name):
        """The maximum over the set, row by row, by cvxpy."""
        found = []
        for c, H in zip(self.c.numpy(), self.H.numpy(), strict=True):
            y = cp.Variable(D)
            inside = {
                "linf": [cp.norm(y, "inf") <= 0.7],
                "l2": [cp.norm(y, 2) <= 0.7],
                "l1": [cp.norm(y, 1) <= 0.7],
                "box": [y >= -0.3, y <= 0.6],
                "simplex": [y >= 0, cp.sum(y) == 1],
            }
            problem = cp.Problem(
                cp.Maximize(c @ y - cp.quad_form(y, cp.psd_wrap(H)) / 2),
                [c for k in name.split(" and ") for c in inside[k]],
            )
            problem.solve(solver="CLARABEL")
            found.append(problem.value)
        return torch.tensor(np.array(found))


@pytest.mark.parametrize("name", SETS)
def test_vertex_is_exact_for_linear_payoffs(name):
    c = Quadratic().c
    found = Vertex(keep="best")(lambda y: (c * y).sum(1), ZERO, SETS[name])
    assert torch.allclose(found.value, (c * SETS[name].lmo(c)).sum(1))
    assert found.cost.forwards == 2 * N and found.cost.backwards == N and found.cost.calls == 2


def test_vertex_keeps_the_start_when_it_is_better():
    f = lambda y: y.sum(1) - 100 * (y**2).sum(1)  # noqa: E731
    assert torch.equal(Vertex(keep="best")(f, ZERO, Linf(1.0)).y, ZERO)
    last = Vertex()(f, ZERO, Linf(1.0))
    assert torch.equal(last.y, torch.ones_like(ZERO)) and last.value is None


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("maximizer", [Ascent(400, 0.2, "gradient"), MajorizeMinimize(400)], ids=["ascent", "mm"])
def test_concave_quadratic_reaches_the_solver_optimum(name, maximizer):
    f = Quadratic()
    found = maximizer(f, ZERO, SETS[name])
    assert torch.allclose(found.value, f.best(name), rtol=0, atol=1e-6)  # the solver's tolerance
    assert bool((SETS[name].violation(found.y) < 1e-12).all())


@pytest.mark.parametrize(("schedule", "factors"), [
    ("constant", [1, 1, 1, 1]), ("inverse", [1, 1 / 2, 1 / 3, 1 / 4]), ("linear", [1, 0.75, 0.5, 0.25]),
    ("inverse_sqrt", [1, 2**-0.5, 3**-0.5, 0.5]), ("cosine", [1, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2]),
])  # fmt: skip
def test_schedules(schedule, factors):
    found = Ascent(4, 0.1, schedule=schedule)(lambda y: y.sum(1), ZERO, Linf(9.0))
    assert torch.allclose(found.y, torch.full_like(ZERO, 0.1 * sum(factors)))


def test_step_per_row():
    steps = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    found = Ascent(2, steps)(lambda y: y.sum(1), ZERO, Linf(9.0))
    assert torch.allclose(found.y[:, 0], 2 * steps)


def test_sparse_direction_moves_the_largest_coordinates_with_room():
    c = torch.tensor([[5.0, -4.0, 3.0, 2.0, 1.0]], dtype=torch.float64)
    y0 = torch.tensor([[0.5, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    Y = Intersection(L1(9.0), Box(-0.5, 0.5))
    found = Ascent(1, 0.2, "sparse", quantile=0.6)(lambda y: (c * y).sum(1), y0, Y)
    assert torch.allclose(found.y, y0 + torch.tensor([[0.0, -0.1, 0.1, 0.0, 0.0]], dtype=torch.float64))


def test_first_step_can_be_the_vertex():
    c = Quadratic().c
    found = Ascent(1, 0.0, first="vertex", random_start=True)(lambda y: (c * y).sum(1), ZERO, L2(1.0), streams())
    assert torch.allclose(found.value, c.norm(dim=1))


def bump(y):
    """Best at 1 and worse beyond, so that long walks leave the best point behind."""
    return -((y - 1) ** 2).sum(1)


def test_best_is_the_best_point_visited():
    found = Ascent(7, 0.4)(bump, ZERO, Linf(9.0))
    assert torch.allclose(found.y, torch.full_like(ZERO, 0.8)) or torch.allclose(found.y, torch.full_like(ZERO, 1.2))
    assert torch.allclose(found.value, bump(found.y))


def test_last_is_the_last_point_not_evaluated():
    found = Ascent(2, 0.9, keep="last")(bump, ZERO, Linf(9.0))
    assert torch.allclose(found.y, torch.full_like(ZERO, 0.9)) is False  # it stepped past 1 and came back
    assert torch.allclose(found.y, torch.full_like(ZERO, 1.8))
    assert found.value is None and found.settled is None and found.cost.forwards == 2 * N


def settles_early(y):
    """Value grows along the way; the question is answered between 0.3 and 0.5 only."""
    return y.sum(1), (y[:, 0] > 0.3) & (y[:, 0] < 0.5)


@pytest.mark.parametrize(("keep", "y", "settled"), [("best", 0.4, True), ("value", 1.0, False)])
def test_best_ranks_settled_points_first_and_value_does_not(keep, y, settled):
    found = Ascent(5, 0.2, keep=keep)(settles_early, ZERO, Linf(9.0))
    assert torch.allclose(found.y, torch.full_like(ZERO, y))
    assert bool((found.settled == settled).all()) and torch.allclose(found.value, torch.full((N,), y * D).double())


class Walk:
    """Rows settle at their own levels; can be restricted to rows, and counts them."""

    def __init__(self, levels, rows=True):
        self.levels, self.sizes = levels, []
        if rows:
            self.rows = self._rows

    def __call__(self, y):
        self.sizes.append(len(y))
        return y.sum(1), y[:, 0] > self.levels

    def _rows(self, index):
        part = Walk(self.levels[index])
        part.sizes = self.sizes
        return part


LEVELS = torch.tensor([0.05, 0.15, 0.35, 99.0], dtype=torch.float64)


@pytest.mark.parametrize("rows", [True, False], ids=["compacted", "whole"])
def test_stop_keeps_the_first_settled_point(rows):
    found = Ascent(5, 0.1, stop=True)(Walk(LEVELS, rows), ZERO, Linf(9.0))
    assert torch.allclose(found.y[:, 0], torch.tensor([0.1, 0.2, 0.4, 0.5]).double())
    assert found.settled.tolist() == [True, True, True, False]


def test_stop_drops_settled_rows():
    f = Walk(LEVELS)
    found = Ascent(5, 0.1, stop=True)(f, ZERO, Linf(9.0))
    assert f.sizes == [4, 4, 3, 2, 2, 1] and found.cost.forwards == sum(f.sizes)
    assert found.cost.backwards == sum(f.sizes[:-1]) and found.status is Status.DONE


def test_stop_ends_when_all_are_settled():
    found = Ascent(50, 0.1, stop=True)(Walk(LEVELS[:3]), ZERO[:3], Linf(9.0))
    assert found.status is Status.SETTLED and found.cost.calls == 5


STOPPERS = {
    "ascent": Ascent(6, 0.1, random_start=True, stop=True),
    "mm": MajorizeMinimize(6, random_start=True, stop=True),
    "restarts": Restarts(Ascent(3, 0.1, random_start=True, stop=True), 3, stop=True),
    "restarts, step per row": Restarts(Ascent(3, LEVELS[:3].repeat(8), random_start=True, stop=True), 3, stop=True),
    "best of": BestOf((Vertex("best"), Restarts(Ascent(3, 0.2, random_start=True), 2, stop=True)), stop=True),
}


@pytest.mark.parametrize("name", STOPPERS)
def test_stop_gives_each_row_what_it_gets_alone(name):
    n = 24
    levels = torch.linspace(-0.6, 1.2, n, dtype=torch.float64)
    radius = torch.linspace(0.5, 1.0, n, dtype=torch.float64)
    zero = torch.zeros(n, D, dtype=torch.float64)
    together = STOPPERS[name](Walk(levels), zero, Linf(radius), streams(n))
    assert 0 < int(together.settled.sum()) < n
    for i in range(n):
        one = torch.tensor([i])
        maximizer = STOPPERS[name].rows(one) if hasattr(STOPPERS[name], "rows") else STOPPERS[name]
        alone = maximizer(Walk(levels[one]), zero[one], Linf(radius[one]), streams(n).rows(one))
        assert torch.equal(alone.y[0], together.y[i]) and torch.equal(alone.settled[0], together.settled[i])


def waves(y):
    """Many local maxima."""
    return (y * 9).sin().sum(1) + y.sum(1)


def test_restarts_keep_the_best_run_of_each_row():
    ascent = Ascent(3, 0.05, random_start=True)
    runs = [ascent(waves, ZERO, Linf(1.0), streams().child(i)) for i in range(4)]
    found = Restarts(ascent, 4)(waves, ZERO, Linf(1.0), streams())
    assert torch.equal(found.value, torch.stack([r.value for r in runs]).amax(0))
    assert torch.allclose(found.value, waves(found.y)) and found.cost.forwards == 4 * 4 * N


def test_best_of_keeps_the_best_maximiser_of_each_row():
    c = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    f = lambda y: c * (y - 0.2).abs().sum(1)  # noqa: E731  concave in odd rows: the vertex is bad there
    parts = (Vertex("best"), Ascent(10, 0.02))
    found = BestOf(parts)(f, ZERO, Linf(1.0))
    values = [p(f, ZERO, Linf(1.0)).value for p in parts]
    assert torch.equal(found.value, torch.maximum(*values))
    assert bool((values[0] > values[1]).any()) and bool((values[0] < values[1]).any())


def test_zero_gradient_is_reported():
    assert Ascent(3, 0.1)(lambda y: (y * 0).sum(1), ZERO, Linf(1.0)).status is Status.ZERO_GRADIENT


def test_start_outside_the_set_is_projected():
    found = Ascent(1, 0.0)(lambda y: y.sum(1), ZERO + 5, Linf(1.0))
    assert torch.equal(found.y, torch.ones_like(ZERO))


def test_nan_is_not_hidden():
    found = Ascent(3, 0.1)(lambda y: (y.sum(1) - 0.6).sqrt(), ZERO + 0.2, Linf(1.0))  # NaN when a step back is made
    assert bool(found.value.isfinite().all())
    found = Ascent(3, 0.1)(lambda y: (y - 9).sum(1).sqrt(), ZERO, Linf(1.0))
    assert bool(found.value.isnan().all())


@pytest.mark.parametrize("make", [
    lambda: Ascent(0, 0.1), lambda: Ascent(1, -0.1), lambda: Ascent(1, float("nan")), lambda: MajorizeMinimize(0),
    lambda: Ascent(1, 0.1, schedule="fast"), lambda: Ascent(1, 0.1, direction="up"),
    lambda: Ascent(1, 0.1, quantile=1.0),
    lambda: Ascent(1, 0.1, random_start=True)(bump, ZERO, Linf(1.0)),
    lambda: MajorizeMinimize(1, random_start=True)(bump, ZERO, Linf(1.0)),
    lambda: Ascent(1, 0.1, keep="last", stop=True)(bump, ZERO, Linf(1.0)),
    lambda: Ascent(1, 0.1, keep="first")(bump, ZERO, Linf(1.0)),
    lambda: BestOf((Ascent(1, 0.1, keep="last"),))(bump, ZERO, Linf(1.0)),
    lambda: Restarts(Ascent(1, 0.1), 0)(bump, ZERO, Linf(1.0)),
])  # fmt: skip
def test_refuses_settings(make):
    with pytest.raises(InputError, match=r"expected .*got .*; "):
        make()


@pytest.mark.parametrize("f", [lambda y: y.sum(), lambda y: y, lambda y: y.sum(1).detach(),
                               lambda y: torch.ones(N, requires_grad=True) * 2], ids=["scalar", "matrix", "detached",
                                                                                   "constant"])  # fmt: skip
def test_refuses_payoffs(f):
    with pytest.raises(ModelError, match=r"expected .*got "):
        Ascent(1, 0.1)(f, ZERO, Linf(1.0))


class Stored(Box):
    """A set of someone else that keeps its vertex and hands it out."""

    corner = torch.full((N, D), 0.6, dtype=torch.float64)

    def lmo(self, g):
        return self.corner


class Peaks:
    """A sum for all rows but the last, which is highest at the start; with a gradient of its own."""

    def with_gradient(self, y):
        value, slope = y.sum(1), torch.ones_like(y)
        value[-1], slope[-1] = -(y[-1] ** 2).sum(), 0.0
        return value, None, slope

    def __call__(self, y):
        return self.with_gradient(y)[0]


def test_what_a_set_keeps_is_not_written_to():
    found = Ascent(2, 0.1, first="vertex")(Peaks(), ZERO, Stored(-0.3, 0.6))
    assert torch.equal(found.y[:-1], Stored.corner[:-1]) and torch.equal(found.y[-1], ZERO[-1])
    assert bool((Stored.corner == 0.6).all())
