"""What the extra `[rl]` brings, imported when it is first needed."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
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


class _NoPictures(ModuleType):
    """Stands in for imageio, by which gymnasium saves pictures of the window that it shows MuJoCo in."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself asks of a module
            raise AttributeError(name)
        raise MissingError(f"MuJoCo: imageio is needed to save pictures ({name})", "pip install 'danskin[rl]'")


def import_mujoco_without_imageio() -> None:
    """Import gymnasium's MuJoCo environments where imageio is missing: they import it, and act without it.

    Raises:
        ImportError: something else is missing.
    """
    sys.modules["imageio"] = _NoPictures("imageio")
    try:
        importlib.import_module("gymnasium.envs.mujoco")
    finally:
        del sys.modules["imageio"]
