"""Whatever holds examples, as chunks of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.evaluation.fingerprint import examples_hash

#: A pair (x, y) of tensors, or an iterable of such pairs: a DataLoader.
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


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        raise InputError(
            f"data: expected (x, y), or batches of (x, y), got {type(batch).__name__}; drop what else the loader gives"
        )
    x, y = (torch.as_tensor(t) for t in batch)
    if len(x) != len(y) or y.ndim != 1:
        raise InputError(f"data: expected as many labels as inputs, got x {tuple(x.shape)} and y {tuple(y.shape)}")
    return x, y.long()


def _batches(data: Data) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor):
        yield _pair(data)
        return
    if isinstance(data, Tensor) or not hasattr(data, "__iter__"):
        raise InputError(f"data: expected (x, y) tensors or an iterable of them, got {type(data).__name__}")
    for batch in data:
        yield _pair(batch)


def chunks(
    data: Data, size: int, device: torch.device, shard: tuple[int, int] = (0, 1), *, digests: bool = False
) -> Iterator[Chunk]:
    """The examples, `size` at a time, on a device; uint8 images as floats in [0, 1].

    Args:
        data: see `Data`. Never held whole, unless it is given whole.
        size: examples per chunk.
        device: where they go.
        shard: (rank, world): only the examples whose number is rank modulo world.
        digests: hash each chunk.

    Raises:
        InputError: something else than pairs, or no example at all.
    """
    rank, world = shard
    held: list[tuple[Tensor, Tensor]] = []
    count = start = number = 0

    def cut(n: int) -> Chunk:
        nonlocal held, count, start, number
        x, y = (torch.cat([pair[i] for pair in held]) if len(held) > 1 else held[0][i] for i in (0, 1))
        held, count = ([(x[n:], y[n:])] if len(x) > n else []), len(x) - n if len(x) > n else 0
        x, y = x[:n], y[:n]
        if x.dtype == torch.uint8:
            x = x.to(torch.float32) / 255
        digest = examples_hash(x, y) if digests else ""
        mine = torch.arange(start, start + len(x))
        kept = mine % world == rank
        chunk = Chunk(number, mine[kept], x[kept].to(device), y[kept].to(device), digest)
        start, number = start + len(x), number + 1
        return chunk

    for x, y in _batches(data):
        held.append((x, y))
        count += len(x)
        while count >= size:
            yield cut(size)
    if count:
        yield cut(count)
    if not start:
        raise InputError("data: expected at least one example, got none; check the loader")
