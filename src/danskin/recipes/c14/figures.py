"""Figures of the row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danskin.run.figures import Drawn


def draw(result: Mapping[str, Any], events: Any) -> list[Drawn]:
    """None yet."""
    return []
