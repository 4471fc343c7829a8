"""Accuracy class by class: who pays for the average. LECTURE row C15."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.inputs import class_numbers
from danskin.metrics.share import Share


@dataclass(frozen=True)
class PerClass:
    """Clean and robust accuracy of each class. Those of disjoint examples add up.

    Args:
        clean: a `Share` per class.
        robust: a `Share` per class.
    """

    clean: tuple[Share, ...]
    robust: tuple[Share, ...]

    @staticmethod
    def of(y: Tensor, clean: Tensor, robust: Tensor, classes: int | None = None) -> PerClass:
        """Count.

        Args:
            y: (n,) labels 0..C-1.
            clean: (n,) bool: right without attack.
            robust: (n,) bool: right without and under every attack.
            classes: C; default: the largest label + 1.

        Raises:
            InputError: shapes that differ, flags that are not bool, labels outside 0..C-1.
        """
        y = class_numbers(y, len(clean)) if len(y) == len(clean) else y
        if y.ndim != 1 or clean.shape != y.shape or robust.shape != y.shape:
            raise InputError(
                f"per class: expected y, clean and robust of one shape (n,), got {tuple(y.shape)}, "
                f"{tuple(clean.shape)} and {tuple(robust.shape)}; pass flags of the same examples"
            )
        if clean.dtype != torch.bool or robust.dtype != torch.bool:
            raise InputError(f"per class: expected bool flags, got {clean.dtype} and {robust.dtype}; compare first")
        low, high = (int(y.min()), int(y.max())) if len(y) else (0, -1)
        count = high + 1 if classes is None else classes
        if low < 0 or high >= count:
            raise InputError(f"y: expected classes 0 to {count - 1}, got values from {low} to {high}; check them")
        n, *hits = (
            torch.bincount(y[rows.to(y.device)], minlength=count).tolist()
            for rows in (torch.ones_like(clean), clean, robust)
        )
        shares = [tuple(Share(h, m) for h, m in zip(found, n, strict=True)) for found in hits]
        return PerClass(shares[0], shares[1])

    def __add__(self, other: PerClass) -> PerClass:
        if len(self.clean) != len(other.clean):
            raise InputError(
                f"per class: expected the same number of classes, got {len(self.clean)} and {len(other.clean)}; "
                "say how many there are with classes="
            )
        pairs = ((self.clean, other.clean), (self.robust, other.robust))
        return PerClass(*(tuple(a + b for a, b in zip(*pair, strict=True)) for pair in pairs))

    @property
    def known(self) -> tuple[int, ...]:
        """The classes that have examples."""
        return tuple(k for k, share in enumerate(self.robust) if share.n)

    @property
    def worst(self) -> int | None:
        """The class with the least robust accuracy (the first of equals); None without examples."""
        return min(self.known, key=lambda k: self.robust[k].value, default=None)

    @property
    def best(self) -> int | None:
        """The class with the most robust accuracy."""
        return max(self.known, key=lambda k: self.robust[k].value, default=None)

    @property
    def gap(self) -> float:
        """Robust accuracy of the best class minus that of the worst; NaN without examples."""
        if self.worst is None or self.best is None:
            return math.nan
        return self.robust[self.best].value - self.robust[self.worst].value

    @property
    def balanced(self) -> float:
        """The mean of the classes' robust accuracies, whatever their sizes; NaN without examples."""
        values = [self.robust[k].value for k in self.known]
        return sum(values) / len(values) if values else math.nan
