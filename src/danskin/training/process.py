"""What training and evaluation need to know of the processes around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

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
