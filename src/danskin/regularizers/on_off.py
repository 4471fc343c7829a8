"""A weight that is switched on when the term jumps, and decays meanwhile: the schedule of ELLE-A."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError


@dataclass(frozen=True)
class OnOff:
    """lambda_{t+1} = lambda_max if v_t > mean + deviations * std of v_1 ... v_{t-1}, else decay * lambda_t.

    v_t is the mean of the term over the batch of step t, lambda_1 = 0, and the first two values never switch it on.
    The step t itself is weighted by lambda_t, known before it: while that is 0, no gradient of the term is needed. A
    value that is not finite stays out of the statistics; an infinite one switches the weight on.

    Args:
        decay: in [0, 1).
        deviations: standard deviations (of the population) above the mean that make a jump, >= 0.
        off_below: below this share of lambda_max the weight becomes 0; released code lets it decay forever.

    Reference: Abad Rocamora et al., "Efficient local linearity regularization", ICLR 2024 (ELLE-A; the released code
    runs LLR and CURE with it too). Lecture: row C12.

    >>> schedule, memory = OnOff(), OnOff().begin()
    >>> for value in (1.0, 1.2, 1.1, 9.0):
    ...     schedule.update(memory, value)
    >>> schedule.weight(memory, 4000)
    4000.0
    """

    decay: float = 0.99
    deviations: float = 2.0
    off_below: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise InputError(f"OnOff.decay: expected a number in [0, 1), got {self.decay}; try 0.99")
        if not (self.deviations >= 0 and math.isfinite(self.deviations)):
            raise InputError(f"OnOff.deviations: expected a finite number >= 0, got {self.deviations}; try 2")
        if not 0 <= self.off_below < 1:
            raise InputError(f"OnOff.off_below: expected a share in [0, 1), got {self.off_below}; try 1e-3")

    def begin(self) -> dict[str, Tensor]:
        """The weight as a share of lambda_max, and count, mean and sum of squared deviations of past values."""
        return {name: torch.zeros((), dtype=torch.float64) for name in ("switch", "count", "mean", "m2")}

    @staticmethod
    def weight(memory: dict[str, Tensor], most: float) -> float:
        """The weight of the coming step, with lambda_max = `most`."""
        return most * float(memory["switch"])

    def update(self, memory: dict[str, Tensor], value: float) -> None:
        """Decide the weight of the next step by the value of this one, and count it (Welford's recursion)."""
        switch, count, mean, m2 = (float(memory[name]) for name in ("switch", "count", "mean", "m2"))
        jump = count > 2 and value > mean + self.deviations * math.sqrt(m2 / count)
        switch = 1.0 if jump else self.decay * switch
        if math.isfinite(value):
            count, shift = count + 1, value - mean
            mean += shift / count
            m2 += shift * (value - mean)
        state = {"switch": 0.0 if switch < self.off_below else switch, "count": count, "mean": mean, "m2": m2}
        for name, number in state.items():
            memory[name].fill_(number)
