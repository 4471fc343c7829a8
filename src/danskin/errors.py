"""The errors danskin raises on purpose. Each message says what was expected, what came, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DanskinError(Exception):
    """Base of all errors that danskin raises on purpose."""


class InputError(DanskinError, ValueError):
    """An argument, image, label, radius or setting is not what the called function needs."""


class ConfigError(InputError):
    """A recipe or an override on the command line cannot be read."""


class ModelError(DanskinError, RuntimeError):
    """The model returned something that cannot be used: wrong shape, NaN, no gradient."""


class DivergenceError(DanskinError, RuntimeError):
    """Training left the finite numbers."""


class CheckpointError(DanskinError, RuntimeError):
    """A checkpoint is truncated, of another architecture, or of another run."""


class MissingError(DanskinError):
    """Something that is not installed or not on disk is needed.

    Args:
        message: what is missing.
        command: the exact command (or action) that brings it.
    """

    def __init__(self, message: str, command: str = "") -> None:
        super().__init__(f"{message}; {command}" if command else message)
        self.command = command


class DanskinWarning(UserWarning):
    """Something works, but probably not as it was meant to."""


def suggest(word: str, known: Iterable[str], *, most: int | None = None) -> str:
    """'did you mean X?', or the list of what is known, or of the first `most` of it."""
    options = sorted(set(known))
    near = difflib.get_close_matches(word, options, 1, 0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    more = ", ..." if most is not None and len(options) > most else ""
    return f"choose from {', '.join(options[:most])}{more}"
