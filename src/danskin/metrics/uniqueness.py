"""Are optimised perturbations unique? Distances between, and losses of, several of one example. LECTURE row C5."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import Set
from danskin.minmax.intersection import order_of
from danskin.minmax.measured import largest_radius


def pairwise_distances(deltas: Tensor) -> Tensor:
    r"""(batch, R (R - 1) / 2): \|delta_r - delta_s\|_2 of all pairs r < s of the R perturbations of an example.

    Args:
        deltas: (R, batch, ...) perturbations, R >= 2: one run of an attack (one random start) after the other.

    >>> pairwise_distances(torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 1.0]]])).round(decimals=4)
    tensor([[5.0000, 1.0000, 4.2426]])
    """
    if deltas.ndim < 3 or len(deltas) < 2:
        raise InputError(
            f"deltas: expected at least two runs, shape (runs, batch, ...), got {tuple(deltas.shape)}; stack the "
            "perturbations of several random starts"
        )
    runs = len(deltas)
    flat = deltas.reshape(runs, deltas.shape[1], math.prod(deltas.shape[2:])).transpose(0, 1).double()
    upper = torch.triu_indices(runs, runs, 1, device=flat.device)
    # differences, not the expansion by inner products: that loses all digits of near-identical perturbations
    whole = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return whole[:, upper[0], upper[1]].to(deltas.dtype)


def diameter(ball: Set, d: int) -> float:
    """The largest l2 distance of two points of a ball of l_inf, l2 or l1 in d dimensions (without a data box).

    >>> from danskin.minmax import L2, Linf
    >>> diameter(Linf(0.2), 64), diameter(L2(0.5), 64)
    (3.2, 1.0)
    """
    if order_of(ball) is None:
        raise InputError(f"ball: expected Linf, L2 or L1, whose diameter is known, got {ball}; pass one that holds it")
    return 2 * largest_radius(ball) * (math.sqrt(d) if order_of(ball) == math.inf else 1.0)


@dataclass(frozen=True, eq=False)
class Uniqueness:
    """What several optimised perturbations of the same examples have in common.

    Args:
        distances: (batch, pairs) l2 distances, from `pairwise_distances`.
        losses: (R, batch) loss at each perturbation.
        clean: (batch,) loss without perturbation.
    """

    distances: Tensor
    losses: Tensor
    clean: Tensor

    @staticmethod
    def of(deltas: Tensor, losses: Tensor, clean: Tensor) -> Uniqueness:
        """From the perturbations (R, batch, ...), their losses (R, batch) and the clean losses (batch,)."""
        if losses.shape != deltas.shape[:2] or clean.shape != deltas.shape[1:2]:
            raise InputError(
                f"losses: expected shapes {tuple(deltas.shape[:2])} and {tuple(deltas.shape[1:2])} (clean), got "
                f"{tuple(losses.shape)} and {tuple(clean.shape)}; one loss per run and example"
            )
        return Uniqueness(pairwise_distances(deltas), losses, clean)

    @property
    def spread(self) -> Tensor:
        """(batch,): the largest minus the smallest loss of an example's perturbations."""
        return self.losses.amax(0) - self.losses.amin(0)

    @property
    def gain(self) -> Tensor:
        """(batch,): the mean loss of an example's perturbations minus its clean loss."""
        return self.losses.mean(0) - self.clean

    def coinciding(self, within: float) -> float:
        """The share of pairs at most `within` apart, in the units of the data: 1 if the maximiser is unique."""
        return float((self.distances <= within).double().mean())
