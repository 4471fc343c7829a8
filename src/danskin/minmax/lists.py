"""A list of tensors seen as one long vector, such as all weights of a network; shards (DTensor) count whole."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def own(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What this process holds of each, in its own memory: all that is needed for what is done entry by entry.

    Some operations on lists know no DTensor, and the others are slow on them.
    """
    return [t._local_tensor if _is_sharded(t) else t for t in tensors]  # type: ignore[attr-defined]


@torch.no_grad()
def squares(tensors: Sequence[Tensor]) -> Tensor:
    r"""(n,) float64: \|t\|_2^2 of each. Under sharding the same on every process."""
    if not tensors:
        return torch.zeros(0, dtype=torch.float64)
    parts = own(tensors)
    lengths = torch._foreach_norm(parts, 2)
    sums = _wide(torch.stack([n.to(lengths[0].device) for n in lengths])).square()
    for i, n in enumerate(sums.tolist()):
        if not 0 < n < math.inf:  # the squares may have left the range of their type
            sums[i] = _wide(parts[i]).square().sum()
    return _of_all(sums, tensors)


def norm(tensors: Sequence[Tensor]) -> float:
    """The l2 norm of all of them together; 0 of none. Under sharding the same on every process."""
    return math.sqrt(float(squares(tensors).sum()))


@torch.no_grad()
def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The sum of <a_l, b_l>. Under sharding the same on every process."""
    if not a:
        return 0.0
    parts = [torch.dot(s.reshape(-1), t.reshape(-1)) for s, t in zip(own(a), own(b), strict=True)]
    return float(_of_all(_wide(torch.stack([p.to(parts[0].device) for p in parts])), a).sum())


def _of_all(sums: Tensor, like: Sequence[Tensor]) -> Tensor:
    """(n,) sums over what this process holds to sums over whole tensors: one message for each way of sharding."""
    ways: dict[Any, list[int]] = {}
    for i, t in enumerate(like):
        if _is_sharded(t):
            ways.setdefault((t.device_mesh, tuple(t.placements)), []).append(i)  # type: ignore[attr-defined]
    for (mesh, placements), at in ways.items():
        from torch.distributed.tensor import DTensor, Partial, Replicate

        parts = [Replicate() if p.is_replicate() else Partial() for p in placements]
        index = torch.tensor(at, device=sums.device)
        total = DTensor.from_local(sums[index], mesh, parts, run_check=False).full_tensor()
        sums = sums.index_copy(0, index, total)
    return sums


def _is_sharded(t: Tensor) -> bool:
    module = sys.modules.get("torch.distributed.tensor")  # slow to import, and there wherever a DTensor was made
    return module is not None and isinstance(t, module.DTensor)


def _wide(t: Tensor) -> Tensor:
    return t if t.device.type == "mps" else t.double()
