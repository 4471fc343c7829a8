"""Single steps of a configured training, to be timed or counted: on a model that is thrown away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from danskin.data import to_float
from danskin.run.config import TrainConfig
from danskin.training import Step
from danskin.training.passes import Passes, check_goes_with, optimised
from danskin.training.sharpness import WithAdversary


def stepper(config: TrainConfig, label: str, model: nn.Module, x: Tensor, y: Tensor, of: int) -> Callable[[int], None]:
    """A function that makes step i of `of` on these examples; a plain optimiser's own step is left out.

    Args:
        config: of the run.
        label: which objective and trainer of it.
        model: is changed.
        x: (batch, ...) inputs, bytes or floats.
        y: (batch,) labels.
        of: how many steps there will be.
    """
    objective, trainer = config.objective(label), config.trainer_of(label)
    inputs, places, memory = to_float(x), torch.arange(len(y), device=y.device), objective.begin()
    settings = trainer.optimizer
    if not isinstance(settings, WithAdversary):
        return lambda i: objective(model, inputs, y, seed=i, memory=memory, index=places).backward()
    optimizer = settings(model.parameters())
    check_goes_with(settings, optimizer, objective, 1, trainer.steps_per_batch)
    settings.prepare(optimizer, steps=of, examples=len(y), clip=trainer.clip, model=None)

    def step(i: int) -> None:
        passes = Passes(objective, model, settings, nullcontext, Step(i, memory, places))
        optimised(optimizer, passes, inputs, y, places)

    return step
