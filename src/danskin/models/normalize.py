"""Normalisation as the first layer of a model, so that attacks live in natural units."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.models.names import unknown

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # per channel, of pixels / 255
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


class Normalize(nn.Module):
    """(x - mean) / std per channel (dimension 1), in the dtype of x.

    Args:
        mean: one number per channel, or a single one for all.
        std: likewise, positive.

    Shape: (N, C, ...) to the same.

    Raises:
        InputError: different lengths, numbers that are not finite, std not positive; at call, another
            number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean, std = tuple(float(v) for v in mean), tuple(float(v) for v in std)
        if not mean or len(mean) != len(std):
            raise InputError(
                f"Normalize: expected one mean and one std per channel, got {len(mean)} and {len(std)}; "
                "give as many of each"
            )
        if not all(math.isfinite(v) for v in mean) or not all(math.isfinite(v) and v > 0 for v in std):
            raise InputError(f"Normalize: expected finite means and positive stds, got {mean} and {std}; correct them")
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    @classmethod
    def of(cls, name: str) -> Normalize:
        """The layer with the training statistics of "mnist", "fashion_mnist" or "cifar10"."""
        if name not in STATISTICS:
            raise unknown("statistics", name, STATISTICS)
        return cls(*STATISTICS[name])

    def forward(self, x: Tensor) -> Tensor:
        """Normalised x."""
        channels = len(self.mean)
        if x.dim() < 2 or channels not in (1, x.shape[1]):
            raise InputError(
                f"Normalize: expected x of shape (N, {channels}, ...), got {tuple(x.shape)}; "
                "use the statistics of this data"
            )
        shape = (1, channels) + (1,) * (x.dim() - 2)
        return (x - self.mean.to(x.dtype).view(shape)) / self.std.to(x.dtype).view(shape)

    def extra_repr(self) -> str:
        """Mean and std, for printing the model."""
        mean, std = ([f"{v:.4g}" for v in t.tolist()] for t in (self.mean, self.std))
        return f"mean=({', '.join(mean)}), std=({', '.join(std)})"
