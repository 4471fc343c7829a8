"""A list of tensors seen as one long vector, such as all weights of a network; shards (DTensor) count whole."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_SMALL, _LARGE = 1e-16, 1e16  # lengths whose squares no type of float loses


def own(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What this process holds of each, in its own memory: all that is needed for what is done entry by entry.

    Some operations on lists know no DTensor, and the others are slow on them.
    """
    shard = _shard()
    return list(tensors) if shard is None else [t._local_tensor if isinstance(t, shard) else t for t in tensors]


@torch.no_grad()
def squares(tensors: Sequence[Tensor]) -> list[float]:
    r"""\|t\|_2^2 of each, summed up in float64. Under sharding the same on every process."""
    if not tensors:
        return []
    parts = own(tensors)
    return _of_all(_squares(parts, _lengths(parts)), tensors)


@torch.no_grad()
def norm(tensors: Sequence[Tensor]) -> float:
    """The l2 norm of all of them together; 0 of none. Under sharding the same on every process."""
    if not tensors:
        return 0.0
    parts = own(tensors)
    lengths = _lengths(parts)
    if _shard() is None and min(lengths) > _SMALL and max(lengths) < _LARGE:
        return math.hypot(*lengths)
    return math.sqrt(sum(_of_all(_squares(parts, lengths), tensors)))


def _lengths(parts: list[Tensor]) -> list[float]:
    return _together(torch._foreach_norm(parts, 2)).tolist()


def _squares(parts: list[Tensor], lengths: list[float]) -> list[float]:
    return [
        n * n if _SMALL < n < _LARGE else float(_wide(t).square().sum())  # squares may have left their range
        for n, t in zip(lengths, parts, strict=True)
    ]


@torch.no_grad()
def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The sum of <a_l, b_l>. Under sharding the same on every process."""
    if not a:
        return 0.0
    parts = [torch.dot(s.reshape(-1), t.reshape(-1)) for s, t in zip(own(a), own(b), strict=True)]
    return sum(_of_all(_together(parts).tolist(), a))


def _together(numbers: Sequence[Tensor]) -> Tensor:
    """Scalars of several devices as one tensor, so that one of them is waited for, once."""
    home = numbers[0].device
    return torch.stack([n if n.device == home else n.to(home) for n in numbers])


def _of_all(sums: list[float], like: Sequence[Tensor]) -> list[float]:
    """Sums over what this process holds to sums over whole tensors: one message for each way of sharding."""
    shard = _shard()
    if shard is None:
        return sums
    ways: dict[Any, list[int]] = {}
    for i, t in enumerate(like):
        if isinstance(t, shard):
            ways.setdefault((t.device_mesh, tuple(t.placements)), []).append(i)
    for (mesh, placements), at in ways.items():
        from torch.distributed.tensor import DTensor, Partial, Replicate

        parts = [Replicate() if p.is_replicate() else Partial() for p in placements]
        wide = torch.float32 if mesh.device_type == "mps" else torch.float64
        here = torch.tensor([sums[i] for i in at], dtype=wide, device=mesh.device_type)
        for i, total in zip(
            at, DTensor.from_local(here, mesh, parts, run_check=False).full_tensor().tolist(), strict=True
        ):
            sums[i] = total
    return sums


def _shard() -> Any:
    """The class of shards; None where there can be none: its module is slow to import, and there once one was made."""
    module = sys.modules.get("torch.distributed.tensor")
    return None if module is None else module.DTensor


def _wide(t: Tensor) -> Tensor:
    return t if t.device.type == "mps" else t.double()
