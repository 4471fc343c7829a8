"""All solvers keep the contract of `danskin.testing.check_solver`, and one that does not is found out."""

from dataclasses import dataclass

import pytest
import torch

from danskin.minmax import SOLVERS, Extragradient
from danskin.minmax.dynamics import State
from danskin.testing import SOLVER_CHECKS, check_solver
from danskin.testing.solvers import SolverCase


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_keep_the_contract(name):
    skip = ("strongly_monotone_converges",) if name == "bc_seg_plus" else ()  # its steps are as short as noise asks for
    check_solver(lambda saddle: SOLVERS[name](), simplex=name.startswith("mirror"), skip=skip)


@dataclass(frozen=True)
class Broken(Extragradient):
    how: str = ""

    @property
    def calls(self):
        return 7 if self.how == "calls_are_told" else 2

    def begin(self, saddle, z, streams=None):
        return State(saddle.project(z) + (0.1 if self.how == "solutions_stay" else 0), 0, (z.clone(),), streams)

    def step(self, saddle, state):
        after = super().step(saddle, state)
        z, memory = after.z, state.memory
        match self.how:
            case "steps_are_pure":
                memory[0].add_(1)
            case "rows_do_not_mix":
                z = z + 0.01 * z.mean(0)
            case "a_bad_row_stays_alone":
                z = z + 0 * z.sum()
            case "kind_of_numbers_is_kept":
                z = z.double() if z.dtype == torch.float32 else z.float()
            case "solutions_stay":
                z = z + 0.01
            case "strongly_monotone_converges":
                z = state.z
        return State(z, after.t, memory, after.streams)


@pytest.mark.parametrize("how", SOLVER_CHECKS)
def test_each_check_finds_a_solver_that_breaks_it(how):
    with pytest.raises((AssertionError, RuntimeError)):
        SOLVER_CHECKS[how](SolverCase(lambda saddle: Broken("0.5/L", how=how), torch.float32))
    check_solver(lambda saddle: Broken("0.5/L"))
