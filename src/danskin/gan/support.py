"""Samples against a density that is known: which modes are covered, and what share lies near its support."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError


@dataclass(frozen=True)
class Coverage:
    """What samples cover of a known density.

    Args:
        covered: modes with at least a fifth of the share they should have.
        modes: how many there are.
        near: share of samples within `radius` of the support.
        high_quality: share within three standard deviations of it.
        shares: (modes,) of all samples, those near it that belong to each mode.
    """

    covered: int
    modes: int
    near: float
    high_quality: float
    shares: tuple[float, ...]


def mode_coverage(
    samples: Tensor, points: Tensor, labels: Tensor, sigma: float, radius: float = 0.2, least: float = 0.2
) -> Coverage:
    """Modes that samples cover, and the share of high-quality samples.

    A sample belongs to the mode of the nearest point of the support, if that is within `radius`.

    Args:
        samples: (n, d).
        points: (k, d) of the support, without noise.
        labels: (k,) the mode of each, 0, 1, ...; modes should have equal mass.
        sigma: standard deviation of the noise around the support.
        radius: within which a sample counts for a mode.
        least: share of a mode's mass from which it counts as covered.

    Raises:
        InputError: shapes that do not fit, no samples, or NaN among them.

    Reference: as in Gulrajani et al., NeurIPS 2017, and Lin et al., "PacGAN", NeurIPS 2018, with thresholds stated.
    Lecture: F7.
    """
    if samples.ndim != 2 or points.ndim != 2 or samples.shape[1] != points.shape[1] or len(labels) != len(points):
        raise InputError(
            f"mode_coverage: expected samples (n, d), points (k, d) and labels (k,), got {tuple(samples.shape)}, "
            f"{tuple(points.shape)} and {tuple(labels.shape)}"
        )
    if not len(samples) or not bool(samples.isfinite().all()):
        raise InputError("mode_coverage: expected samples of finite numbers, got none, NaN or infinity")
    distance, nearest = torch.cdist(samples.double().cpu(), points.double()).min(1)
    modes = int(labels.max()) + 1
    close = distance <= radius
    counts = torch.bincount(labels[nearest[close]], minlength=modes).double() / len(samples)
    return Coverage(
        covered=int((counts >= least / modes).sum()),
        modes=modes,
        near=float(close.double().mean()),
        high_quality=float((distance <= 3 * sigma).double().mean()),
        shares=tuple(counts.tolist()),
    )
