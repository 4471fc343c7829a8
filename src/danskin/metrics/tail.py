"""How bad the worst cases are, and how sure one is of numbers over few seeds. LECTURE row G3."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from danskin.errors import InputError


def cvar(values: Tensor, share: float = 0.2) -> Tensor:
    r"""The conditional value at risk: the mean of the lowest `share` of the values.

    .. math:: \max_t\; t - \frac{1}{n \alpha} \sum_i (t - v_i)_+

    Where n alpha is no whole number, the last value counts in part.

    Args:
        values: (..., n), higher is better.
        share: alpha in (0, 1]; 1 is the mean.

    Returns:
        (...).

    Raises:
        InputError: no values, or a share outside (0, 1].

    Reference: R. T. Rockafellar and S. Uryasev, "Optimization of conditional value-at-risk", Journal of Risk 2000.

    >>> cvar(torch.tensor([4.0, 1.0, 3.0, 2.0]), 0.5)
    tensor(1.5000)
    """
    if values.shape[-1] < 1 or not 0 < share <= 1:
        raise InputError(
            f"cvar: expected values and a share in (0, 1], got {values.shape[-1]} values and {share}; 0.2 is usual"
        )
    n = values.shape[-1]
    count = share * n
    weights = (count - torch.arange(n, dtype=torch.float64)).clamp(0, 1).to(values)
    return (values.sort(-1).values * weights).sum(-1) / count


def bootstrap(
    statistic: Callable[[Tensor], Tensor], values: Tensor, *, draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """A percentile bootstrap interval: rows (seeds) are drawn with replacement, and stay whole.

    Differences are paired by handing over differences of rows. With few rows the interval is too short; ten are few.

    Args:
        statistic: from (draws, n, ...) to (draws,).
        values: (n, ...).
        draws: how many samples.
        level: of the interval, in (0, 1).
        seed: of the draws; the same for all statistics, so that they see the same samples.

    Returns:
        Lower and upper end.

    Raises:
        InputError: fewer than two rows, or a level outside (0, 1).

    Reference: B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 1979.
    """
    n = len(values)
    if n < 2 or not 0 < level < 1 or draws < 1:
        raise InputError(
            f"bootstrap: expected at least two rows, draws >= 1 and a level in (0, 1), got {n} rows, {draws} and "
            f"{level}; one seed tells nothing of others"
        )
    rows = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    found = statistic(values[rows]).sort().values
    low = math.floor((1 - level) / 2 * (draws - 1))
    return float(found[low]), float(found[draws - 1 - low])
