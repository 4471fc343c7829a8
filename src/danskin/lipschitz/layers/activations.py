"""Activations that keep the norm of gradients: sorting in groups, and the absolute value. LECTURE row F6."""

from __future__ import annotations

from torch import Tensor, nn

from danskin.errors import InputError
from danskin.lipschitz.layers.base import LipschitzLayer, check_whole, place_of


class Unweighted(LipschitzLayer):
    """A layer of constant 1 without parameters: it is its own export."""

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0

    def export(self) -> nn.Module:
        """Itself: torch has no such layer, and there is nothing to compute in advance."""
        return self


class GroupSort(Unweighted):
    """Sorts neighbouring channels (0..size-1, size..2 size-1, ...) in each group, the smallest first.

    Args:
        size: channels in a group.
        descending: the largest first.
        dim: of the channels.

    Raises:
        InputError: at a call, channels that are no multiple of the size, or no such dimension.

    Reference: Anil, Lucas and Grosse, ICML 2019, section 4.

    >>> import torch
    >>> GroupSort(2)(torch.tensor([[3.0, 1.0, -1.0, 0.0]])).tolist()
    [[1.0, 3.0, -1.0, 0.0]]
    """

    def __init__(self, size: int = 2, *, descending: bool = False, dim: int = 1) -> None:
        super().__init__()
        check_whole(self, 1, size=size)
        self.size, self.descending, self.dim = size, descending, dim

    def forward(self, x: Tensor) -> Tensor:
        """Sorted, in the shape of x."""
        dim = place_of(self.dim, x, self)
        if x.shape[dim] % self.size:
            raise InputError(
                f"{type(self).__name__}: expected a multiple of {self.size} channels, got {x.shape[dim]} in dimension "
                f"{self.dim} of {tuple(x.shape)}; change the width of the layer before"
            )
        groups = x.unflatten(dim, (-1, self.size))  # a sort is as fast on CPUs as max and min, and has one constant: 1
        return groups.sort(dim + 1, descending=self.descending).values.flatten(dim, dim + 1)

    def extra_repr(self) -> str:
        """Size and order, for printing."""
        return f"size={self.size}, descending={self.descending}, dim={self.dim}"


def MaxMin(*, dim: int = 1) -> GroupSort:
    """(max, min) of neighbouring channels (0, 1), (2, 3), ...: `GroupSort` of size 2, the larger one first.

    Other libraries mean other things by the name: LNets sorts halves (0, n/2), torchlip doubles the channels.

    >>> import torch
    >>> MaxMin()(torch.tensor([[1.0, 3.0, -1.0, 0.0]])).tolist()
    [[3.0, 1.0, 0.0, -1.0]]
    """
    return GroupSort(2, descending=True, dim=dim)


class Abs(Unweighted):
    """|x|, channel by channel: keeps the norm of gradients, and is cheapest.

    >>> import torch
    >>> Abs()(torch.tensor([-2.0, 1.0])).tolist()
    [2.0, 1.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """|x|."""
        return x.abs()
