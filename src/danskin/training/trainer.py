"""How to train: any objective, exact resume, live robust accuracy. Touches no disk and no terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from danskin.attacks import Attack
from danskin.errors import InputError
from danskin.inputs import class_numbers
from danskin.training.loop import Loop
from danskin.training.objective import Objective, inner_attack
from danskin.training.optimizers import SGD
from danskin.training.overfitting import OverfittingWatch
from danskin.training.process import Process, SingleProcess
from danskin.training.schedules import OneCycle, Schedule
from danskin.training.sharpness import Optimizer
from danskin.training.state import TrainingState
from danskin.training.validation import Select

Event = dict[str, Any]


@dataclass(frozen=True)
class Augment:
    """Random crop from zero padding and horizontal flip.

    Args:
        crop: padding in pixels; 0 for none.
        flip: mirror every other image.
    """

    crop: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise InputError(f"Augment.crop: expected a padding of 0 or more pixels, got {self.crop}; use 0 for none")


@dataclass(frozen=True)
class Hooks:
    """What others do while training goes on.

    Args:
        event: gets each event as a dict with "event", "step" and numbers.
        checkpoint: gets the state at the end of each epoch, and every `checkpoint_every` steps.
        checkpoint_every: steps; 0 for only at the end of epochs.
        stop: asked after each step and each epoch; True from any process saves a checkpoint in all and ends `fit`
            with KeyboardInterrupt.
    """

    event: Callable[[Event], None] = lambda event: None
    checkpoint: Callable[[TrainingState], None] = lambda state: None
    checkpoint_every: int = 0
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Trainer:
    """How to train; what to minimise and on what is said in `fit`.

    Args:
        epochs: passes over the training examples.
        batch_size: examples per step, over all processes; an incomplete last batch is left out, and of fewer
            examples all are taken.
        optimizer: `SGD`, `AdamW`, or one of `danskin.training.sharpness` around them, such as `WithSAM`.
        schedule: factor on the learning rate as a function of the share of training done.
        ema: decay of the averaged weights min(ema, (1 + t) / (10 + t)), which are then the ones evaluated and
            kept; None for none.
        clip: largest l2 norm of the gradient; None for no clipping.
        precision: "float32", or "bfloat16" autocast for objective and attack alike.
        channels_last: memory format of images and weights.
        augment: crop and flip.
        select: which epoch is best: by "robust" or by "clean" validation accuracy; "auto" is "robust" when the
            objective holds an attack and there is a monitor, else "clean".
        watch: how to look for catastrophic overfitting (adversarial objectives only).
        steps_per_batch: optimiser steps with the same gradient; 1. Two is what the released code of ELLE does.
        clean_pass: pass every clean batch through the model in training mode, for nothing but its BatchNorm buffers:
            what released code (Rice et al., ELLE) does for its log.
        log_every: steps between "step" events.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: Optimizer = field(default_factory=SGD)
    schedule: Schedule = field(default_factory=OneCycle)
    ema: float | None = None
    clip: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    augment: Augment = field(default_factory=Augment)
    select: Select = "auto"
    watch: OverfittingWatch = field(default_factory=OverfittingWatch)
    log_every: int = 20
    steps_per_batch: int = 1
    clean_pass: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "log_every", "steps_per_batch"):
            if getattr(self, name) < 1:
                raise InputError(f"Trainer.{name}: expected at least 1, got {getattr(self, name)}; correct it")
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(
                f"Trainer.ema: expected a decay between 0 and 1, got {self.ema}; try 0.995, or leave it out"
            )
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"Trainer.clip: expected a norm above 0, got {self.clip}; leave it out for no clipping")

    def start(self, model: nn.Module) -> TrainingState:
        """A fresh state for a model."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ema = AveragedModel(model, multi_avg_fn=_averaging(self.ema), use_buffers=True) if self.ema else None
        return TrainingState(model, self.optimizer(model.parameters()), ema)

    def fit(
        self,
        state: TrainingState,
        objective: Objective,
        train: tuple[Tensor, Tensor],
        validation: tuple[Tensor, Tensor],
        *,
        monitor: Attack | None = None,
        seed: int = 0,
        hooks: Hooks | None = None,
        process: Process | None = None,
    ) -> TrainingState:
        """Train until the last epoch, from wherever the state is.

        Args:
            state: from `start`, perhaps with a checkpoint loaded.
            objective: what to minimise.
            train: (x, y): uint8 images (n, C, H, W) or floating inputs (n, ...), integer labels; on the
                model's device.
            validation: held-out (x, y): decides which epoch is best.
            monitor: attack for the robust accuracy of each epoch.
            seed: decides order, augmentation and attacks.
            hooks: see `Hooks`.
            process: this process among others.

        Raises:
            InputError: no examples, or a batch that the processes cannot share evenly.
            DivergenceError: loss or outputs are no longer finite; the last checkpoint is from before.
        """
        hooks, process = hooks or Hooks(), process or SingleProcess()
        check_units(train[0], objective, monitor)
        train, validation = ((x, class_numbers(y, len(x)).to(y.device)) for x, y in (train, validation))
        run = Loop(self, state, objective, train, validation, monitor, seed, hooks, process)
        while state.epoch < self.epochs:
            run.epoch()
        return state


def check_units(x: Tensor, objective: Objective, monitor: Attack | None) -> None:
    """Images of bytes are trained on as k / 255, so the box of every attack is [0, 1], or there is none.

    Raises:
        InputError: another box.
    """
    for attack in (inner_attack(objective), monitor):
        box = None if attack is None or x.dtype != torch.uint8 else attack.box
        if box is not None and not all(bool((torch.as_tensor(b) == k).all()) for k, b in enumerate(box)):
            raise InputError(
                f"box: expected (0, 1), where images of bytes are trained on, got {box!r}; leave the box out, with "
                "radii in units of [0, 1], or train on floats in units of the box"
            )


def _averaging(decay: float) -> Callable[..., None]:
    """EMA with a warm-up: decay min(decay, (1 + t) / (10 + t)) after t updates."""

    @torch.no_grad()
    def update(averaged: Any, current: Any, updates: Tensor | int) -> None:
        t = int(updates)
        keep = min(decay, (1 + t) / (10 + t))
        if averaged[0].is_floating_point():  # torch hands over one dtype at a time
            torch._foreach_lerp_(averaged, current, 1 - keep)
        else:
            for a, c in zip(averaged, current, strict=True):
                a.copy_(c)

    return update
