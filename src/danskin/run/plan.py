"""What a run will cost, before it is started."""

from __future__ import annotations

import time

import torch

from danskin.data import to_float
from danskin.run.config import TrainConfig
from danskin.run.runtime import Runtime
from danskin.run.train import Split, load_split, new_model
from danskin.training import inner_attack


def plan(config: TrainConfig) -> str:
    """Steps, passes per example and a time estimate from a few measured steps of training."""
    runtime = Runtime.start(config.device, config.threads)
    split = load_split(config.data, config.seed, runtime.device)
    n, lines, total = len(split.train[1]), [], 0.0
    batch = min(config.trainer.batch_size, n)
    steps = config.trainer.epochs * (n // batch)
    for label in config.objectives:
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
    model, objective, times = new_model(config, split.data, x.device), config.objective(label), []
    memory, places = objective.begin(), torch.arange(batch, device=x.device)
    for i in range(4):
        started = time.perf_counter()
        objective(model, to_float(x), y, seed=i, memory=memory, index=places).backward()
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[1]
