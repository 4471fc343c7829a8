"""The adversary's payoff as a function of the input shift."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from danskin.attacks import checks
from danskin.attacks.asking import Asking
from danskin.attacks.goal import Goal
from danskin.attacks.grid import Grid
from danskin.losses import Loss


@dataclass(eq=False)
class ShiftPayoff:
    """delta -> (loss of the model at x + delta per example, whether it is adversarial there).

    Arithmetic on x and delta is float32 or float64; the model sees x + delta in the dtype of the inputs. With
    `among_inputs`, what is called delta here is x + delta itself, from a search that keeps to ball and box there.

    Args:
        asking: who is asked for logits, and when.
        goal: what the adversary is paid for them.
        x: (batch, ...) clean inputs, float32 or float64.
        box: where x + delta stays, or None.
        grid: where given, inputs are moved to its nearest point in the ball before the model sees them.
        among_inputs: see above.
    """

    asking: Asking
    goal: Goal
    x: Tensor
    box: checks.DataBox
    grid: Grid | None = None
    among_inputs: bool = False

    def shifted(self, delta: Tensor) -> Tensor:
        """X + delta, kept in the box against rounding; on the grid if there is one."""
        if self.among_inputs:
            return delta
        return shifted(self.x, delta, self.box, self.grid)

    def seen(self, delta: Tensor) -> Tensor:
        """X + delta as the model sees it and as it is handed out, in the precision of the arithmetic."""
        point = self.shifted(delta)
        if self.asking.dtype == point.dtype:
            return point
        return cast_towards(self.x, point, self.asking.dtype).to(point.dtype)

    def inputs(self, delta: Tensor) -> Tensor:
        """X + delta in the dtype of the inputs, detached; rounded towards x where it is narrower."""
        return cast_towards(self.x, self.shifted(delta), self.asking.dtype)

    def __call__(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """(value, adversarial) at x + delta."""
        point = self.shifted(delta)
        if self.asking.draws > 1:
            return self.asking.averaged(point, self.goal)[:2]
        logits, hit = self.look(point)
        return self.goal.value(logits), hit

    def with_gradient(self, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(value, adversarial, gradient) at x + delta, differentiated at the shifted point itself.

        There the clamp to the box is not part of the graph: it changes rounding only.
        """
        point = self.shifted(delta.detach()).requires_grad_()
        if self.asking.draws > 1:
            return self.asking.averaged(point, self.goal)
        logits, hit = self.look(point)
        value = self.goal.value(logits)
        return value, hit, self.asking.gradient(value, point)

    def look(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """(logits, where they are adversarial) at inputs (`Asking.look`)."""
        return self.asking.look(point, self.x, self.goal)

    def confirmed(self, point: Tensor, hit: Tensor) -> Tensor:
        """Those of the rows `hit` at which the plain model errs as well (`Asking.confirmed`)."""
        return self.asking.confirmed(point, self.x, self.goal, hit)

    def logits(self, point: Tensor, *, plain: bool = False) -> Tensor:
        """The logits at inputs in float32 or float64 (`Asking.logits`)."""
        return self.asking.logits(point, self.goal, plain=plain)

    def from_clean(self) -> ShiftPayoff:
        """The same with the log-probabilities at the clean inputs as its reference: one forward pass, no gradient."""
        with torch.no_grad():
            reference = self.logits(self.x).log_softmax(1)
        self.asking.tally.forwards += len(self.x)
        return replace(self, goal=replace(self.goal, reference=reference))

    def with_loss(self, loss: Loss) -> ShiftPayoff:
        """The same with another loss."""
        return replace(self, goal=replace(self.goal, loss=loss))

    def rows(self, index: Tensor) -> ShiftPayoff:
        """The payoff of some examples."""
        grid = None if self.grid is None else self.grid.rows(index)
        return replace(self, asking=self.asking.rows(index), goal=self.goal.rows(index), x=self.x[index], grid=grid)

    def fanned(self, toward: Tensor) -> FannedPayoff:
        """The payoff over examples times classes: each example once for every class in `toward` (batch, m)."""
        return FannedPayoff(self, toward)


def shifted(x: Tensor, delta: Tensor, box: checks.DataBox, grid: Grid | None = None) -> Tensor:
    """X + delta, kept in the box against rounding; on the grid if there is one."""
    if grid is not None:
        return grid.point(x, delta)
    point = x + delta
    if box is None:
        return point
    return point.clamp(*box) if point.requires_grad else point.clamp_(*box)


def cast_towards(clean: Tensor, point: Tensor, dtype: torch.dtype) -> Tensor:
    """`point` in a narrower dtype, rounded towards `clean` where rounding would move it further away."""
    if dtype == point.dtype:
        return point.detach()
    cast = point.detach().to(dtype)
    beyond = (cast.to(clean.dtype) - clean).abs() > (point - clean).abs()
    return torch.where(beyond, torch.nextafter(cast, clean.to(dtype)), cast)


@dataclass(eq=False)
class FannedPayoff:
    """Examples times classes, an example's classes in a row; only to be cut (`rows`).

    Args:
        base: over examples.
        toward: (examples, m) classes.
    """

    base: ShiftPayoff
    toward: Tensor

    def __call__(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """(value, adversarial) of all rows at once."""
        return self.rows(torch.arange(self.toward.numel(), device=self.toward.device))(delta)

    def rows(self, index: Tensor) -> ShiftPayoff:
        """Some of the rows."""
        base = self.base.rows(index // self.toward.shape[1])
        return replace(base, goal=replace(base.goal, toward=self.toward.reshape(-1)[index]))
