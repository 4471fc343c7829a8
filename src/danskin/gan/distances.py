"""How far samples are from real data: exact Wasserstein distances beside their sampling floor, and certified gaps.

Two samples of one and the same distribution are not at distance 0: what they are at is the floor, and it depends on
how many there are. A distance without its floor says little. Lecture: row F7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from danskin.critics.certified import frozen, values
from danskin.errors import InputError, MissingError, ModelError
from danskin.lipschitz import LipschitzBound, product_bound
from danskin.transport import wasserstein


def sample_distance(x: Tensor, y: Tensor, q: int = 1) -> float:
    r"""The exact W_q of two samples of equal size, in the Euclidean norm of flattened examples.

    Args:
        x: (n, ...).
        y: (n, ...).
        q: at least 1.

    Raises:
        InputError: empty, of different sizes or shapes, with NaN or infinity, or q below 1.
        MissingError: neither POT nor scipy is installed.

    Lecture: F7.
    """
    x, y = (t.detach().cpu().flatten(1) for t in (x, y))
    if x.shape != y.shape:
        raise InputError(
            f"sample_distance: expected two samples of one shape, got {tuple(x.shape)} and {tuple(y.shape)}; a "
            "distance is compared with its floor at one and the same size"
        )
    try:
        found = wasserstein(x, y, q)
    except MissingError:  # without POT: scipy's assignment, slow where the clouds are far apart
        found = wasserstein(x, y, q, method="assignment")
    return float(found.distance)


@dataclass(frozen=True)
class CertifiedGap:
    """What a critic proves about the distance of two samples.

    Args:
        gap: E s(x) - E s(z) of the critic, in float64. By itself it is no distance.
        lipschitz: a certified upper bound of the critic's Lipschitz constant; None where there is none.
        reason: why there is none.
    """

    gap: float
    lipschitz: LipschitzBound | None
    reason: str = ""

    @property
    def lower_bound(self) -> float | None:
        """A number that W1 of the two samples is not below; None without a certified constant."""
        if self.lipschitz is None or not self.lipschitz.value > 0:
            return None
        return max(self.gap / self.lipschitz.value, 0.0)


def certified_gap(critic: nn.Module, x: Tensor, z: Tensor, batch_size: int = 2000) -> CertifiedGap:
    r"""The gap of a critic on two samples, and with its certified Lipschitz constant L a lower bound of W1.

    By Kantorovich and Rubinstein, :math:`(E s(x) - E s(z)) / L \le W_1` for every function with constant L.

    Args:
        critic: read in eval mode and left as found; its weights are taken in float64.
        x: (n, ...) real examples.
        z: (m, ...) generated ones.
        batch_size: examples in a pass.

    Returns:
        With `lipschitz` None where the critic has an operation that danskin cannot bound: it is named.

    Raises:
        InputError: an empty sample, two shapes, NaN or infinity.

    Lecture: F2, F7.
    """
    if not (len(x) and len(z)) or x.shape[1:] != z.shape[1:] or not bool(x.isfinite().all() & z.isfinite().all()):
        raise InputError(
            f"certified_gap: expected two samples of finite examples of one shape, got {tuple(x.shape)} and "
            f"{tuple(z.shape)}, or NaN or infinity among them"
        )
    twin = frozen(critic)
    real, fake = (values(twin, t.to(_device(twin)), batch_size).mean() for t in (x, z))
    shape: Sequence[int] = tuple(x.shape[1:])
    try:
        bound, reason = product_bound(twin, shape), ""
    except (ModelError, InputError) as error:
        bound, reason = None, str(error)
    return CertifiedGap(float(real - fake), bound, reason)


def _device(net: nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))
