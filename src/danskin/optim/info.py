"""What one step of an optimiser came to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepInfo:
    """What one step came to.

    Args:
        loss: the first pass's loss, a detached tensor (`float` waits for the device).
        gradients: gradient computations of the step, in passes of a whole batch (ESAM's second counts its share).
        depth: how many of them had to wait for one another.
        seconds: wall-clock time of the step on the host.
        norm: l2 norm of the first gradient.
        skipped: whether the step was left out since a gradient or the loss was not finite; the weights are as before.
        forwards: forward passes without a gradient, of a whole batch each.
    """

    loss: Tensor
    gradients: float
    depth: float
    seconds: float
    norm: float
    skipped: bool = False
    forwards: float = 0.0
