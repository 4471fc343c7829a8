"""A ball from what people write: one reader for Python, recipes and the command line."""

from __future__ import annotations

import numbers
from typing import Any

from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.balls import BALLS


def read_ball(ball: Any, what: str = "ball") -> Any:
    """A set of perturbations as it is, or the ball that a text such as "linf:8/255", "l2:0.5" or "l1:12" names.

    Args:
        ball: a set, or a norm and a radius.
        what: its name in errors.

    Raises:
        InputError: neither, a norm that there is not, or no radius.

    >>> read_ball("linf:8/255")
    Linf(radius='8/255')
    """
    if isinstance(ball, str):
        norm, _, radius = ball.partition(":")
        kind = BALLS.get(norm.strip().lower())
        if kind is None or not radius.strip():
            raise InputError(
                f"{what}: expected a norm and a radius such as linf:8/255, l2:0.5 or l1:12, got {ball!r}; the "
                "radius is in units of the data"
            )
        return kind(radius.strip())
    if not isinstance(ball, type) and callable(getattr(ball, "project", None)):
        return ball
    if isinstance(ball, numbers.Real | Tensor):
        cure = f"say in which norm: Linf({ball}), L2({ball}) or L1({ball}), or 'linf:{ball}'"
    elif isinstance(ball, type):
        cure = f"give a radius: {ball.__name__}('8/255')"
    else:
        cure = "pass Linf('8/255'), L2(0.5), L1(12), or a set of your own"
    raise InputError(f"{what}: expected a ball such as Linf('8/255') or 'linf:8/255', got {ball!r}; {cure}")
