"""Words for error messages."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from danskin.errors import MissingError, suggest


def near(word: str, known: Iterable[str], otherwise: str) -> str:
    """`suggest` among what a stranger's file or package holds, at most 8 names; what to do instead if it holds none."""
    options = set(known)
    return suggest(word, options, most=8) if options else otherwise


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def needed(name: str, package: str, command: str, error: BaseException) -> MissingError:
    """A package is not there, or breaks because the torchvision beside it was built for another torch."""
    told, below = first_line(error), error
    while below.__cause__ is not None:
        below = below.__cause__
    if "torchvision" in str(below) and not isinstance(below, ModuleNotFoundError):
        told = f"{first_line(below)} (install the torchvision that was built for torch {torch.__version__})"
    return MissingError(f"{name}: {package} is needed, got {told}", command)
