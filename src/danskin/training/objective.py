"""What every objective over weights is: what its adversary finds, and the losses of the examples there.

``objective(model, x, y, seed=step) -> scalar``, ready for backward(), in anyone's loop. The mean over the batch is
taken in `Objective.__call__` and nowhere before, so that objectives nest: a regulariser adds to the losses of the
examples, class weights multiply them, a weight perturbation evaluates them elsewhere. LECTURE rows A1 and C1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

from torch import Tensor

from danskin.attacks import Attack
from danskin.attacks.checks import check_integer_labels
from danskin.attacks.guard import BatchNormMode
from danskin.callables import answerable
from danskin.errors import InputError
from danskin.inputs import check_fields, check_model, whole_number
from danskin.losses import LossName, check_labels, get_loss, labelled_loss, predict
from danskin.minmax.precision import at_least_float32
from danskin.minmax.reading import read_ball
from danskin.training.process import Together, together

#: What an objective keeps from step to step: tensors by name, made by `Objective.begin`, changed in place.
Memory = dict[str, Tensor]
Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Step:
    """What an objective knows of the step beside model and batch.

    Args:
        seed: of all random numbers of the step; they belong to examples.
        memory: what the objective keeps (`Objective.begin`).
        index: (batch,) int64 places of the examples in the data set, for objectives that keep something per example.
        processes: those that share the batch; sums over them.
    """

    seed: int = 0
    memory: Memory = field(default_factory=dict)
    index: Tensor | None = None
    processes: Together = field(default_factory=Together)


@dataclass(frozen=True, eq=False)
class Found:
    """What the adversary of an objective found; everything is held constant in the outer step.

    Args:
        x: (batch, ...) clean inputs as the model takes them.
        y: (batch,) labels.
        points: (batch, ...) inputs to train on, or (m, batch, ...) where there are m of each example.
        gradient: (batch, ...) of the adversary's loss at x where the search took it, else None.
        weights: (m, batch) of the points, where there are several.
    """

    x: Tensor
    y: Tensor
    points: Tensor
    gradient: Tensor | None = None
    weights: Tensor | None = None


class Losses(NamedTuple):
    """Per example: the loss to minimise, and whether the prediction at the point trained on is wrong.

    value (batch,) has a gradient to the weights; wrong (batch,) is bool.
    """

    value: Tensor
    wrong: Tensor


class Objective(ABC):
    """min over weights of the mean of `losses` at what `search` finds."""

    #: Optimiser steps that are meant to be made on each batch, one call of the objective for each.
    replays: int = 1
    #: Whether the gradient of the mean loss is the mean of those of `losses`, so that weights can multiply them.
    reweightable: bool = True
    #: Names of what is kept with a row for each place in the batch: on several processes, each has its own part.
    places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """The parts are what they must be: an attack, a ball, an objective inside, numbers.

        Raises:
            InputError: one is something else.
        """
        name = type(self).__name__
        parts: set[str] = {f.name for f in fields(self)} if is_dataclass(self) else set()
        if "ball" in parts:
            object.__setattr__(self, "ball", read_ball(self.ball, f"{name}.ball"))  # type: ignore[attr-defined]
        for part, kind, example in (
            ("attack", Attack, "PGD(Linf('8/255'))"),
            ("objective", Objective, "AdversarialTraining(attack)"),
        ):
            held = getattr(self, part) if part in parts else None
            if part in parts and not isinstance(held, kind):
                raise InputError(f"{name}.{part}: expected one such as {example}, got {held!r}; put it inside one")
        check_fields(self)

    def begin(self) -> Memory:
        """What to keep from step to step; {} for most. Pass it to every call, and save it with the weights."""
        return {}

    def draw(self, memory: Memory, labels: Tensor, n: int, seed: int) -> Tensor | None:
        """Places in the data set of the next n examples to train on, where the objective chooses them; None else.

        Args:
            memory: what the objective keeps.
            labels: (examples,) of the whole data set.
            n: how many.
            seed: of the draw.
        """
        return None

    @property
    def horizon(self) -> int:
        """Steps that must pass before the objective is all that it says; 0 for most."""
        return 0

    def gauges(self, memory: Memory) -> dict[str, float]:
        """Numbers to watch while training, such as an adaptive weight; none for most."""
        return {}

    @abstractmethod
    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """What the adversary does; the weights do not move."""

    @abstractmethod
    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses of the examples there, with a gradient to the weights."""

    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        memory: Memory | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """The mean loss of a batch, ready for backward().

        Args:
            model: inputs to logits; under DistributedDataParallel the adversary sees the raw module, and numbers that
                belong to the whole batch are summed over the processes.
            x: (batch, ...) inputs in the data's own units.
            y: (batch,) labels.
            seed: another one for every step.
            memory: from `begin`, the same dict in every step; not needed by objectives that keep nothing.
            index: (batch,) places of the examples in the data set; needed by `FOL` only.

        Raises:
            InputError: an empty batch, labels or inputs that do not fit, or no memory where one is needed.
            ModelError: torch cannot do what the model asks of it.
        """
        name = type(self).__name__
        check_model(model)
        if len(x) == 0:
            raise InputError(f"{name}: expected at least one example, got an empty batch; skip it")
        y = check_integer_labels(y, x)
        if memory is None:
            memory = self.begin()
            if memory:
                raise InputError(
                    f"{name}.memory: expected the dict that the steps share, got none; make it once with "
                    "memory = objective.begin() and pass memory=memory in every step"
                )
        step = Step(whole_number(seed, "seed"), memory, index, together(model))
        with answerable(model):
            return self.losses(model, self.search(model, x, y, step), step).value.mean()


