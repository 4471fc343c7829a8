"""What one step of a method costs in passes of its model, counted in floating-point operations."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from danskin.data import to_float
from danskin.recipes.rows import Plan
from danskin.run.config import TrainConfig
from danskin.run.runtime import Runtime
from danskin.run.steps import stepper
from danskin.run.train import Split, load_split, new_model
from danskin.training.sharpness import WithAdversary

_ROWS = 8
_STEPS = 5  # of optimisers that take a second gradient in some of them only


class _Operations(TorchDispatchMode):
    """Counts operations; torch's own counter cannot see gradients to the input of a module."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def forward_equivalents(config: TrainConfig, split: Split) -> dict[str, float]:
    """Per method: operations of one optimiser step over those of one forward pass of the batch.

    Matrix products and convolutions are counted, forward and backward; a plain training step costs about 3. Counted on
    a few examples from initial weights, where a term that switches itself on (ELLE-A) is off; the mean of five steps
    where an optimiser takes one gradient or two.
    """
    x, y = split.train[0][:_ROWS], split.train[1][:_ROWS]
    inputs, out = to_float(x), {}
    model = new_model(config, split.data, x.device)
    with _Operations() as counter, torch.no_grad():
        model(inputs)
    forward = counter.total
    for label in config.objectives:
        several = isinstance(config.trainer_of(label).optimizer, WithAdversary)
        steps = _STEPS if several else 1
        step = stepper(config, label, copy.deepcopy(model).train(), x, y, steps)
        with _Operations() as counter:
            for i in range(steps):
                step(i)
        out[label] = counter.total / forward / steps
    return out


def costs(plan: Plan) -> dict[str, dict[str, float]]:
    """Forward-equivalents by case and method."""
    out: dict[str, dict[str, float]] = {}
    for case, config in plan.cases.items():
        runtime = Runtime.start(config.device, config.threads)
        out[case] = forward_equivalents(config, load_split(config.data, config.seed, runtime.device))
    return out


def estimate(plan: Plan, costs: dict[str, dict[str, float]], jobs: int) -> str:
    """The work of a plan in words: steps, passes, and hours where a step can be timed here."""
    from danskin.run.plan import seconds_per_step

    lines, total = [], 0.0
    for case, config in plan.cases.items():
        runtime = Runtime.start(config.device, config.threads)
        split = load_split(config.data, config.seed, runtime.device)
        for label in config.objectives:
            trainer = config.trainer_of(label)
            batch = min(trainer.batch_size, len(split.train[1]))
            steps = trainer.epochs * (len(split.train[1]) // batch)
            line = f"{case} {label}: {steps} steps of {batch}, {costs[case][label]:.1f} forward-equivalents each"
            if plan.scale != "full":
                seconds = seconds_per_step(config, label, split, batch)
                total += seconds * steps
                line += f", {seconds:.3f} s each on {runtime.device}"
            lines.append(line.strip())
    runs = f"{plan.seeds} seeds"
    if plan.scale == "full":
        lines.append(f"{runs}; not timed here: this scale is meant for one GPU")
    else:
        rounds = -(-plan.seeds * len(plan.cases) // jobs) / len(plan.cases)
        lines.append(
            f"{runs}, {jobs} at a time: about {total * rounds / 60:.1f} min of training, evaluation not counted"
        )
    return "\n".join(lines)


def describe(plan: Plan) -> dict[str, Any]:
    """A plan as plain data, for `--dry-run`."""
    return {"title": plan.title, "says": plan.says, "status": plan.status or None} | plan.to_plain()
