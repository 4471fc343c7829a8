"""What every solver of two-player dynamics must satisfy, as functions that third parties run on their own solvers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from danskin.minmax import Linf, Product, Saddle, Simplex, Solver, Streams
from danskin.minmax.dynamics import State
from danskin.testing.expect import expect, expect_close, expect_same

_SIZE = 3  # coordinates of each player


class SolverCase:
    """A solver, and problems to try it on.

    Args:
        make_solver: saddle -> the solver for it; step sizes may be written in L.
        dtype: of the starts.
        seed: of all random numbers.
        simplex: try it on simplices (entropic steps) in place of boxes.
    """

    def __init__(
        self, make_solver: Callable[[Saddle], Solver], dtype: torch.dtype, seed: int = 0, simplex: bool = False
    ) -> None:
        self.dtype, self.simplex, self.seed = dtype, simplex, seed
        self.solver = make_solver(self.saddle)
        self.name = f"{type(self.solver).__name__} {dtype}"
        self.ulps = 64 * torch.finfo(dtype).eps

    @cached_property
    def matrix(self) -> Tensor:
        """(3, 3) of the bilinear term, with spectral norm 1."""
        made = torch.randn(_SIZE, _SIZE, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        return made / torch.linalg.matrix_norm(made, 2)

    @cached_property
    def saddle(self) -> Saddle:
        """Phi = x^T A y + |x - a|^2 / 2 - |y - b|^2 / 2, strongly monotone, its solution (1/3, ...) inside its set."""
        A, n = self.matrix, _SIZE
        set_ = Product(Simplex(), Simplex(), n) if self.simplex else Linf(2.0)
        a, b = 1 / 3 + A.sum(1) / 3, 1 / 3 - A.sum(0) / 3

        def operator(z: Tensor) -> Tensor:
            x, y = z[:, :n], z[:, n:]
            B = A.to(z)
            return torch.cat([x - a.to(z) + y @ B.T, y - b.to(z) - x @ B], 1)

        def payoff(z: Tensor) -> Tensor:
            x, y = z[:, :n], z[:, n:]
            own = (x - a.to(z)).square().sum(1) - (y - b.to(z)).square().sum(1)
            return ((x @ A.to(z)) * y).sum(1) + own / 2

        noisy = lambda z, streams: operator(z) + 0.1 * streams.normal(z)  # noqa: E731
        return Saddle(operator, n, set_, payoff, lipschitz=2.0, lipschitz_l1=2.0, noisy=noisy)

    @property
    def solution(self) -> Tensor:
        """(1, 6)."""
        return torch.full((1, 2 * _SIZE), 1 / 3, dtype=self.dtype)

    @property
    def streams(self) -> Streams:
        """Of five rows."""
        return Streams.of(self.seed, torch.arange(5))

    @property
    def starts(self) -> Tensor:
        """Five points of the set."""
        assert self.saddle.feasible is not None
        return self.saddle.feasible.sample(torch.empty(5, 2 * _SIZE, dtype=self.dtype), self.streams.child(9))

    def run(self, z: Tensor, steps: int, saddle: Saddle | None = None, streams: Streams | None = None) -> State:
        """The state after some steps."""
        saddle = saddle or self.saddle
        with torch.no_grad():
            state = self.solver.begin(saddle, z, streams)
            for _ in range(steps):
                state = self.solver.step(saddle, state)
        return state


def steps_are_pure(case: SolverCase) -> None:
    """The same state gives the same step twice, and is left as it was; one step is counted as one."""
    state = case.run(case.starts, 2)
    kept = [state.z.clone(), *(m.clone() for m in state.memory)]
    with torch.no_grad():
        first, second = (case.solver.step(case.saddle, state) for _ in range(2))
    expect_same(first.z, second.z, f"{case.name}: the same step again")
    expect(state.t == 2 and first.t == 3, f"{case.name}: expected t to grow by 1 a step, got {state.t}, {first.t}")
    for was, now in zip(kept, [state.z, *state.memory], strict=True):
        expect_same(now, was, f"{case.name}: the state that was stepped from")


def rows_do_not_mix(case: SolverCase) -> None:
    """A start alone goes where it goes in a batch, with and without noise."""
    for streams in (None, case.streams):
        whole = case.run(case.starts, 7, streams=streams)
        for i in range(5):
            row = torch.tensor([i])
            alone = case.run(case.starts[row], 7, streams=None if streams is None else streams.rows(row))
            expect_close(alone.z, whole.z[row], case.ulps, f"{case.name}: row {i} alone against the same in a batch")


def a_bad_row_stays_alone(case: SolverCase) -> None:
    """NaN in one row reaches no other."""
    spoiled, operator = case.starts, case.saddle.operator

    def poisoned(z: Tensor) -> Tensor:
        value = operator(z)
        return torch.where(torch.arange(len(z))[:, None] == 2, torch.nan, value) if len(z) == 5 else value

    saddle = Saddle(poisoned, _SIZE, case.saddle.feasible, case.saddle.payoff, 2.0, 2.0)
    got, wanted = case.run(spoiled, 5, saddle).z, case.run(spoiled, 5).z
    others = torch.tensor([0, 1, 3, 4])
    expect_close(got[others], wanted[others], case.ulps, f"{case.name}: rows beside one whose F is NaN")


def kind_of_numbers_is_kept(case: SolverCase) -> None:
    """Dtype and shape of the starts; no graph hangs on the iterates."""
    z = case.run(case.starts, 3).z
    ok = z.dtype == case.dtype and z.shape == case.starts.shape
    expect(ok, f"{case.name}: expected {case.dtype} of shape (5, 6), got {z.dtype} of shape {tuple(z.shape)}")
    expect(not z.requires_grad, f"{case.name}: expected iterates without a graph, got one that requires grad")


def solutions_stay(case: SolverCase) -> None:
    """What starts at the solution is there after ten steps."""
    z = case.run(case.solution, 10).z
    expect_close(z, case.solution, 10 * case.ulps, f"{case.name}: started at the solution")


def strongly_monotone_converges(case: SolverCase) -> None:
    """The distance to the solution of an easy problem halves within 200 steps, from everywhere."""
    before = (case.starts - case.solution).norm(dim=1)
    after = (case.run(case.starts, 200).z - case.solution).norm(dim=1)
    worst = float((after / before).max())
    expect(worst < 0.5, f"{case.name}: expected the distance to halve in 200 steps, got {worst:.3g} of it left")


def calls_are_told(case: SolverCase) -> None:
    """`calls` is at least the number of evaluations of F a step makes, and at most twice that."""
    count, operator = [0], case.saddle.operator

    def counted(z: Tensor) -> Tensor:
        count[0] += 1
        return operator(z)

    saddle = Saddle(counted, _SIZE, case.saddle.feasible, case.saddle.payoff, 2.0, 2.0)
    case.run(case.starts, 10, saddle)
    most = float(case.solver.calls) * 10
    expect(
        count[0] - 1 <= most <= 2 * count[0],
        f"{case.name}.calls: expected about {count[0] / 10:g} evaluations of F a step, got {case.solver.calls}",
    )


#: The checks by name.
SOLVER_CHECKS: dict[str, Callable[[SolverCase], None]] = {
    f.__name__: f
    for f in (
        steps_are_pure,
        rows_do_not_mix,
        a_bad_row_stays_alone,
        kind_of_numbers_is_kept,
        solutions_stay,
        strongly_monotone_converges,
        calls_are_told,
    )
}


def check_solver(
    make_solver: Callable[[Saddle], Solver],
    *,
    simplex: bool = False,
    seed: int = 0,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64),
    skip: Sequence[str] = (),
) -> None:
    """Run all of `SOLVER_CHECKS` on a solver.

    Args:
        make_solver: saddle -> the solver for it; its L (and L1) is 2.
        simplex: for solvers with entropic steps: the problem is on simplices.
        seed: of the problem and the starts.
        dtypes: tried one after the other.
        skip: names of checks to leave out.

    Raises:
        AssertionError: the solver breaks its contract; the message says where.

    >>> from danskin.minmax import Extragradient
    >>> check_solver(lambda saddle: Extragradient("0.5/L"))
    """
    for dtype in dtypes:
        for name, check in SOLVER_CHECKS.items():
            if name not in skip:
                check(SolverCase(make_solver, dtype, seed, simplex))
