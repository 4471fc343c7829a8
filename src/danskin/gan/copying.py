"""Does a generator repeat its training examples? Nearest neighbours say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError


@dataclass(frozen=True)
class Copying:
    """Distances to the nearest training example, of generated and of held-out real ones.

    Args:
        closer: the chance that a generated example is nearer to the training set than a held-out real one: 0.5 for a
            perfect generator, towards 1 for copies, below 0.5 where samples are unlike any data.
        z: that chance's deviation from 0.5 in standard errors (of the Mann-Whitney statistic); above 3 is a warning.
        copies: share of generated examples at distance 0 from a training example, up to rounding.
        generated: median distance of generated examples.
        held_out: median distance of held-out ones.
    """

    closer: float
    z: float
    copies: float
    generated: float
    held_out: float

    @property
    def copied(self) -> bool:
        """Whether the samples lie closer to the training examples than chance allows."""
        return self.z > 3 or self.copies > 0


def memorization(fake: Tensor, train: Tensor, test: Tensor, chunk: int = 500) -> Copying:
    """Compare nearest-neighbour distances to the training set.

    Args:
        fake: (m, ...) generated examples.
        train: (n, ...) what was trained on.
        test: (k, ...) real examples that were not.
        chunk: rows at a time.

    Raises:
        InputError: an empty sample, shapes that do not fit, NaN or infinity.

    Reference: Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect data-copying in generative models",
    AISTATS 2020, section 3 (in one cell). Lecture: F7.
    """
    fake, train, test = (t.detach().flatten(1) for t in (fake, train, test))
    if not (len(fake) and len(train) and len(test)) or not fake.shape[1] == train.shape[1] == test.shape[1]:
        raise InputError(
            f"memorization: expected three samples of one shape, got {tuple(fake.shape)}, {tuple(train.shape)} and "
            f"{tuple(test.shape)}"
        )
    if not all(bool(t.isfinite().all()) for t in (fake, train, test)):
        raise InputError("memorization: expected finite examples, got NaN or infinity")
    ours, theirs = (_nearest(t, train, chunk) for t in (fake, test))
    m, k = len(ours), len(theirs)
    places = torch.cat([ours, theirs])
    order = places.unique(return_inverse=True, return_counts=True)
    ranks = (order[2].cumsum(0).double() - (order[2] - 1) / 2)[order[1]]  # mean ranks of equal ones
    wins = m * k - (float(ranks[:m].sum()) - m * (m + 1) / 2)  # pairs in which ours is the nearer one
    closer = wins / (m * k)
    error = math.sqrt((m + k + 1) / (12 * m * k))
    scale = float(theirs.median()) or 1.0
    return Copying(
        closer=closer,
        z=(closer - 0.5) / error,
        copies=float((ours < 1e-6 * scale).double().mean()),
        generated=float(ours.median()),
        held_out=float(theirs.median()),
    )


_CANDIDATES = 4


def _nearest(x: Tensor, among: Tensor, chunk: int) -> Tensor:
    """Distance of each row to the nearest of `among`.

    A product of matrices finds a few candidates, twenty times as fast on images as all differences; it rounds a
    distance near 0 to noise, so that theirs are taken from differences.
    """
    center = among.mean(0)  # far from 0 the product would round all distances alike
    x, among = x - center, among - center
    found = []
    for part in x.split(chunk):
        distance = torch.cdist(part, among, compute_mode="use_mm_for_euclid_dist")
        rows = distance.topk(min(_CANDIDATES, len(among)), largest=False).indices
        found.append((part[:, None] - among[rows]).norm(dim=2).amin(1))
    return torch.cat(found).double()
