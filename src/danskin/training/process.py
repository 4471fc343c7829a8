"""What training and evaluation need to know of the processes around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Process(Protocol):
    """One of `world` processes that do the same on different examples."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def world(self) -> int:
        """How many there are."""
        ...

    def wrap(self, model: nn.Module) -> Callable[..., Any]:
        """The model to call in the outer step: its gradients are averaged over the processes."""
        ...

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        ...

    def average_buffers(self, model: nn.Module) -> None:
        """Make floating-point buffers (running statistics) their mean over the processes."""
        ...


def part_of(process: Process) -> slice:
    """The places in a batch or a data set that are this process's: every `world`-th, from its rank."""
    return slice(process.rank, None, process.world)


class SingleProcess:
    """The only process."""

    rank = 0
    world = 1

    def wrap(self, model: nn.Module) -> Callable[..., Any]:
        """The model itself."""
        return model

    def sum(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def average_buffers(self, model: nn.Module) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class Together:
    """The processes that share a batch in equal parts.

    Args:
        group: torch's process group; None for this process alone.
    """

    group: Any = None

    @property
    def world(self) -> int:
        """How many there are."""
        return 1 if self.group is None else torch.distributed.get_world_size(self.group)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the processes; the value itself where there is one."""
        if self.group is None:
            return value
        value = value.detach().clone()
        torch.distributed.all_reduce(value, group=self.group)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes."""
        return value if self.group is None else self.sum(value) / self.world


def together(model: Any) -> Together:
    """The processes of a model: those of its DistributedDataParallel wrapper, else this one alone."""
    wrapped = isinstance(model, nn.parallel.DistributedDataParallel)
    return Together(model.process_group if wrapped else None)