@dataclass(frozen=True)
class Wrapper(Objective):
    """An objective around another: what it does not say itself is as inside.

    Args:
        objective: the one inside.
    """

    objective: Objective

    @property
    def attack(self) -> Attack | None:
        """The attack of the objective inside."""
        return inner_attack(self.objective)

    @property
    def replays(self) -> int:  # type: ignore[override]
        """As the objective inside."""
        return self.objective.replays

    @property
    def reweightable(self) -> bool:  # type: ignore[override]
        """As the objective inside."""
        return self.objective.reweightable

    @property
    def places(self) -> tuple[str, ...]:  # type: ignore[override]
        """As the objective inside."""
        return self.objective.places

    def begin(self) -> Memory:
        """What the objective inside keeps."""
        return self.objective.begin()

    def draw(self, memory: Memory, labels: Tensor, n: int, seed: int) -> Tensor | None:
        """As the objective inside."""
        return self.objective.draw(memory, labels, n, seed)

    @property
    def horizon(self) -> int:
        """As the objective inside."""
        return self.objective.horizon

    def gauges(self, memory: Memory) -> dict[str, float]:
        """Those of the objective inside."""
        return self.objective.gauges(memory)

    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """What the adversary of the objective inside finds."""
        return self.objective.search(model, x, y, step)


def check_reweightable(name: str, objective: Objective) -> None:
    """Refuse to multiply losses that are not the whole of their objective."""
    if not objective.reweightable:
        raise InputError(
            f"{name}.objective: expected one whose gradient is the mean over the examples, got "
            f"{type(objective).__name__}, whose gradient is put together from the whole batch; use AdversarialTraining"
        )


def with_gradient(value: Tensor, parameters: Iterable[Tensor], gradients: Iterable[Tensor]) -> Tensor:
    """`value`, held constant, with these gradients to the parameters: value + sum_p <p - constant p, g_p>."""
    zero = sum(((p - p.detach()) * g.to(p)).sum() for p, g in zip(parameters, gradients, strict=True))
    return value.detach() + zero


def logits_at(model: Model, points: Tensor) -> Tensor:
    """The model's logits in at least float32."""
    return at_least_float32(model(points))


def judged(logits: Tensor, y: Tensor, value: Tensor) -> Losses:
    """These losses, with what the logits say."""
    return Losses(value, predict(logits.detach()) != y)


def trainable_loss(name: LossName) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss called `name`, which refuses labels that do not fit."""
    loss = get_loss(name)
    if loss.targeted or loss.relative or name == "zero_one":
        raise InputError(
            f"loss: expected one that weights can minimise, with a gradient and a label, got {name!r}; use "
            "cross_entropy"
        )

    def function(logits: Tensor, labels: Tensor) -> Tensor:
        check_labels(labels, logits, loss)
        return loss.function(logits, labels)

    return function


def outer_loss(attack: Attack, name: LossName | None) -> LossName:
    """What the weights minimise: as named, else the attack's own loss, cross-entropy where that is targeted."""
    return name or labelled_loss(attack.loss)


def attacked(
    attack: Attack, model: Model, x: Tensor, y: Tensor, seed: int, batchnorm: BatchNormMode, child: int | None = None
) -> Found:
    """The points that an attack finds, not judged: one maximisation inside its guard.

    Args:
        attack: any attack.
        model: the adversary sees the raw module.
        x: (batch, ...) inputs.
        y: (batch,) labels.
        seed: of the step.
        batchnorm: overrides the attack's own mode.
        child: which of several independent runs.
    """
    batch = attack.batch(x, y)
    payoff, maximum = attack.maximize(model, batch, seed, child=child, batchnorm=batchnorm)
    gradient = maximum.gradient if attack.precision == "model" else None
    return Found(x, batch.y, payoff.inputs(maximum.y), gradient)


def inner_attack(objective: Any) -> Attack | None:
    """The attack inside an objective, or None."""
    found = getattr(objective, "attack", None)
    return found if isinstance(found, Attack) else None
