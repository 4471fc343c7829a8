"""The order in which an epoch visits the examples, a pure function of (seed, epoch)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from danskin.errors import InputError


def batch_indices(
    n: int, batch_size: int, *, seed: int, epoch: int, shuffle: bool = True, drop_last: bool = False
) -> list[Tensor]:
    """Indices of each batch of one epoch; no global random state is read or changed.

    Args:
        n: number of examples.
        batch_size: examples per batch; the last batch may have fewer.
        seed: seed of the run, 0 or more.
        epoch: number of the epoch, 0 or more; each has its own order.
        shuffle: False visits 0..n-1 in order.
        drop_last: leave out an incomplete last batch.

    Returns:
        int64 tensors, which together hold each index once (up to the batch left out).

    Raises:
        InputError: a number out of range, or no batch left.
    """
    for name, value, low in (
        ("n", n, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("epoch", epoch, 0),
    ):
        if value < low:
            raise InputError(f"{name}: expected {low} or more, got {value}; correct it")
    if drop_last and batch_size > n:
        raise InputError(
            f"batch_size: expected at most the {n} examples there are, got {batch_size} with drop_last; "
            "lower it or keep the last batch"
        )
    if shuffle:
        mixed = int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])
        order = torch.randperm(n, generator=torch.Generator().manual_seed(mixed >> 1))
    else:
        order = torch.arange(n)
    if drop_last:
        order = order[: n - n % batch_size]
    return list(order.split(batch_size))
