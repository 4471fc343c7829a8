"""What all attacks share: a ball, a payoff, a data box, and the call that maximises, audits and reports."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from danskin.attacks import checks
from danskin.attacks.asking import Asking, Heard, Precision, Witness
from danskin.attacks.bounds import Ball, perturbations
from danskin.attacks.goal import Goal
from danskin.attacks.grid import Grid
from danskin.attacks.guard import BatchNormMode, as_found, device_of, raw_module
from danskin.attacks.judging import Attacked, Batch, judged
from danskin.attacks.payoff import ShiftPayoff, shifted
from danskin.errors import InputError
from danskin.inputs import check_fields, check_model, whole_number
from danskin.losses import LossName, get_loss
from danskin.minmax import (
    Cost,
    Cube,
    Linf,
    Maximizer,
    Maximum,
    Problem,
    Set,
    Status,
    Streams,
    Template,
)
from danskin.minmax.data_box import DataBox, box_for
from danskin.minmax.gradients import warn_of_bad_gradient
from danskin.minmax.intersection import order_of
from danskin.minmax.measured import measured, radius_of
from danskin.minmax.precision import at_least_float32
from danskin.minmax.reading import read_ball
from danskin.minmax.rows import PerRow
from danskin.minmax.search import ordinary


@dataclass(frozen=True)
class Attack(PerRow, ABC):
    """max over delta in ball and box of loss(model(x + delta), y), per example.

    Args:
        ball: `Linf`, `L2` or `L1` with the radius in the data's own units, a text such as "linf:8/255", or any other
            `Set`.
        loss: what the adversary raises, by name (`danskin.losses.LOSSES`); with targets, an untargeted loss is
            lowered at the targets.
        box: (low, high) of valid data, numbers or tensors with a bound for each channel; None for no bounds.
        batchnorm: what BatchNorm and dropout do meanwhile (`danskin.attacks.guard.BatchNormMode`).
        precision: "model", or "bfloat16" for the search (the outcome is always judged without it).
        grid: 255 keeps perturbed inputs at multiples of 1/255 of the box: valid images of 8 bits, seen as such by the
            model in every step (`danskin.attacks.grid`).
        draws: passes that every look at the model averages over; more than 1 for models that are random. The
            outcome is then judged by `JUDGE_DRAWS` fresh ones, or `draws` if that is more.
    """

    template: ClassVar[Template] = Template("fixed", "input shift", "ball and box", "loss of the model")
    #: Whether the attack chooses the classes of a targeted loss by itself.
    aims: ClassVar[bool] = False
    #: Whether the maximiser knows shifts only as points of a set: it may then be given the inputs themselves.
    anywhere: ClassVar[bool] = False

    ball: Ball
    loss: LossName = field(default="cross_entropy", kw_only=True)
    box: DataBox = field(default=(0, 1), kw_only=True)
    batchnorm: BatchNormMode = field(default="as_is", kw_only=True)
    precision: Precision = field(default="model", kw_only=True)
    grid: int | None = field(default=None, kw_only=True)
    draws: int = field(default=1, kw_only=True)

    #: Whether what the maximiser returns stays in the ball; False for noise that is only trained with.
    stays_inside: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "ball", read_ball(self.ball, f"{type(self).__name__}.ball"))
        check_fields(self)

    @staticmethod
    def applies_to(x: Tensor) -> bool:
        """Whether the attack can work on inputs of this shape."""
        return True

    def objection(self, x: Tensor) -> str:
        """Why the attack cannot work on inputs like x or in its ball; empty if it can."""
        return "" if self.applies_to(x) else f"inputs of shape {tuple(x.shape[1:])} are not images"

    @abstractmethod
    def maximizer(self) -> Maximizer:
        """How this attack maximises."""

    @property
    def radius(self) -> Any:
        """The radius of the ball, a number or one per example: what default steps are shares of."""
        return radius_of(self.ball)

    def sized(self, x: Tensor) -> Attack:
        """The same attack with a ball that says its radius: one that does not is measured."""
        return self if hasattr(self.ball, "value") else replace(self, ball=measured(self.ball, x))

    def feasible(self, x: Tensor) -> Set:
        """Perturbations of x within the ball that stay in the box."""
        return perturbations(x, self.ball, self.box)

    def problem(
        self,
        model: Callable[[Tensor], Tensor],
        batchnorm: BatchNormMode | None = None,
        device: torch.device | None = None,
        quick: Callable[[Tensor], Tensor] | None = None,
    ) -> Problem:
        """This attack as the inner half of min over weights, max over delta.

        Args:
            model: its parameters are x of the template; the adversary sees the raw module.
            batchnorm: overrides the attack's own mode.
            device: of the inputs; default: that of the model's parameters.
            quick: a quicker form of the model for the adversary's search; successes are confirmed by `model`.
        """
        loss, raw = get_loss(self.loss), raw_module(model)
        searched, plain = (raw, None) if quick is None else (quick, raw)

        def adversary(batch: Batch) -> ShiftPayoff:
            confirm = getattr(self, "stop", False)
            asking = Asking(searched, batch.dtype, plain, self.precision, self.draws, confirm)
            goal = Goal(batch.y, batch.targets, loss)
            payoff = ShiftPayoff(asking, goal, batch.x, box_for(self.box, batch.x), self._grid(batch))
            return payoff.from_clean() if loss.relative else payoff

        def payoff(batch: Batch, delta: Tensor) -> Tensor:
            logits = model(self.points(batch, delta))
            return adversary(batch).goal.value(at_least_float32(logits))

        def guard() -> Any:
            return as_found(raw, batchnorm or self.batchnorm, device or device_of(raw))

        return Problem(
            payoff,
            lambda batch: self.feasible(batch.x),
            lambda batch: torch.zeros_like(batch.x),
            adversary,
            guard,
        )

    def points(self, batch: Batch, delta: Tensor) -> Tensor:
        """(batch, ...) the shifted inputs in the box (and on the grid), as the model takes them."""
        return shifted(batch.x, delta, box_for(self.box, batch.x), self._grid(batch)).to(batch.dtype)

    def _grid(self, batch: Batch) -> Grid | None:
        if self.grid is None:
            return None
        box = box_for(self.box, batch.x)
        if box is None or self.grid < 1:
            raise InputError(
                f"grid: expected at least 1 level and a box, got {self.grid} and {self.box}; use 255 and (0, 1)"
            )
        grid = Grid(self.grid, box, self.ball)
        grid.check(batch.x, batch.dtype)
        return grid

    def batch(self, x: Tensor, y: Tensor, targets: Tensor | None = None) -> Batch:
        """Checked examples in working precision.

        Raises:
            InputError: something about x, y, targets, the box or the radius is not as it must be.
        """
        checks.check_box(self.box)
        checks.check_precision(self.precision)
        checks.check_draws(self.draws)
        checks.check_inputs(x, self.box)
        y = checks.check_integer_labels(y, x)
        checks.check_radius(self.ball, x, self.box)
        if targets is not None and self.aims:
            raise InputError(f"targets: expected none for {type(self).__name__}, which tries wrong classes by itself")
        if targets is not None and get_loss(self.loss).relative:
            raise InputError(
                f"targets: expected none with loss={self.loss!r}, which knows no labels; use cross_entropy"
            )
        if targets is not None:
            targets = checks.check_integer_labels(targets, x, "targets")
        elif get_loss(self.loss).targeted and not self.aims:
            raise InputError(f"targets: expected targets for loss={self.loss!r}, got none; pass targets= or use margin")
        work = at_least_float32(x.detach())
        return Batch(ordinary(work), ordinary(y), None if targets is None else ordinary(targets), x.dtype)

    def __call__(
        self,
        model: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        targets: Tensor | None = None,
        index: Tensor | None = None,
        quick: Callable[[Tensor], Tensor] | None = None,
        witness: Witness | None = None,
    ) -> Attacked:
        """Attack a batch. The model, its gradients and the global random state are left as found.

        Args:
            model: any callable from inputs (batch, ...) in the box to logits (batch, classes), or to one
                output per example for -1/+1 labels.
            x: (batch, ...) clean inputs, floating point.
            y: (batch,) integer labels.
            seed: with the example's content (or `index`) it decides all random numbers.
            targets: (batch,) labels to reach; None for any wrong one.
            index: (batch,) int64 names of the examples; default: their content, so that the result for an
                example depends on neither its batch nor its place there.
            quick: a quicker form of the model (compiled, another memory format) to search with; what it finds
                counts only if `model` confirms it.
            witness: called with (rows of x, inputs) as soon as the search sees these rows misclassified there, before
                the audit; for those who want to keep what was found should the run be cut short.

        Raises:
            InputError: wrong inputs, labels, radius or box.
            ModelError: the model returned NaN, the wrong batch size, or something without a gradient.
        """
        if not self.stays_inside:
            raise InputError(
                f"{type(self).__name__}: expected to be trained with, got a call as an attack; its points leave the "
                "ball, so use FGSM or PGD to attack"
            )
        start = time.perf_counter()
        check_model(model)
        batch = self.batch(x, y, targets)
        names = None if index is None else ordinary(checks.check_integer_labels(index, x, "index"))
        if len(x) == 0:
            none, zero = torch.zeros(0, dtype=torch.bool, device=x.device), batch.x.new_zeros(0)
            return Attacked(x.clone(), batch.x.clone(), none, zero, Cost(), Status.EMPTY, zero)
        payoff, found = self.maximize(model, batch, seed, index=names, quick=quick, witness=witness)
        with torch.inference_mode(False):
            result = judged(self, payoff, batch, found, raw_module(model))
        return replace(result, cost=replace(result.cost, seconds=time.perf_counter() - start))

    def perturb(self, model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
        """The perturbed inputs alone, without a word on success: for a training loop of one's own.

        With ``keep="last"`` a `PGD` of n steps then takes n forward and backward passes; its call takes one forward
        pass more, to judge the outcome.

        Args:
            model: as in the call.
            x: (batch, ...) clean inputs, floating point.
            y: (batch,) integer labels.
            seed: as in the call; another one for every step of training.

        Returns:
            (batch, ...) in the dtype of x, in the box, and in the ball but for attacks that are only trained with.
        """
        batch = self.batch(x, y)
        if len(x) == 0:
            return x.clone()
        payoff, found = self.maximize(model, batch, seed)
        with torch.inference_mode(False):
            return payoff.inputs(found.y)

    def maximize(
        self,
        model: Callable[[Tensor], Tensor],
        batch: Batch,
        seed: int,
        *,
        index: Tensor | None = None,
        child: int | None = None,
        batchnorm: BatchNormMode | None = None,
        quick: Callable[[Tensor], Tensor] | None = None,
        witness: Witness | None = None,
    ) -> tuple[ShiftPayoff, Maximum]:
        """One maximisation inside its guard, not judged: the payoff, and what was found in its coordinates.

        Args:
            model: the adversary sees the raw module.
            batch: at least one example.
            seed: as in the call.
            index: as in the call.
            child: which of several independent runs.
            batchnorm: overrides the attack's own mode.
            quick: as in the call.
            witness: as in the call.
        """
        check_model(model)
        seed = whole_number(seed, "seed")
        own = self.sized(batch.x)
        problem = own.problem(model, batchnorm, batch.x.device, quick)
        with problem.guard():
            if self.draws > 1:
                torch.manual_seed(seed)  # the model's own dice; the state found is given back
            streams = Streams.of_content(seed, batch.x) if index is None else Streams.of(seed, index)
            streams = streams if child is None else streams.child(child)
            payoff: ShiftPayoff = problem.adversary_payoff(batch)  # type: ignore[assignment]
            if witness is not None:
                heard = Heard(torch.arange(len(batch.x), device=batch.x.device), witness)
                payoff = replace(payoff, asking=replace(payoff.asking, heard=heard))
            usual = type(self).feasible is Attack.feasible and self.grid is None
            if self.anywhere and usual and order_of(self.ball) == math.inf:
                payoff = replace(payoff, among_inputs=True)
                cube = Cube(batch.x, cast(Linf, self.ball), box_for(self.box, batch.x))
                found = self.maximizer()(payoff, batch.x, cube, streams)
            else:
                Y, start = problem.feasible(batch), problem.start(batch)
                if not usual or order_of(self.ball) is None:  # a set of one's own need not hold 0
                    start = Y.project(start)
                found = own.maximizer()(payoff, start, Y, streams)
            if bool(payoff.asking.tally.bad_gradient):
                warn_of_bad_gradient()
                found = replace(found, status=Status.BAD_GRADIENT)
            return payoff, found
