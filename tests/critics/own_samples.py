"""Samples that tests of critics share."""

import torch

from danskin.data.toys import gaussians_8


def eight(n, seed=0):
    """8 Gaussians, and N(0, 0.25 I)."""
    y = 0.5 * torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return gaussians_8(n, seed=seed)[0], y
