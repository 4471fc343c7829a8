"""What the extra `[rl]` brings, imported when it is first needed."""

from __future__ import annotations

import importlib
from typing import Any

from danskin.errors import MissingError


def needed(package: str) -> Any:
    """The module of that name.

    Raises:
        MissingError: gymnasium or mujoco is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingError(f"robust RL: {package} is needed, got {error}", "pip install 'danskin[rl]'") from error
