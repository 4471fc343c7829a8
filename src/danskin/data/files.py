"""Where data files live, and what to say about one that is broken."""

from __future__ import annotations

import os
from pathlib import Path

from danskin.errors import InputError


def data_folder(folder: str | Path | None = None) -> Path:
    """The folder of data files: the argument, else $DANSKIN_DATA, else danskin in the user's cache."""
    if folder is not None:
        return Path(folder).expanduser()
    if os.environ.get("DANSKIN_DATA"):
        return Path(os.environ["DANSKIN_DATA"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "danskin"


def broken(path: str | Path, expected: str, got: str) -> InputError:
    """The error for a truncated or corrupt file."""
    return InputError(f"{path}: expected {expected}, got {got}; delete the file and fetch it again")
