"""W1 by a neural dual: a critic is trained, and what it earned is divided by its certified Lipschitz constant."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from danskin.critics.certified import BoundOf, DualBound, certified, frozen, trained_copy, values
from danskin.critics.fitting import AdamAscent
from danskin.critics.ipm import Witness
from danskin.critics.lipschitz_class import check_norm, ground
from danskin.critics.samples import as_points, samples
from danskin.errors import InputError
from danskin.lipschitz import product_bound
from danskin.minmax import Template
from danskin.transport import Bracket, wasserstein


@dataclass(frozen=True, eq=False)
class FittedDual:
    """A trained critic and what it proves about the samples it was trained on.

    Args:
        critic: the trained copy, in the dtype it was trained in, in eval mode.
        bound: the certified lower bound, with the raw gap beside it.
        history: (step, critic gap) while training.
        seconds: of training.
    """

    critic: nn.Module
    bound: DualBound
    history: tuple[tuple[int, float], ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class NeuralDual:
    r"""sup over weights of E_mu d - E_nu d, for a critic network d; its bracket of W1 is certified.

    The supremum over all 1-Lipschitz functions is W1 (Kantorovich-Rubinstein). A network reaches part of it; what it
    reaches is a lower bound once it is divided by a certified Lipschitz constant, however badly it was trained. Prefer
    critics that are 1-Lipschitz by construction and keep the norm of gradients (`lipschitz_critic`): ReLU loses
    a third, a gradient penalty nine tenths.

    Args:
        critic: a module, (n, ...) to (n,) or (n, 1). A copy is trained.
        ascent: how it is trained.
        p: norm of the ground distance: 1, 2 or inf.
        seed: of batches.
        bound: the certified bound of the Lipschitz constant.
        upper: what closes the bracket of `value` from above: "sinkhorn" (a feasible plan within 1 % of what its own
            dual proves), "exact" (an optimal plan: then the value is known without the critic), or "independent" (the
            cost of the independent coupling: free, and far above).

    Lecture: E4, E5.
    """

    template: ClassVar[Template] = Template("-", "a network", "functions of a certified constant", "E_mu d - E_nu d")
    moves: ClassVar[str] = "gradient ascent on the weights"

    critic: nn.Module
    ascent: AdamAscent = field(default_factory=AdamAscent)
    p: float = 2
    seed: int = 0
    bound: BoundOf = product_bound
    upper: Literal["sinkhorn", "exact", "independent"] = "sinkhorn"

    def __post_init__(self) -> None:
        check_norm(self.p, "NeuralDual")
        if self.upper not in ("sinkhorn", "exact", "independent"):
            raise InputError(
                f"NeuralDual.upper: expected 'sinkhorn', 'exact' or 'independent', got {self.upper!r}; choose one"
            )

    def fit(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> FittedDual:
        """Train a copy of the critic on two samples and certify it.

        Args:
            x: (n, ...) points of mu.
            y: (m, ...) points of nu.
            a: (n,) weights; None for equal ones.
            b: (m,).

        Raises:
            InputError: samples that cannot be used.
            ModelError: a critic that cannot be trained, or not be certified.
        """
        s, critic, x, y = samples(x, y, a, b), trained_copy(self.critic), as_points(x), as_points(y)
        start = time.perf_counter()
        history = self.ascent(critic, x, y, s, self.seed)
        seconds = time.perf_counter() - start
        bound = certified(critic, x, y, a, b, p=self.p, bound=self.bound)
        return FittedDual(critic.eval(), bound, tuple(history), seconds)

    def value(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Bracket:
        """W1 between what the critic proves and what a plan proves (`upper`)."""
        s, low = samples(x, y, a, b), self.lower_bound(x, y, a, b)
        x, y, a, b = (t.detach() for t in (s.x, s.y, s.a, s.b))
        if self.upper == "independent":
            high = float(a @ ground(x, y, self.p) @ b) * (1 + 1e-12)
        else:
            high = wasserstein(x, y, p=self.p, a=a, b=b, method=self.upper, tolerance=1e-2).bracket.upper
        if low > high * (1 + 1e-9):
            raise RuntimeError(f"a certified lower bound, {low}, above an upper one, {high}: please report this")
        return Bracket(min(low, high), high, f"neural dual, {self.upper} plan")

    def witness(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Witness:
        """The trained critic divided by its certified constant, with the sign that earns more."""
        fitted = self.fit(x, y, a, b)
        return unit_critic(fitted)

    def lower_bound(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> float:
        """The certified lower bound of W1."""
        return self.fit(x, y, a, b).bound.lower


def unit_critic(fitted: FittedDual) -> Witness:
    """The 1-Lipschitz function of a fitted critic, points (k, ...) to (k,) float64."""
    wide, bound = frozen(fitted.critic), fitted.bound
    factor = (1.0 if bound.gap >= 0 else -1.0) / max(bound.lipschitz.value, torch.finfo(torch.float64).tiny)
    return lambda z: values(wide, z) * factor
