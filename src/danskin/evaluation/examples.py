"""Whatever holds examples, as chunks of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.evaluation.fingerprint import examples_hash
from danskin.inputs import Box, class_numbers, in_box

#: A pair (x, y) of tensors or arrays, or an iterable of such pairs: a DataLoader.
Data = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Chunk:
    """Examples that are worked on together.

    Args:
        number: 0, 1, ...
        index: (n,) int64, their numbers in the data.
        x: (n, ...) inputs, floating point.
        y: (n,) int64 labels.
        digest: SHA-256 of x and y, before anything was left out; empty where nobody asked for it.
    """

    number: int
    index: Tensor
    x: Tensor
    y: Tensor
    digest: str


def _inputs(x: Any) -> Tensor:
    """Inputs as a tensor; numpy's float64 becomes torch's default dtype, as torch makes it of Python numbers."""
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise InputError(f"data: expected inputs as a tensor or an array of numbers, got {array.dtype}; convert them")
    found = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    return found.to(torch.get_default_dtype()) if found.dtype == torch.float64 else found


def pair(batch: Any) -> tuple[Tensor, Tensor]:
    """(x, y) of one batch, checked: x as it came, y int64 (n,).

    Raises:
        InputError: something else than inputs and labels, a single sample, or labels that are none (`class_numbers`).
    """
    if isinstance(batch, Mapping):
        keys = ", ".join(map(str, batch))
        raise InputError(
            f"data: expected batches of (x, y), got a mapping with {keys}; pass ((b['x'], b['y']) for b in loader), "
            "by the keys of inputs and labels"
        )
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        more = isinstance(batch, tuple | list) and len(batch) > 2
        raise InputError(
            f"data: expected (x, y), or batches of (x, y), got {type(batch).__name__}{size}; "
            + ("drop what else the loader gives" if more else "give inputs and labels")
        )
    x = _inputs(batch[0])
    if np.ndim(batch[1]) == 0 and not isinstance(batch[1], str):
        raise InputError(
            f"data: expected batches of (x, y), got a single sample, x {tuple(x.shape)} and y {batch[1]}; wrap the "
            "samples in torch.utils.data.DataLoader(data, batch_size=256)"
        )
    if x.ndim < 2:
        raise InputError(
            f"data: expected inputs (batch, ...), got shape {tuple(x.shape)}; add a dimension with x[None]"
        )
    if np.ndim(batch[1]) == 1 and len(batch[1]) != len(x):
        raise InputError(f"data: expected as many labels as inputs, got {len(batch[1])} and {len(x)}; check the loader")
    return x, class_numbers(batch[1], len(x), cast=True)


def batches(data: Data) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs that `data` holds (`pair`).

    Raises:
        InputError: nothing that holds pairs.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor | np.ndarray):
        yield pair(data)
        return
    if isinstance(data, Tensor | np.ndarray):
        raise InputError("data: expected inputs and labels, got inputs alone; pass (x, y)")
    if hasattr(data, "x_test") and hasattr(data, "y_test"):
        raise InputError("data: expected (x, y), got a whole data set; pass (data.x_test, data.y_test)")
    if not hasattr(data, "__iter__"):
        cure = "wrap it in torch.utils.data.DataLoader(data, batch_size=256)" if hasattr(data, "__getitem__") else ""
        got = type(data).__name__
        raise InputError(f"data: expected (x, y) or an iterable of them, got {got}; {cure or 'pass a DataLoader'}")
    if isinstance(data, Mapping | str):
        raise InputError(f"data: expected (x, y) or an iterable of them, got {type(data).__name__}; pass (x, y)")
    for batch in data:
        yield pair(batch)


def chunks(
    data: Data,
    size: int,
    device: torch.device,
    shard: tuple[int, int] = (0, 1),
    *,
    box: Box = (0, 1),
    digests: bool = False,
) -> Iterator[Chunk]:
    """The examples, `size` at a time, on a device; uint8 images as floats in the units of the box.

    Args:
        data: see `Data`. Never held whole, unless it is given whole.
        size: examples per chunk.
        device: where they go.
        shard: (rank, world): only the examples whose number is rank modulo world.
        box: what uint8 images are mapped to (`in_box`).
        digests: hash each chunk.

    Raises:
        InputError: something else than pairs, labels that are none, or no example at all.
    """
    rank, world = shard
    held: list[tuple[Tensor, Tensor]] = []
    count = start = number = 0

    def cut(n: int) -> Chunk:
        nonlocal held, count, start, number
        x, y = (torch.cat([pair[i] for pair in held]) if len(held) > 1 else held[0][i] for i in (0, 1))
        held, count = ([(x[n:], y[n:])] if len(x) > n else []), len(x) - n if len(x) > n else 0
        x, y = in_box(x[:n], box), y[:n]
        digest = examples_hash(x, y) if digests else ""
        mine = torch.arange(start, start + len(x))
        kept = mine % world == rank
        chunk = Chunk(number, mine[kept], x[kept].to(device), y[kept].to(device), digest)
        start, number = start + len(x), number + 1
        return chunk

    for x, y in batches(data):
        if held and x.shape[1:] != held[0][0].shape[1:]:
            raise InputError(
                f"data: expected inputs of one shape, got {tuple(x.shape[1:])} after {tuple(held[0][0].shape[1:])}; "
                "bring all to one size"
            )
        held.append((x, y))
        count += len(x)
        while count >= size:
            yield cut(size)
    if count:
        yield cut(count)
    if not start:
        raise InputError("data: expected at least one example, got none; check the loader")
