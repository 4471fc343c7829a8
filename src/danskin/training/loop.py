"""The loop of `Trainer.fit`.

All randomness is a function of (seed, epoch, step, example), apart from dropout, whose generator state is
part of `TrainingState`; so a resumed run equals an uninterrupted one bit for bit on the CPU.
"""

from __future__ import annotations

import math
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from danskin.attacks import Attack
from danskin.attacks.guard import as_found
from danskin.callables import answerable
from danskin.data import batch_indices, crop_flip, draw_crop_flip, to_float
from danskin.errors import DanskinWarning, DivergenceError, InputError
from danskin.optim import SAMPa
from danskin.training.objective import Objective, Step, inner_attack
from danskin.training.passes import Passes, check_goes_with, optimised
from danskin.training.process import Process, part_of, together
from danskin.training.sharpness import WithAdversary
from danskin.training.state import TrainingState
from danskin.training.validation import Validation

if TYPE_CHECKING:
    from danskin.training.trainer import Hooks, Trainer


@dataclass
class Loop:
    """One call of `Trainer.fit`: steps, looks for overfitting, checkpoints, and what each epoch came to."""

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
        self.paired = isinstance(self.state.optimizer, SAMPa) and world == 2  # both have the whole batch
        self.outer = self.state.model if self.paired else self.process.wrap(self.state.model)
        self.judge = Validation(self.objective, self.validation, self.monitor, self.trainer.select, self.process)
        self.steps = self.trainer.epochs * (n // self.batch) * self.objective.replays
        if self.objective.horizon >= self.steps:
            warnings.warn(
                f"fit: expected more than the {self.objective.horizon} steps that the objective takes to warm up, got "
                f"{self.steps}; train longer, or shorten the warm-up",
                DanskinWarning,
                stacklevel=3,
            )
        settings = self.trainer.optimizer
        if isinstance(settings, WithAdversary):
            check_goes_with(settings, self.state.optimizer, self.objective, world, self.trainer.steps_per_batch)
            settings.prepare(
                self.state.optimizer, steps=self.steps, examples=n, clip=self.trainer.clip,
                model=self.outer if world > 1 else None,
            )  # fmt: skip
        if not self.state.memory:
            self.state.memory = self.objective.begin()
        for name, kept in self.state.memory.items():
            kept = kept if kept.device == self.train[1].device else kept.to(self.train[1].device)
            self.state.memory[name] = self._own(kept) if self.state.of_all and name in self.objective.places else kept
        self.state.of_all = False

    def epoch(self) -> None:
        """Train one epoch, or what is left of it, then validate."""
        state, started, busy = self.state, time.perf_counter(), time.process_time()
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
        self._validate(time.perf_counter() - started, time.process_time() - busy)
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
        low = trainer.precision == "bfloat16"

        def around() -> AbstractContextManager[Any]:
            return torch.autocast(x.device.type, torch.bfloat16) if low else nullcontext()

        seed, index, settings = _mixed(self.seed, state.step), self._mine(rows), trainer.optimizer
        state.optimizer.zero_grad(set_to_none=True)
        with answerable(state.model):
            if isinstance(settings, WithAdversary):
                step = Step(seed, state.memory, index, together(self.outer))
                passes = Passes(self.objective, self.outer, settings, around, step)
                loss = optimised(state.optimizer, passes, x, y, index)
            else:
                with around():
                    loss = self.objective(self.outer, x, y, seed=seed, memory=state.memory, index=index)
                loss.backward()
        if trainer.clean_pass:
            with torch.no_grad():
                state.model(x)
        # one sum for loss and stop: all processes then take every branch alike
        total, stops = self.process.sum(torch.stack([loss.detach(), loss.new_tensor(self.hooks.stop())])).tolist()
        value, self.stopping = total / self.process.world, stops > 0
        if not math.isfinite(value):
            raise _diverged(f"a finite loss, got {value} in step {state.step + 1}")
        if not isinstance(settings, WithAdversary):  # which has stepped already, and clipped
            if trainer.clip is not None:
                nn.utils.clip_grad_norm_(state.model.parameters(), trainer.clip)
            for _ in range(trainer.steps_per_batch):
                state.optimizer.step()
        if state.ema is not None:
            state.ema.update_parameters(state.model)
        state.sums["loss"] += value * len(rows)
        if isinstance(settings, WithAdversary):
            for name in ("gradients", "depth", "skipped"):
                state.sums[name] = state.sums.get(name, 0.0) + getattr(state.optimizer.last, name)  # type: ignore[attr-defined]
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
        return slice(None) if self.paired else part_of(self.process)

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

    def _validate(self, seconds: float, cpu_seconds: float) -> None:
        """Accuracies of the epoch; keeps the weights of the best."""
        state = self.state
        self.process.average_buffers(state.model)
        if state.ema is not None:
            self.process.average_buffers(state.ema.module)
        found, value = self.judge(state.weights, self._prepare)
        row = {
            "event": "epoch",
            "epoch": state.epoch,
            "step": state.step,
            "train_loss": state.sums["loss"] / max(state.sums["examples"], 1),
            "clean": found.pop("clean"),
            "robust": found.pop("robust"),
            "validation_examples": found.pop("validation_examples"),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
        } | found
        row |= {name: state.sums[name] for name in ("gradients", "depth", "skipped") if name in state.sums}
        state.history.append(row)
        state.sums = {"loss": 0.0, "examples": 0.0}
        if not state.best or value > state.best["value"]:
            weights = {k: v.detach().clone() for k, v in state.weights.state_dict().items()}
            state.best = {"epoch": state.epoch, "value": value, "weights": weights}
        self.hooks.event(row)


def _diverged(what: str) -> DivergenceError:
    return DivergenceError(f"training: expected {what}; lower the learning rate, or clip gradients with trainer.clip=1")


def _mixed(*numbers: int) -> int:
    """A seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
