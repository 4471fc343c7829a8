"""The box of valid data, (low, high): two numbers, or tensors with a bound for each channel or coordinate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError

#: (low, high), numbers or tensors; None where data have no bounds.
DataBox = tuple[Any, Any] | None


def box_for(box: DataBox, x: Tensor) -> tuple[Any, Any] | None:
    """The box as it stands beside x (batch, ...): numbers as they are, tensors in its dtype, where they broadcast.

    A tensor of one dimension has a bound for each entry of the first dimension of an example: for each channel of
    images (channels, height, width), for each feature of rows.

    Raises:
        InputError: a tensor that does not broadcast against an example.

    >>> low, high = box_for((torch.zeros(3), torch.ones(3)), torch.zeros(8, 3, 4, 4))
    >>> tuple(high.shape)
    (3, 1, 1)
    """
    if box is None:
        return None
    low, high = (_beside(bound, x) for bound in box)
    return low, high


def _beside(bound: Any, x: Tensor) -> Any:
    if not isinstance(bound, Tensor):
        return bound
    shape, example = list(bound.shape), x.shape[1:]
    if len(shape) == x.ndim and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 1 and x.ndim > 2:
        shape += [1] * (x.ndim - 2)
    if len(shape) not in (0, len(example)) or any(a not in (1, b) for a, b in zip(shape, example, strict=False)):
        raise InputError(
            f"box: expected numbers, a bound for each of {example[0]} channels, or tensors that broadcast against an "
            f"example of shape {tuple(example)}, got one of shape {tuple(bound.shape)}; reshape it"
        )
    return bound.detach().to(x.device, x.dtype).reshape(shape)


def box_width(box: DataBox, x: Tensor) -> Tensor | None:
    """(1, ...) float64, like an example: high - low; None without a box."""
    beside = box_for(box, x.new_empty(0, *x.shape[1:], dtype=torch.float64))
    if beside is None:
        return None
    low, high = (torch.as_tensor(bound, dtype=torch.float64, device=x.device) for bound in beside)
    return (high - low).expand(1, *x.shape[1:])


def same_box(a: DataBox, b: DataBox) -> bool:
    """Whether two boxes are the same."""
    if a is None or b is None:
        return a is b
    return all(
        bool(torch.equal(torch.as_tensor(p, dtype=torch.float64).cpu(), torch.as_tensor(q, dtype=torch.float64).cpu()))
        for p, q in zip(a, b, strict=True)
    )


def box_text(box: DataBox) -> str:
    """The box in full, as text: what a question is known by."""
    if box is None or not any(isinstance(bound, Tensor) for bound in box):
        return repr(box)
    return repr(tuple(bound.tolist() if isinstance(bound, Tensor) else bound for bound in box))


def box_to_list(box: DataBox) -> list[Any] | None:
    """The box as plain numbers and lists of them."""
    return None if box is None else [bound.tolist() if isinstance(bound, Tensor) else bound for bound in box]


def box_from_list(found: list[Any] | None) -> DataBox:
    """The box that `box_to_list` wrote; tensors in float64, which hold all that was written."""
    if not found:
        return None
    low, high = (torch.tensor(b, dtype=torch.float64) if isinstance(b, list) else b for b in found)
    return low, high


def mean_width(box: tuple[Any, Any]) -> float:
    """High - low; the mean where there are several."""
    low, high = box
    return float(torch.as_tensor(high - low).double().mean()) if isinstance(high - low, Tensor) else float(high - low)
