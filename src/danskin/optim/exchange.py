"""Processes in pairs that give each other what they computed, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from danskin.errors import InputError


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """Every tensor of a batch: tuples, lists and dicts are looked through."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, dict):
        for value in batch.values():
            yield from tensors_in(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from tensors_in(value)


def fingerprint(batch: Any) -> Tensor:
    """(2,) float64: rows of the first tensor, and a sum of all numbers that tells batches apart."""
    rows, total = 0, 0.0
    for k, t in enumerate(tensors_in(batch)):
        rows = rows or (len(t) if t.ndim else 1)
        total += (k + 1) * float(t.detach().double().sum())
    return torch.tensor([rows, total], dtype=torch.float64)


class Pair:
    """This process's place among pairs (0, 1), (2, 3), ... of a group: role 0 or 1, and a partner.

    Args:
        group: of even size.

    Raises:
        InputError: torch.distributed has not begun, or the group is of odd size.
    """

    def __init__(self, group: Any) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise InputError("SAMPa.group: expected torch.distributed to have begun; call init_process_group first")
        size, rank = dist.get_world_size(group), dist.get_rank(group)
        if size % 2:
            raise InputError(
                f"SAMPa.group: expected an even number of processes, one for each of two gradients, got {size}; start "
                "one more, or one less, or use one process with group=None"
            )
        ranks = dist.get_process_group_ranks(group)
        self.role, self.pairs = rank % 2, size // 2
        # every process has a hand in the making of every group, in the same order
        pairs = [dist.new_group(ranks[k : k + 2]) for k in range(0, size, 2)] if self.pairs > 1 else [group]
        roles = [dist.new_group(ranks[r::2]) for r in range(2)] if self.pairs > 1 else [None, None]
        self._pair, self._alike = pairs[rank // 2], roles[self.role]

    def check_same(self, print_: Tensor) -> None:
        """Both of a pair hold the same batch.

        Raises:
            InputError: they do not.
        """
        both = [torch.empty_like(print_) for _ in range(2)]
        dist.all_gather(both, print_, group=self._pair)
        self._compare(both)

    def mean(self, g: Sequence[Tensor]) -> None:
        """The average over the processes of the same role, in place."""
        if self.pairs == 1:
            return
        flat = torch.cat([t.reshape(-1) for t in g])
        dist.all_reduce(flat, group=self._alike)
        flat /= self.pairs
        start = 0
        for t in g:
            t.copy_(flat[start : start + t.numel()].view_as(t))
            start += t.numel()

    def exchanged(
        self, g: Sequence[Tensor], loss: Tensor, buffers: Sequence[Tensor], print_: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """(role 0's g, role 1's g, role 1's loss); buffers become those of role 1. One collective, exact in every bit.

        Raises:
            InputError: the two have different batches.
        """
        sent = [*g, loss.reshape(1), print_.to(loss.device), *buffers]
        parts = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in sent]
        message = torch.cat(parts)
        both = [torch.empty_like(message) for _ in range(2)]
        dist.all_gather(both, message, group=self._pair)
        sizes = [len(p) for p in parts]
        read = [[_as(part, t) for part, t in zip(half.split(sizes), sent, strict=True)] for half in both]
        n = len(g)
        self._compare([half[n + 1] for half in read])
        for buffer, new in zip(buffers, read[1][n + 2 :], strict=True):
            buffer.copy_(new)
        return read[0][:n], read[1][:n], read[1][n].reshape(())

    def _compare(self, both: Sequence[Tensor]) -> None:
        if not torch.equal(both[0], both[1]):
            raise InputError(
                "SAMPa.step: expected the same batch on both processes of a pair, got "
                f"{int(both[0][0])} and {int(both[1][0])} rows of numbers that sum to {float(both[0][1]):g} and "
                f"{float(both[1][1]):g}; seed the loaders alike, and shard over pairs (rank // 2)"
            )


def _as(bytes_: Tensor, like: Tensor) -> Tensor:
    """Bytes read as a tensor like another; a copy where they do not lie on its boundary."""
    try:
        return bytes_.view(like.dtype).view(like.shape)
    except RuntimeError:
        return bytes_.clone().view(like.dtype).view(like.shape)
