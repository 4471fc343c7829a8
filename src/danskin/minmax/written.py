"""Sets as plain data, and back: what a verdict says about its ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.balls import BALLS


@dataclass(frozen=True)
class Recorded:
    """A set of somebody's own, as it was written down: its name, and no more.

    Args:
        text: how it prints.
    """

    text: str

    def __repr__(self) -> str:
        return self.text

    def __getattr__(self, name: str) -> Any:
        if name in ("project", "lmo", "steepest", "sample", "violation", "norm", "dual_norm", "rows"):
            raise InputError(
                f"ball: expected a set, got the record of {self.text}; make it again in Python: a file holds its name "
                "only"
            )
        raise AttributeError(name)


def ball_to_dict(ball: Any) -> dict[str, Any]:
    """``norm`` and ``radius`` of a ball; of another set its name and how it prints, with its radius if it has one."""
    radius = getattr(ball, "radius", getattr(ball, "value", None))
    radius = radius.tolist() if isinstance(radius, Tensor) else None if radius is None else str(radius)
    name = type(ball).__name__.lower()
    known = {"norm": name, "radius": radius}
    return known if type(ball) is BALLS.get(name) else known | {"set": repr(ball)}


def ball_from_dict(found: dict[str, Any]) -> Any:
    """The ball that `ball_to_dict` wrote; of a set of somebody's own the record."""
    if "set" in found:
        return Recorded(found["set"])
    radius = found["radius"]
    return BALLS[found["norm"]](torch.tensor(radius) if isinstance(radius, list) else radius)
