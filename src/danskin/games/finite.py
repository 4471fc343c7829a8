"""Finite two-player games: a payoff matrix, and a mixed strategy for each player. Lecture: row G2."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from danskin.errors import InputError, suggest
from danskin.games.game import Game
from danskin.minmax import Simplex, Streams
from danskin.minmax.product import Product
from danskin.minmax.saddle import Saddle

#: Payoff matrices by name: what the row player, x, pays.
MATRICES: dict[str, tuple[tuple[float, ...], ...]] = {
    "matching_pennies": ((1, -1), (-1, 1)),
    "rock_paper_scissors": ((0, 1, -1), (-1, 0, 1), (1, -1, 0)),
}


@dataclass(frozen=True)
class MatrixGame(Game):
    """Phi = x^T A y, x and y mixed strategies: the row player x pays A_ij, the column player y gets it.

    Args:
        payoff: A, (m, n): a name of `MATRICES`, "random" (uniform on [-1, 1]), or rows of numbers.
        rows: m, of "random".
        columns: n, of "random".
        seed: of "random".

    Lecture: row G2.
    """

    payoff: Any = "rock_paper_scissors"
    rows: int = 20
    columns: int = 30
    seed: int = 0

    default_steps: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        self.matrix  # noqa: B018  refuses what is no matrix

    @cached_property
    def matrix(self) -> Tensor:
        """A, float64."""
        return _matrix(self.payoff, self.rows, self.columns, self.seed)

    @property
    def dimension(self) -> int:
        """M + n."""
        return sum(self.matrix.shape)

    @property
    def solutions(self) -> Tensor | None:
        """The uniform strategies where they are an equilibrium (rows and columns with equal means)."""
        A = self.matrix
        rows, columns = A.mean(1), A.mean(0)
        if float((rows - rows[0]).abs().max()) > 1e-12 or float((columns - columns[0]).abs().max()) > 1e-12:
            return None
        return _uniform(*A.shape)[None]

    @property
    def certified(self) -> str:
        """Monotone with a set."""
        return "constrained"

    @property
    def weak_minty(self) -> float:
        """0: F is monotone."""
        return 0.0

    def starts(self, n: int, seed: int = 0) -> Tensor:
        """(n, m + n) float64: the uniform strategies, then random ones."""
        if n < 1:
            raise InputError(f"starts: expected at least 1, got {n}; 16 is usual")
        Z = self.saddle().feasible
        assert Z is not None
        z = Z.sample(torch.empty(n, self.dimension, dtype=torch.float64), Streams.of(seed, torch.arange(n)))
        z[0] = _uniform(*self.matrix.shape)
        return z

    def saddle(self) -> Saddle:
        """F = (A y, -A^T x) on a product of simplices."""
        A = self.matrix
        m = len(A)

        def operator(z: Tensor) -> Tensor:
            B = A.to(z)
            return torch.cat([z[:, m:] @ B.T, -z[:, :m] @ B], 1)

        def payoff(z: Tensor) -> Tensor:
            return ((z[:, :m] @ A.to(z)) * z[:, m:]).sum(1)

        constant = max(float(torch.linalg.matrix_norm(A, 2)), 1e-12)
        entry = max(float(A.abs().max()), 1e-12)
        Z = Product(Simplex(), Simplex(), m)
        return Saddle(operator, m, Z, payoff, lipschitz=constant, lipschitz_l1=entry, bilinear=True)


def _uniform(m: int, n: int) -> Tensor:
    return torch.cat([torch.full((k,), 1 / k, dtype=torch.float64) for k in (m, n)])


def _matrix(payoff: Any, rows: int, columns: int, seed: int) -> Tensor:
    """(m, n) float64.

    Raises:
        InputError: an unknown name, no matrix, or NaN.
    """
    if isinstance(payoff, str):
        if payoff == "random":
            if rows < 1 or columns < 1:
                raise InputError(f"MatrixGame: expected at least one row and column, got {rows} and {columns}")
            entries = torch.empty(rows, columns, dtype=torch.float64)
            return 2 * Streams.of(seed, torch.arange(rows)).uniform(entries) - 1
        if payoff not in MATRICES:
            raise InputError(
                f"MatrixGame.payoff: expected a known matrix, got {payoff!r}; {suggest(payoff, [*MATRICES, 'random'])}"
            )
        payoff = MATRICES[payoff]
    try:
        A = torch.as_tensor(payoff, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"MatrixGame.payoff: expected rows of numbers, all of one length, got {payoff!r}; write [[0, 1], [1, 0]]"
        ) from error
    if A.ndim != 2 or not A.numel():
        raise InputError(
            f"MatrixGame.payoff: expected a matrix (m, n), got shape {tuple(A.shape)}; write [[0, 1], [1, 0]]"
        )
    if not bool(A.isfinite().all()):
        i, j = (int(k) for k in (~A.isfinite()).nonzero()[0])
        raise InputError(
            f"MatrixGame.payoff: expected finite numbers, got {float(A[i, j])} in row {i}, column {j}; a payoff that "
            "is not known is no payoff: fill it in, or drop the row"
        )
    return A
