"""Numbers over seeds: mean, standard deviation, and a 95 % interval that says what it is an interval of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from danskin.metrics import wilson

#: 0.975 quantiles of Student's t by degrees of freedom.
_T = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963),
    *(2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272),
)


def t_quantile(degrees: int) -> float:
    """The 0.975 quantile of Student's t; Cornish and Fisher's expansion of it beyond 30 degrees of freedom.

    >>> round(t_quantile(2), 3), round(t_quantile(60), 3)
    (4.303, 2.0)
    """
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def summarize(values: Sequence[float], unit: str, counts: tuple[int, int] | None = None) -> dict[str, Any]:
    """Mean, standard deviation and interval of one number over seeds.

    Args:
        values: one per seed.
        unit: "share" (then in [0, 1]), "seconds" or "number".
        counts: (hits, n) of the first seed, for an interval where there is one seed only.

    Returns:
        n, values, mean, sd (None of one), interval (None where there is none) and what it is: "t over seeds" (where
        another training run would land on average) or "Wilson over test examples" (of this one trained model).
    """
    mean = statistics.fmean(values)
    out: dict[str, Any] = {"n": len(values), "values": list(values), "mean": mean, "sd": None}
    out |= {"interval": None, "interval_kind": None, "unit": unit}
    if len(values) > 1:
        out["sd"] = statistics.stdev(values)
        half = t_quantile(len(values) - 1) * out["sd"] / math.sqrt(len(values))
        low, high = mean - half, mean + half
        if unit == "share":
            low, high = max(0.0, low), min(1.0, high)
        out |= {"interval": [low, high], "interval_kind": "t over seeds"}
    elif counts is not None:
        out |= {"interval": list(wilson(*counts)), "interval_kind": "Wilson over test examples"}
    return out
