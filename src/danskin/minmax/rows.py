"""Some rows of a batch: whatever holds a number per row, or others that do, is cut along."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def numbers(value: float | Tensor, like: Tensor) -> Tensor:
    """(rows,) one number per row in the dtype and on the device of `like`, not by way of float32."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1).expand(len(like))


def rows_of(thing: T, index: Tensor) -> T:
    """What `thing` (a maximiser, an attack, a set) is for the rows `index` of its batch.

    It is asked itself where it has a method ``rows(index)``. Another dataclass is cut field by field: a tensor of one
    dimension holds a number per row (a single one is for all), and what the field holds, or a tuple of it, is cut
    too. Anything else is the same for all rows.

    Args:
        thing: with a number per row of the whole batch, or without.
        index: (rows,) int64 places in the batch; may repeat.

    >>> from danskin.minmax import Ascent, Restarts
    >>> import torch
    >>> rows_of(Restarts(Ascent(1, torch.tensor([0.1, 0.2, 0.3])), 2), torch.tensor([2, 0])).maximizer.step
    tensor([0.3000, 0.1000])
    """
    own = getattr(thing, "rows", None)
    if callable(own):
        return own(index)
    return cut(thing, index)


def cut(thing: T, index: Tensor) -> T:
    """The rule of `rows_of` for a dataclass, whether or not it has a method of its own."""
    if not is_dataclass(thing) or isinstance(thing, type):
        return thing
    changed = {}
    for each in fields(thing):
        value = getattr(thing, each.name)
        other = _part(value, index)
        if other is not value and each.init:
            changed[each.name] = other
    return replace(thing, **changed) if changed else thing


def _part(value: Any, index: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[index.to(value.device)] if value.ndim == 1 and len(value) > 1 else value
    if isinstance(value, tuple):
        parts = tuple(v if isinstance(v, Tensor) else rows_of(v, index) for v in value)
        return parts if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    return rows_of(value, index)


class PerRow:
    """A frozen dataclass that can be asked for some rows of a batch by the rule of `rows_of`."""

    def rows(self: T, index: Tensor) -> T:
        """The same for some rows: numbers per row are cut, and so are those of what it holds."""
        return cut(self, index)
