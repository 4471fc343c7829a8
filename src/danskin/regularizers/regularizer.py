"""What all regularisers share: a ball, a weight, a share of the batch, and the call that weighs their values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from danskin.attacks import checks
from danskin.attacks.bounds import Ball
from danskin.attacks.checks import DataBox
from danskin.attacks.guard import raw_module
from danskin.callables import answerable
from danskin.errors import InputError, ModelError
from danskin.inputs import check_fields, check_model, whole_number
from danskin.losses import LossName, check_labels, get_loss
from danskin.minmax import Streams, Template
from danskin.minmax.data_box import box_for
from danskin.minmax.gradients import finite, gradient_at, twice_differentiable, warn_of_bad_gradient
from danskin.minmax.precision import at_least_float32
from danskin.minmax.reading import read_ball
from danskin.minmax.rows import rows_of
from danskin.minmax.search import ordinary
from danskin.regularizers.on_off import OnOff

Model = Callable[[Tensor], Tensor]
Memory = dict[str, Tensor]
_ROWS = 1_000_003  # the family of random numbers that picks the rows of a `share`; the terms use small ones


@dataclass(frozen=True)
class Regularizer(ABC):
    """weight * value_i, one number per example, to add to the loss before the mean over the batch is taken.

    Values are made of per-example losses (their sum over the batch is differentiated, never their mean), so that
    a weight means the same for every batch size. What is drawn for an example depends on the seed and its content.

    Args:
        ball: where points are drawn or sought, in the data's own units.
        weight: lambda >= 0.
        share: compute the term for ceil(share * batch) random rows only, scaled by batch / rows so that the mean over
            the batch stays unbiased; the other rows get 0.
        loss: by name, without targets and with a gradient.
        box: (low, high) that drawn points are clamped to; the released code of the field does not clamp them.
        schedule: switches the weight on and off (`OnOff`); None keeps it constant.

    Raises:
        InputError: a negative weight, a share outside (0, 1], a loss or a box that cannot be used.
    """

    template: ClassVar[Template]
    moves: ClassVar[str]
    #: Whether the term differentiates a gradient. Compiled modules cannot: their eager module is used instead.
    double_backward: ClassVar[bool]
    #: Whether `gradient` saves work.
    reuses_gradient: ClassVar[bool] = False

    ball: Ball
    weight: float
    share: float = field(default=1.0, kw_only=True)
    loss: LossName = field(default="cross_entropy", kw_only=True)
    box: DataBox = field(default=None, kw_only=True)
    schedule: OnOff | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "ball", read_ball(self.ball, f"{name}.ball"))
        check_fields(self)
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise InputError(f"{name}.weight: expected a finite number >= 0, got {self.weight}; 0 turns the term off")
        if not 0 < self.share <= 1:
            raise InputError(
                f"{name}.share: expected a number in (0, 1], got {self.share}; 1 takes every row of the batch"
            )
        if get_loss(self.loss).targeted or self.loss == "zero_one":
            raise InputError(
                f"{name}.loss: expected one with a gradient and without targets, got {self.loss!r}; use cross_entropy"
            )
        checks.check_box(self.box)

    @property
    def horizon(self) -> int:
        """Steps that must pass before the term is all that it says; 0 for most."""
        return 0

    @abstractmethod
    def values(self, model: Model, x: Tensor, y: Tensor, *, seed: int = 0, gradient: Tensor | None = None) -> Tensor:
        """The unweighted term, (batch,), differentiable in the weights; under no_grad a plain number per example.

        Args:
            model: inputs to logits; called as it is, in the mode it is in. `.grad` is not touched.
            x: (batch, ...) inputs.
            y: (batch,) labels.
            seed: of what is drawn.
            gradient: (batch, ...) the gradient of the per-example loss at x, if known (`reuses_gradient`).
        """

    def begin(self) -> Memory:
        """What is carried from step to step: {} unless something changes on the way, such as the weight."""
        return {} if self.schedule is None else self.schedule.begin()

    def now(self, memory: Memory | None) -> Regularizer:
        """The term of the coming step, which is counted in the memory: itself, where it is always the same."""
        return self

    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        gradient: Tensor | None = None,
        memory: Memory | None = None,
        mean: Callable[[Tensor], Tensor] = lambda t: t,
    ) -> Tensor:
        """The weighted term, (batch,): add it to the losses, then take the mean.

        While the weight is 0 no gradient is prepared, and without a schedule nothing is computed.

        Args:
            model: inputs to logits; called as it is.
            x: (batch, ...) inputs.
            y: (batch,) labels.
            seed: of what is drawn; another one in every step.
            gradient: see `values`.
            memory: what `begin` returned; changed in place. Needed where that is not empty.
            mean: averages a scalar tensor over processes; the schedule decides by what it returns.
        """
        check_model(model)
        seed = whole_number(seed, "seed")
        x, y = checked(x, y, self.ball)
        scale = self.weight if self.schedule is None else self.schedule.weight(self._held(memory), self.weight)
        if scale == 0 and self.schedule is None:
            return x.new_zeros(len(x))
        rows = self._rows(x, seed)
        part, labels = (x, y) if rows is None else (x[rows], y[rows])
        known = gradient if gradient is None or rows is None else gradient[rows]
        term = self.now(memory)
        term = term if rows is None else term._for(rows)
        with torch.set_grad_enabled(torch.is_grad_enabled() and scale > 0), answerable(model):
            values = term.values(model, part, labels, seed=seed, gradient=known)
        if self.schedule is not None:
            self.schedule.update(self._held(memory), float(mean(values.detach().mean())))
        if scale == 0:
            return x.new_zeros(len(x), dtype=values.dtype)
        if rows is None:
            return scale * values
        return values.new_zeros(len(x)).index_put((rows,), values * (scale * len(x) / len(rows)))

    def _held(self, memory: Memory | None) -> Memory:
        if not memory:
            raise InputError(
                f"{type(self).__name__}.memory: expected the tensors that begin() returned, got {memory!r}; call "
                "memory = regularizer.begin() once before training, and pass it in every step"
            )
        return memory

    def _rows(self, x: Tensor, seed: int) -> Tensor | None:
        """The rows of a share, None for all: those with the smallest of one random number per example."""
        count = max(1, math.ceil(self.share * len(x) - 1e-9))
        if count == len(x):
            return None
        dice = Streams.of_content(seed, x).child(_ROWS).uniform(x.new_empty(len(x), 1, dtype=torch.float64))
        return dice.view(-1).argsort(stable=True)[:count]

    def _for(self, rows: Tensor) -> Regularizer:
        """The same term for some rows: a radius per example is cut along."""
        return replace(self, ball=rows_of(self.ball, rows))

    def sample(self, x: Tensor, streams: Streams) -> Tensor:
        """X plus a random point of the ball, in the box."""
        return self.clamp(x + self.ball.sample(x, streams))

    def clamp(self, point: Tensor) -> Tensor:
        """A point, in the data box if there is one."""
        box = box_for(self.box, point)
        return point if box is None else point.clamp(*box)

    def losses(self, model: Model, point: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
        """(batch,): the loss at a point, from logits in float32 or float64; the model sees inputs of `dtype`."""
        logits = at_least_float32(checks.check_logits(model(point.to(dtype)), len(point)))
        loss = get_loss(self.loss)
        check_labels(y, logits, loss)
        return loss.function(logits, y)

    def slope(
        self, model: Model, point: Tensor, y: Tensor, dtype: torch.dtype, *, twice: bool
    ) -> tuple[Tensor, Tensor]:
        """(loss, its gradient to the input) at a point, per example.

        Args:
            model: inputs to logits.
            point: (batch, ...) inputs in working precision.
            y: (batch,) labels.
            dtype: of the inputs that the model sees.
            twice: the gradient is to be differentiated again (by the weights).
        """
        leaf = point.detach().requires_grad_()
        with twice_differentiable() if twice else nullcontext():
            value = self.losses(model, leaf, y, dtype)
            slope = None
            if twice and value.requires_grad:
                (slope,) = torch.autograd.grad(value.sum(), leaf, create_graph=True, allow_unused=True)
        if slope is None:
            slope, bad = finite(gradient_at(value, leaf), value)  # which says what is wrong, if anything is
            if bool(bad):
                warn_of_bad_gradient()
        elif bool(finite(slope.detach(), value)[1]):
            raise ModelError(
                f"{type(self).__name__}: expected finite partial derivatives, got NaN or infinity in some coordinates; "
                "differentiated once more they would make every weight NaN. Keep the model away from roots, logarithms "
                "and norms at 0 (x.clamp_min(1e-6).sqrt()), or take ELLE, which needs no derivative"
            )
        return value, slope


def checked(x: Tensor, y: Tensor, ball: Ball) -> tuple[Tensor, Tensor]:
    """Inputs and labels that a term can work on.

    Raises:
        InputError: an empty batch, or inputs, labels or radii that do not fit.
    """
    checks.check_inputs(x, None)
    if len(x) == 0:
        raise InputError("regularizer: expected at least one example, got an empty batch; skip it")
    y = checks.check_integer_labels(y, x)
    checks.check_radius(ball, x, None)
    return ordinary(x.detach()), ordinary(y)


def known_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """A gradient that the caller has, detached and in working precision.

    Raises:
        InputError: it is not shaped as x.
    """
    if gradient.shape != x.shape:
        raise InputError(
            f"gradient: expected the shape of x, {tuple(x.shape)}, got {tuple(gradient.shape)}; pass the gradient of "
            "the per-example loss at these inputs"
        )
    return ordinary(gradient.detach()).to(x)


def eager(model: Any) -> Any:
    """The module inside DistributedDataParallel and torch.compile: it has the same weights, and two derivatives."""
    while isinstance(model, nn.Module):
        inner = raw_module(model)
        inner = getattr(inner, "_orig_mod", inner)
        if inner is model:
            break
        model = inner
    return model


@contextmanager
def gradients_on() -> Iterator[bool]:
    """A context in which gradients to the input can be taken; says whether they were on outside."""
    wanted = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        yield wanted


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """(batch,): <a, b> per row, summed in float64."""
    return (a * b).flatten(1).sum(1, dtype=torch.float64).to(a.dtype)
