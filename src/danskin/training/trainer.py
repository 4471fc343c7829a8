"""The training loop: any objective, exact resume, live robust accuracy. Touches no disk and no terminal.

All randomness is a function of (seed, epoch, step, example), apart from dropout, whose generator state is
part of `TrainingState`; so a resumed run equals an uninterrupted one bit for bit on the CPU.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from danskin.attacks import Attack
from danskin.attacks.guard import as_found
from danskin.attacks.outcomes import outcomes
from danskin.data import batch_indices, crop_flip, draw_crop_flip, to_float
from danskin.errors import DanskinWarning, DivergenceError, InputError
from danskin.metrics import PerClass, Share
from danskin.training.objective import Objective, inner_attack
from danskin.training.optimizers import SGD, Optimizer
from danskin.training.overfitting import OverfittingWatch
from danskin.training.process import Process, SingleProcess
from danskin.training.schedules import OneCycle, Schedule
from danskin.training.state import TrainingState

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
        optimizer: `SGD` or `AdamW`.
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
    select: Literal["auto", "robust", "clean"] = "auto"
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
        run = _Run(self, state, objective, train, validation, monitor, seed, hooks, process)
        while state.epoch < self.epochs:
            run.epoch()
        return state


@dataclass
class _Run:
    """One call of `fit`."""

    trainer: Trainer
    state: TrainingState
    objective: Objective
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    monitor: Attack | None
    seed: int
    hooks: Hooks
    process: Process

    stopping: bool = False

    def __post_init__(self) -> None:
        n, world, batch = len(self.train[1]), self.process.world, self.trainer.batch_size
        if n == 0 or len(self.validation[1]) == 0:
            raise InputError("fit: expected training and validation examples, got an empty set; check the data")
        if batch % world:
            raise InputError(
                f"batch_size: expected a multiple of the {world} processes, got {batch}; each takes an equal part"
            )
        if self.trainer.select == "robust" and self.monitor is None:
            raise InputError("Trainer.select: expected a monitor to select by robust accuracy, got none; pass monitor=")
        self.batch = min(batch, n - n % world)
        if self.batch == 0:
            raise InputError(f"fit: expected at least {world} training examples, got {n}; use fewer processes")
        self.outer = self.process.wrap(self.state.model)
        self.steps = self.trainer.epochs * (n // self.batch) * self.objective.replays
        if self.objective.horizon >= self.steps:
            warnings.warn(
                f"fit: expected more than the {self.objective.horizon} steps that the objective takes to warm up, got "
                f"{self.steps}; train longer, or shorten the warm-up",
                DanskinWarning,
                stacklevel=3,
            )
        if not self.state.memory:
            self.state.memory = self.objective.begin()
        for name, kept in self.state.memory.items():
            kept = kept if kept.device == self.train[1].device else kept.to(self.train[1].device)
            self.state.memory[name] = self._own(kept) if self.state.of_all and name in self.objective.places else kept
        self.state.of_all = False

    def epoch(self) -> None:
        """Train one epoch, or what is left of it, then validate."""
        state, started = self.state, time.perf_counter()
        batches = batch_indices(len(self.train[1]), self.batch, seed=self.seed, epoch=state.epoch, drop_last=True)
        state.model.train()
        for rows in batches[state.batch :]:
            rows = self._drawn(rows)
            for _ in range(self.objective.replays):
                self._step(rows)
                state.step += 1
            state.batch += 1
            self._after_step(last=state.batch == len(batches))
        state.epoch, state.batch = state.epoch + 1, 0
        self._validate(time.perf_counter() - started)
        self._checkpoint()
        if self.process.sum(torch.tensor(float(self.hooks.stop()), device=self.validation[1].device)) > 0:
            raise KeyboardInterrupt

    def _step(self, rows: Tensor) -> None:
        state, trainer = self.state, self.trainer
        x, y = self._batch(rows)
        rate = trainer.optimizer.lr * trainer.schedule(state.step / self.steps)
        cycled = getattr(trainer.schedule, "momentum", None)
        momentum = None if cycled is None else cycled(state.step / self.steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
            if momentum is not None:
                group["momentum"] = momentum
        state.optimizer.zero_grad(set_to_none=True)
        low = trainer.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16) if low else nullcontext():
            loss = self.objective(
                self.outer, x, y, seed=_mixed(self.seed, state.step), memory=state.memory, index=self._mine(rows)
            )
        loss.backward()
        if trainer.clean_pass:
            with torch.no_grad():
                state.model(x)
        # one sum for loss and stop: all processes then take every branch alike
        total, stops = self.process.sum(torch.stack([loss.detach(), loss.new_tensor(self.hooks.stop())])).tolist()
        value, self.stopping = total / self.process.world, stops > 0
        if not math.isfinite(value):
            raise _diverged(f"a finite loss, got {value} in step {state.step + 1}")
        if trainer.clip is not None:
            nn.utils.clip_grad_norm_(state.model.parameters(), trainer.clip)
        for _ in range(trainer.steps_per_batch):
            state.optimizer.step()
        if state.ema is not None:
            state.ema.update_parameters(state.model)
        state.sums["loss"] += value * len(rows)
        state.sums["examples"] += len(rows)
        if state.step % trainer.log_every == 0:
            event = {"event": "step", "step": state.step + 1, "of": self.steps, "loss": value, "lr": rate}
            gauges = self.objective.gauges(state.memory)
            self.hooks.event(event | ({"gauges": gauges} if gauges else {}))

    def _checkpoint(self) -> None:
        """Save, with the parts of all processes where each has its own: any number of them can go on."""
        own = self.state.memory
        whole = {name: self._of_all(own[name]) for name in self.objective.places}
        self.state.memory = own | whole
        try:
            self.hooks.checkpoint(self.state)
        finally:
            self.state.memory = own

    def _of_all(self, kept: Tensor) -> Tensor:
        """Rows of all processes, in the order of the batch, and their gradients."""
        if self.process.world == 1:
            return kept

        def joined(rows: Tensor) -> Tensor:
            whole = rows.new_zeros(len(rows) * self.process.world, *rows.shape[1:])
            whole[self._part] = rows.detach()
            return self.process.sum(whole)

        whole = joined(kept)
        whole.grad = None if kept.grad is None else joined(kept.grad)
        return whole

    def _own(self, whole: Tensor) -> Tensor:
        """This process's rows of what `_of_all` returned."""
        part = whole[self._part].clone()
        part.grad = None if whole.grad is None else whole.grad[self._part].clone()
        return part

    @property
    def _part(self) -> slice:
        """The places in a batch that are this process's."""
        return slice(self.process.rank, None, self.process.world)

    def _mine(self, rows: Tensor) -> Tensor:
        return rows[self._part].to(self.train[1].device)

    def _drawn(self, rows: Tensor) -> Tensor:
        """The rows of the next batch: these, or those an objective draws in their place (`Objective.draw`)."""
        state = self.state
        drawn = self.objective.draw(state.memory, self.train[1], len(rows), _mixed(self.seed, state.step, 2))
        return rows if drawn is None else drawn

    def _batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """This process's part of a batch, augmented with numbers drawn for the whole of it."""
        x, y = self.train
        augment, part, mine = self.trainer.augment, self._part, self._mine(rows)
        images, labels = x[mine], y[mine]
        if augment.crop or augment.flip:
            generator = torch.Generator().manual_seed(_mixed(self.seed, self.state.step, 1))
            dy, dx, flip = (t[part] for t in draw_crop_flip(len(rows), augment.crop, generator, flip=augment.flip))
            images = crop_flip(images, dy, dx, flip, augment.crop)
        return self._prepare(images), labels

    def _prepare(self, x: Tensor) -> Tensor:
        x = to_float(x)
        return x.contiguous(memory_format=torch.channels_last) if self.trainer.channels_last and x.ndim == 4 else x

    def _after_step(self, last: bool) -> None:
        state, watch, every = self.state, self.trainer.watch, self.hooks.checkpoint_every
        attack = inner_attack(self.objective)
        look = attack is not None and (last or bool(watch.every and state.step % watch.every == 0))
        save = self.stopping or bool(every and state.step % every == 0 and not last)
        if last or look or save:
            self._check_outputs()
        if attack is not None and look:
            fgsm, pgd, turned = watch.look(state.model, *self.validation, attack, self._prepare)
            event = {"event": "watch", "step": state.step, "fgsm": fgsm.value, "pgd": pgd.value}
            event["misalignment"] = turned.value if turned.n else None  # of gradients that are 0
            self.hooks.event(event)
            if watch.catastrophic(fgsm, pgd) and state.overfitted is None:
                state.overfitted = state.step
                self.hooks.event({**event, "event": "catastrophic_overfitting"})
        if save:
            self._checkpoint()
        if self.stopping:
            raise KeyboardInterrupt

    def _check_outputs(self) -> None:
        """Neither judge nor save weights that the last step ruined: its loss was still that of the ones before."""
        x, model = self._prepare(self.validation[0][:64]), self.state.model
        with as_found(model, "eval", x.device), torch.no_grad():
            finite = bool(model(x).isfinite().all())
        if not finite:
            raise _diverged(f"finite outputs, got NaN or infinity after step {self.state.step}")

    def _validate(self, seconds: float) -> None:
        """Clean and robust accuracy of the epoch; keeps the weights of the best."""
        state = self.state
        self.process.average_buffers(state.model)
        if state.ema is not None:
            self.process.average_buffers(state.ema.module)
        right, survived = self._outcomes()
        clean, robust = self._total(right), None if survived is None else self._total(survived)
        row = {
            "event": "epoch",
            "epoch": state.epoch,
            "step": state.step,
            "train_loss": state.sums["loss"] / max(state.sums["examples"], 1),
            "clean": clean.value,
            "robust": None if robust is None else robust.value,
            "validation_examples": clean.n,
            "seconds": seconds,
        }
        if survived is not None:
            row |= self._by_class(right, survived)
        state.history.append(row)
        state.sums = {"loss": 0.0, "examples": 0.0}
        value = self._selected(clean, robust).value
        if not state.best or value > state.best["value"]:
            weights = {k: v.detach().clone() for k, v in state.weights.state_dict().items()}
            state.best = {"epoch": state.epoch, "value": value, "weights": weights}
        self.hooks.event(row)

    def _outcomes(self) -> tuple[Tensor, Tensor | None]:
        """Which of this process's validation examples are right, clean and under the monitor."""
        x, y = (t[self._part] for t in self.validation)
        clean = outcomes(self.state.weights, x, y, prepare=self._prepare).correct
        if self.monitor is None:
            return clean, None
        return clean, outcomes(self.state.weights, x, y, self.monitor, prepare=self._prepare, among=clean).correct

    def _by_class(self, clean: Tensor, robust: Tensor) -> Event:
        """Per class of the validation set: examples, right, right under attack; and the worst one (LECTURE row C15)."""
        y = self.validation[1]
        low, classes = int(y.min()), int(y.max()) + 1
        if low < 0:  # -1/+1 labels: one output, two classes that nobody numbers
            return {}
        each = PerClass.of(y[self._part], clean, robust, classes)
        mine = torch.tensor([[s.n, s.hits, r.hits] for s, r in zip(each.clean, each.robust, strict=True)])
        counts = self.process.sum(mine.to(y.device)).tolist()
        shares = [r / n for n, _, r in counts if n]
        return {
            "classes": counts,
            "worst_class": min(shares),
            "worst_class_clean": min(c / n for n, c, _ in counts if n),
        }

    def _selected(self, clean: Share, robust: Share | None) -> Share:
        """The accuracy that decides which epoch is best."""
        select = self.trainer.select
        by_robust = select == "robust" or (select == "auto" and inner_attack(self.objective) is not None)
        return robust if by_robust and robust is not None else clean

    def _total(self, correct: Tensor) -> Share:
        device = self.validation[1].device
        hits, n = self.process.sum(torch.tensor([int(correct.sum()), len(correct)], device=device)).tolist()
        return Share(hits, n)


def _diverged(what: str) -> DivergenceError:
    return DivergenceError(f"training: expected {what}; lower the learning rate, or clip gradients with trainer.clip=1")


def _mixed(*numbers: int) -> int:
    """A seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


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
