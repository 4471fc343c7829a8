"""Precision, recall, density and coverage: two samples compared through balls around their neighbours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from danskin.errors import InputError


class Manifold(NamedTuple):
    """Shares in [0, 1], but for density, which may be above 1.

    Args:
        precision: generated examples in a ball of some real one: what is generated is plausible.
        recall: real examples in a ball of some generated one: what is real can be generated.
        density: how many balls of real ones a generated one is in, over k.
        coverage: real examples with a generated one in their ball.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(real: Tensor, fake: Tensor, k: int = 5, chunk: int = 1000) -> Manifold:
    r"""Precision and recall (Kynkäänniemi et al.), density and coverage (Naeem et al.).

    The ball of an example reaches to its k-th neighbour in its own sample. Memory is chunk times n, not n squared.

    Args:
        real: (n, ...) examples, or features of them.
        fake: (m, ...).
        k: at least 1, below n and m.
        chunk: rows at a time.

    Raises:
        InputError: too few examples, different shapes, NaN.

    Reference: Kynkäänniemi et al., NeurIPS 2019, equations 1 and 2; Naeem et al., ICML 2020, equations 4 and 5.
    Lecture: F7.
    """
    real, fake = (t.detach().double().flatten(1) for t in (real, fake))
    if min(len(real), len(fake)) <= k or k < 1:
        raise InputError(
            f"precision_recall: expected more than k >= 1 examples on both sides, got {len(real)} and {len(fake)} at "
            f"k={k}; the k-th neighbour must exist"
        )
    if real.shape[1] != fake.shape[1] or not bool(real.isfinite().all() & fake.isfinite().all()):
        raise InputError("precision_recall: expected finite examples of one shape, got NaN, infinity or two shapes")
    of_real, of_fake = _radii(real, k, chunk), _radii(fake, k, chunk)
    in_real = torch.zeros(len(fake), dtype=torch.int64)
    recalled, covered = [], []
    for start in range(0, len(real), chunk):
        part = slice(start, start + chunk)
        distance = _distances(real[part], fake)
        inside = distance < of_real[part, None]
        in_real += inside.sum(0).cpu()
        recalled.append((distance < of_fake[None]).any(1))
        covered.append(distance.amin(1) < of_real[part])
    return Manifold(
        precision=float((in_real > 0).double().mean()),
        recall=float(torch.cat(recalled).double().mean()),
        density=float(in_real.double().mean() / k),
        coverage=float(torch.cat(covered).double().mean()),
    )


def _radii(x: Tensor, k: int, chunk: int) -> Tensor:
    """The distance of each row to its k-th neighbour among the others."""
    found = []
    for start in range(0, len(x), chunk):
        found.append(_distances(x[start : start + chunk], x).topk(k + 1, largest=False).values[:, -1])
    return torch.cat(found)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
