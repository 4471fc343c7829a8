"""Everything a training run needs to go on exactly where it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from danskin.errors import CheckpointError


@dataclass
class TrainingState:
    """Model, optimiser, place in the data and history of a run.

    Args:
        model: the raw module.
        optimizer: its optimiser.
        ema: the averaged weights, or None.
        epoch: epochs finished.
        batch: batches finished in the current epoch.
        step: optimiser steps made.
        history: one dict of numbers per finished epoch.
        memory: what the objective keeps from step to step (`Objective.begin`), made in the first call of `fit`; of
            `Objective.places` this process's part, except in a checkpoint and right after one is loaded.
        of_all: whether it is right after.
        sums: running sums of the current epoch (loss, examples).
        best: {"epoch", "value", "weights"} of the best epoch so far; empty before the first.
        overfitted: the first step at which catastrophic overfitting was seen, or None.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None = None
    epoch: int = 0
    batch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[str, Tensor] = field(default_factory=dict)
    of_all: bool = False
    sums: dict[str, float] = field(default_factory=lambda: {"loss": 0.0, "examples": 0.0})
    best: dict[str, Any] = field(default_factory=dict)
    overfitted: int | None = None

    @property
    def weights(self) -> nn.Module:
        """The module to evaluate: averaged where there is an average."""
        return self.model if self.ema is None else self.ema.module

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts only: loads with weights_only=True."""
        device = _device(self.model)
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "history": self.history,
            "sums": self.sums,
            "memory": {name: kept.detach() for name, kept in self.memory.items()},
            "memory_gradients": {name: kept.grad for name, kept in self.memory.items() if kept.is_leaf},
            "best": self.best,
            "overfitted": self.overfitted,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go back to a saved state, random numbers included.

        Raises:
            CheckpointError: it belongs to another architecture or optimiser.
        """
        if (self.ema is None) != (saved.get("ema") is None):
            raise CheckpointError(
                "checkpoint: expected averaged weights in both or neither of run and checkpoint, got one; "
                "set trainer.ema as it was"
            )
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.ema is not None:
                self.ema.load_state_dict(saved["ema"])
            place = {k: saved[k] for k in ("epoch", "batch", "step", "history", "sums", "best", "overfitted")}
            random, random_cuda = saved["random"], saved["random_cuda"]
            self.memory = {name: kept.clone().to(_device(self.model)) for name, kept in saved["memory"].items()}
            for name, gradient in saved["memory_gradients"].items():
                self.memory[name].grad = None if gradient is None else gradient.to(self.memory[name])
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()
            detail = " ".join(line.strip() for line in first[:2])
            raise CheckpointError(
                f"checkpoint: expected one of the same architecture and optimiser, got another ({detail}); "
                "resume with the config it was made with"
            ) from error
        self.of_all = True
        for name, value in place.items():
            setattr(self, name, value)
        torch.set_rng_state(random.cpu())
        if random_cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(random_cuda.cpu(), _device(self.model))

    def use_best(self) -> None:
        """Put the best epoch's weights into the evaluated module."""
        if self.best:
            self.weights.load_state_dict(self.best["weights"])


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
