"""The worst case of a solver over a class of problems, proven by PEPit: the solver's own `step` runs on its symbols.

Performance estimation (Drori and Teboulle 2014; Taylor, Hendrickx and Glineur 2017) makes the question "how large can
|F(z_n)| be, over all F of the class, all dimensions and all starts at distance 1?" a semidefinite program. PEPit writes
it down while the solver runs on symbolic points, so that what is certified is the code of the solver and no copy of its
formula. Solvers whose step is a fixed linear combination of points and values can be asked; a line search cannot.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from danskin.errors import InputError, MissingError, ModelError
from danskin.minmax import Solver

#: Classes of F that can be asked for, all L-Lipschitz with a solution z*.
CLASSES = {
    "bilinear": "linear and skew-symmetric: F of bilinear games in all of space",
    "monotone": "monotone: F of convex-concave games in all of space",
    "constrained": "monotone, with projections on a convex set",
    "weak_minty": "<F(z), z - z*> >= rho |F(z)|^2 at all points that are visited, in all of space",
}
#: Relative difference between the proven bound and the worst example that is allowed.
ACCURACY = 1e-4
#: What is bounded by a multiple of |z_0 - z*|^2.
MEASURES = {
    "residual": "squared natural residual of the last iterate, |z - P(z - F(z) / L)|^2; |F(z)|^2 / L^2 without a set",
    "distance": "squared distance of the last iterate from z*",
}


@dataclass(frozen=True, eq=False)
class _Symbols:
    """A saddle made of PEPit's points: what solvers ask of a saddle, and no more."""

    F: Any
    lipschitz: float
    indicator: Any = None
    solution: Any = None
    visited: Any = None

    split = 1
    lipschitz_l1 = None
    noisy = None

    def __call__(self, z: Any) -> Any:
        value = self.F.gradient(z)
        if self.visited is not None:
            self.visited.append((z, value))
        return value

    def project(self, z: Any) -> Any:
        if self.indicator is None:
            return z
        from PEPit.primitive_steps import proximal_step

        return proximal_step(z, self.indicator, 1)[0]


def worst_case(
    solver: Solver,
    steps: int,
    kind: str = "monotone",
    *,
    lipschitz: float = 1.0,
    rho: float = 0.0,
    measure: str = "residual",
    backend: str = "CLARABEL",
) -> float:
    """The largest measure after some steps, over a class of problems and all starts at distance 1 from a solution.

    Args:
        solver: whose steps are linear in points and values.
        steps: at least 1; the program grows with its square, ten take seconds.
        kind: of `CLASSES`.
        lipschitz: L.
        rho: of the class "weak_minty".
        measure: of `MEASURES`.
        backend: a solver of cvxpy.

    Returns:
        The bound, to the accuracy of the backend (about 1e-6). "constrained", "monotone" and "weak_minty" use
        conditions that all such F meet and that need not be enough: it may be more than the worst F attains.

    Raises:
        MissingError: PEPit is not installed.
        InputError: another class or measure, or a solver that asks for more than values of F.
        ModelError: the semidefinite program was not solved to `ACCURACY`.
    """
    if kind not in CLASSES or measure not in MEASURES or steps < 1:
        raise InputError(
            f"worst_case: expected a class of {', '.join(CLASSES)}, a measure of {', '.join(MEASURES)} and at least "
            f"one step, got {kind!r}, {measure!r} and {steps}; see danskin.testing.certificates"
        )
    try:
        import PEPit
    except ImportError as error:
        raise MissingError("worst_case: expected PEPit, which is not installed", "pip install pepit") from error
    problem = PEPit.PEP()
    F, indicator, solution = _declared(problem, kind, lipschitz)
    visited: list[Any] | None = [] if kind == "weak_minty" else None
    saddle = _Symbols(F, lipschitz, indicator, solution, visited)
    start = problem.set_initial_point()
    problem.set_initial_condition((start - solution) ** 2 <= 1)
    z = _run(solver, saddle, start, steps)
    if measure == "distance":
        problem.set_performance_metric((z - solution) ** 2)
    else:
        moved = z - saddle.project(z - saddle(z) / lipschitz)
        problem.set_performance_metric(moved**2)
    for point, value in visited or ():
        problem.add_constraint(value * (point - solution) >= rho * value**2)
    return _bound(problem, backend)


def _bound(problem: Any, backend: str) -> float:
    """The proven bound; refused where the worst example that was found is far below it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Solution may be inaccurate")  # what follows measures how much
        proven = float(problem.solve(wrapper="cvxpy", solver=backend, verbose=0))
    attained = float(problem.objective.eval())
    if not abs(proven - attained) <= ACCURACY * max(abs(proven), 1e-3):
        raise ModelError(
            f"worst_case: expected a bound and an example that agree to {ACCURACY:g}, got {proven:.6g} and "
            f"{attained:.6g}; take fewer steps, or another backend"
        )
    return max(proven, attained)


def _declared(problem: Any, kind: str, L: float) -> tuple[Any, Any, Any]:
    """F, the indicator of the set or None, and a solution."""
    from PEPit.functions import ConvexIndicatorFunction
    from PEPit.operators import (
        LipschitzOperator,
        LipschitzStronglyMonotoneOperatorCheap,
        SkewSymmetricLinearOperator,
    )

    if kind == "constrained":
        F = problem.declare_function(LipschitzStronglyMonotoneOperatorCheap, mu=0, L=L)
        indicator = problem.declare_function(ConvexIndicatorFunction)
        return F, indicator, (F + indicator).stationary_point()
    if kind == "bilinear":
        F = problem.declare_function(SkewSymmetricLinearOperator, L=L)
    elif kind == "monotone":
        F = problem.declare_function(LipschitzStronglyMonotoneOperatorCheap, mu=0, L=L)
    else:
        F = problem.declare_function(LipschitzOperator, L=L)
    return F, None, F.stationary_point()


def _run(solver: Solver, saddle: Any, start: Any, steps: int) -> Any:
    try:
        state = solver.begin(saddle, start)
        for _ in range(steps):
            state = solver.step(saddle, state)
    except (AttributeError, TypeError) as error:
        raise InputError(
            f"worst_case: expected a solver whose step is linear in points and values of F, got {solver!r}, which asks "
            f"for more ({error}); there is no certificate of this kind for it"
        ) from error
    return state.z
