"""Learning rates as pure functions of the share of training done, in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass

from danskin.errors import InputError


@dataclass(frozen=True)
class Constant:
    """The learning rate never changes."""

    def __call__(self, progress: float) -> float:
        """The factor on the learning rate."""
        return 1.0


@dataclass(frozen=True)
class OneCycle:
    """Linear from `start` up to 1 at `peak`, then linear down to `end` ("cyclic" of fast adversarial training).

    Args:
        peak: where the top is, as a share of training, in (0, 1).
        start: first factor.
        end: last factor.
        momenta: (at the ends, at the peak) of the momentum of SGD, linear in between; None leaves it alone. (0.9, 0.8)
            is what torch's CyclicLR does by default and with it the released code of fast adversarial training.
    """

    peak: float = 0.4
    start: float = 0.0
    end: float = 0.0
    momenta: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.peak < 1:
            raise InputError(f"OneCycle.peak: expected a share of training between 0 and 1, got {self.peak}; try 0.4")

    def __call__(self, progress: float) -> float:
        """The factor on the learning rate."""
        if progress < self.peak:
            return self.start + (1 - self.start) * progress / self.peak
        return 1 + (self.end - 1) * (progress - self.peak) / (1 - self.peak)

    def momentum(self, progress: float) -> float | None:
        """The momentum of SGD, or None for the optimiser's own."""
        if self.momenta is None:
            return None
        ends, top = self.momenta
        near = progress / self.peak if progress < self.peak else (1 - progress) / (1 - self.peak)
        return ends + (top - ends) * near


@dataclass(frozen=True)
class Piecewise:
    """Times `factor` at each milestone (Rice et al.: a tenth at 50 % and 75 % of training).

    Args:
        milestones: shares of training, increasing, in (0, 1).
        factor: what the rate is multiplied with.
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m < 1 for m in self.milestones):
            raise InputError(
                f"Piecewise.milestones: expected increasing shares of training between 0 and 1, got {self.milestones}; "
                "try (0.5, 0.75)"
            )

    def __call__(self, progress: float) -> float:
        """The factor on the learning rate."""
        return self.factor ** sum(progress >= m for m in self.milestones)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 down to `end`, after a linear warm-up.

    Args:
        warmup: share of training spent warming up, in [0, 1).
        end: last factor.
    """

    warmup: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise InputError(f"Cosine.warmup: expected a share of training in [0, 1), got {self.warmup}; try 0.05")

    def __call__(self, progress: float) -> float:
        """The factor on the learning rate."""
        if progress < self.warmup:
            return progress / self.warmup
        t = (progress - self.warmup) / (1 - self.warmup)
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * t))


Schedule = Constant | OneCycle | Piecewise | Cosine
SCHEDULES: dict[str, type] = {
    "constant": Constant,
    "one_cycle": OneCycle,
    "piecewise": Piecewise,
    "cosine": Cosine,
}
