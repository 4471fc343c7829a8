"""Numbers about finished weights that a column of a row can hold beside accuracies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from danskin.data import to_float
from danskin.metrics import Average, gradient_misalignment, hessian_eigenvalues, hessian_trace, m_sharpness
from danskin.run.config import TrainConfig

#: (value, or None where there is none; how many examples or draws it is of).
Found = tuple[float | None, int]
Measure = Callable[[nn.Module, Tensor, Tensor, TrainConfig], Found]


def misalignment(model: nn.Module, x: Tensor, y: Tensor, config: TrainConfig) -> Found:
    """Of input gradients, in the training ball."""
    parts = [
        gradient_misalignment(model, to_float(a), b, config.attack.ball, seed=config.seed)
        for a, b in zip(x.split(256), y.split(256), strict=True)
    ]
    found = Average.of(torch.cat(parts))
    return (found.value if found.n else None), found.n


def eigenvalue(model: nn.Module, x: Tensor, y: Tensor, config: TrainConfig) -> Found:
    """The largest of the Hessian of the mean loss in all weights."""
    return float(hessian_eigenvalues(model, to_float(x), y, 1, seed=config.seed).values[0]), len(x)


def trace(model: nn.Module, x: Tensor, y: Tensor, config: TrainConfig) -> Found:
    """Of the same Hessian, an estimate of 50 draws."""
    return float(hessian_trace(model, to_float(x), y, 50, seed=config.seed).value), len(x)


def sharpness(model: nn.Module, x: Tensor, y: Tensor, config: TrainConfig) -> Found:
    """m-sharpness at radius 0.05, groups of 64, one step: a lower bound."""
    return float(m_sharpness(model, to_float(x), y, 0.05, 64, seed=config.seed).value), len(x)


#: By the name in recipes; those of weights are taken on training examples, whose loss was minimised.
OF_INPUTS: dict[str, Measure] = {"misalignment": misalignment}
OF_WEIGHTS: dict[str, Measure] = {"eigenvalue": eigenvalue, "trace": trace, "m-sharpness": sharpness}
