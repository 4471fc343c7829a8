"""Writing that a kill cannot tear: a file is either the old one or the new one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from danskin.errors import MissingError


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write through a temporary file in the same folder, flush to disk, then rename.

    Raises:
        MissingError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else _os_cause(error)
        if cause is None:
            raise
        raise MissingError(
            f"{path}: expected to write the file, got {cause}; what was there before is untouched",
            "free some space or choose another folder, then go on with --resume",
        ) from error


def _os_cause(error: RuntimeError) -> BaseException | None:
    """torch.save reports a full disk as a RuntimeError; say what it is."""
    text = str(error)
    if isinstance(error.__context__, OSError):
        return error.__context__
    return error if "PytorchStreamWriter" in text or "iostream" in text or "No space" in text else None


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
