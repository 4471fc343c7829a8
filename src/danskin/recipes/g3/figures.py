"""Returns against the mass (row G3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from danskin.report.curves import drawn
from danskin.report.drawing import Drawn

_SHOWN = ("plain", "gda", "extra", "ld", "pr_random", "pr_gda", "pr_ld")


def draw(result: Mapping[str, Any]) -> list[Drawn]:
    """A line for each of a few methods."""
    at = {0: 1.0}
    for i, condition in enumerate(result["conditions"]):
        if condition["kind"] == "mass":
            at[i] = float(re.sub("[^0-9.]", "", condition["name"]))
    order = sorted(at, key=lambda i: at[i])
    lines = {}
    for label in _SHOWN:
        if label in result["returns"]:
            means = torch.tensor(result["returns"][label]).mean(0).tolist()
            lines[result["methods"][label]] = [[(at[i], means[i]) for i in order]]
    caption = "Mean return over seeds against the factor on the nominal mass; trained at 1."
    return drawn("mass", "Return against mass", caption, lines, x="mass", y="return", shares=False)
