"""What a run will cost, before it is started."""

from __future__ import annotations

import time

from danskin.run.config import TrainConfig
from danskin.run.runtime import Runtime
from danskin.run.steps import stepper
from danskin.run.train import Split, load_split, new_model
from danskin.training import inner_attack


def plan(config: TrainConfig) -> str:
    """Steps, passes per example and a time estimate from a few measured steps of training."""
    runtime = Runtime.start(config.device, config.threads)
    split = load_split(config.data, config.seed, runtime.device)
    n, lines, total = len(split.train[1]), [], 0.0
    for label in config.objectives:
        trainer = config.trainer_of(label)
        batch = min(trainer.batch_size, n)
        steps = trainer.epochs * (n // batch)
        seconds = seconds_per_step(config, label, split, batch)
        total += seconds * steps
        attack = inner_attack(config.objective(label))
        inside = f"attack inside: {attack!r}" if attack else "no attack inside"
        lines.append(f"{label}: {steps} steps of {batch} examples, {seconds:.3f} s each; {inside}")
    lines.append(f"about {total:.0f} s of training on {runtime.device}, without validation and evaluation")
    return "\n".join(lines)


def seconds_per_step(config: TrainConfig, label: str, split: Split, batch: int) -> float:
    """The median of three steps after one to warm up, on a model that is thrown away."""
    x, y = (t[:batch] for t in split.train)
    step, times = stepper(config, label, new_model(config, split.data, x.device), x, y, 4), []
    for i in range(4):
        started = time.perf_counter()
        step(i)
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[1]
