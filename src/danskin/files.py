"""Reading and writing the files of runs: each is the old one or the new one, and a broken one is told by its name."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from danskin.errors import CheckpointError, ConfigError, MissingError


def new_folder(root: Path) -> Path:
    """A name in a folder that nothing has yet: the time, and a number where that is taken. It is not made."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    names = [stamp, *(f"{stamp}-{k}" for k in range(2, 1000))]
    return next(root / name for name in names if not (root / name).exists())


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write through a temporary file in the same folder, flush to disk, then rename.

    Raises:
        MissingError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else _os_cause(error)
        if cause is None:
            raise
        raise MissingError(
            f"{path}: expected to write the file, got {cause}; what was there before is untouched",
            "free some space or choose another folder, then ask again (danskin train and reproduce: with --resume)",
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


def read_text(path: Path, what: str = "a text file") -> str:
    """The text of a file.

    Raises:
        MissingError: there is none, or it may not be read.
        CheckpointError: other bytes than UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise MissingError(f"{path}: expected {what}, got {error.strerror or error}", "check the path") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: expected {what} in UTF-8, got other bytes ({error.reason}); {_MEND}") from error


def read_json(path: Path, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """The mapping in a JSON file that danskin wrote.

    Args:
        path: of the file.
        keys: that it must have.

    Raises:
        MissingError: there is none, or it may not be read.
        CheckpointError: empty, cut short, or something else.
    """
    try:
        found = json.loads(read_text(path, "the JSON that danskin wrote"))
    except ValueError as error:
        raise CheckpointError(f"{path}: expected the JSON that danskin wrote, got {error}; {_MEND}") from error
    if not isinstance(found, dict) or not set(keys) <= set(found):
        got = type(found).__name__ if not isinstance(found, dict) else f"only {', '.join(map(str, found)) or 'nothing'}"
        wanted = f"a mapping with {', '.join(keys)}" if keys else "a mapping"
        raise CheckpointError(f"{path}: expected {wanted}, got {got}; {_MEND}")
    return found


def read_lines(path: Path, keys: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The mappings in a file with a JSON document in each line; a last line that a kill left half-written is none.

    Raises:
        MissingError: it may not be read.
        CheckpointError: a line is something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingError(
            f"{path}: expected lines of JSON, got {error.strerror or error}", "check the path"
        ) from error
    found = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise CheckpointError(f"{path}: expected JSON in line {number}, got {error}; {_MEND}") from error
        if not isinstance(found[-1], dict) or not set(keys) <= set(found[-1]):
            got = line.decode(errors="replace")[:60]
            raise CheckpointError(f"{path}: expected a mapping in line {number}, got {got!r}; {_MEND}")
    return found


def open_to_append(path: Path, mode: str = "a") -> Any:
    """The file, opened to write at its end; of lines ("a"), without a last one that a kill left half-written.

    Raises:
        MissingError: it cannot be written.
    """
    try:
        if "b" not in mode:
            cut_torn_line(path)
        return open(path, mode, encoding=None if "b" in mode else "utf-8")
    except OSError as error:
        raise MissingError(f"{path}: expected to append to the file, got {error}", "choose another folder") from error


def append_line(stream: Any, path: Path, value: Any) -> None:
    """Append one line of JSON to the file that `open_to_append` has opened.

    Raises:
        MissingError: the disk is full.
    """
    try:
        stream.write(json.dumps(value) + "\n")
        stream.flush()
    except OSError as error:
        fix = "free some space, then go on with --resume"
        raise MissingError(f"{path}: expected to append a line, got {error}", fix) from error


def cut_torn_line(path: Path) -> None:
    """Take away what stands behind the last line's end."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        with open(path, "r+b") as stream:
            stream.truncate(whole)


_CHOOSE = "choose another with --out"


def check_folder(path: Path, fix: str = _CHOOSE, what: str = "the folder of the run") -> None:
    """See that files could be written in this folder, there or still to be made: before the work that needs it.

    Raises:
        ConfigError: something else than a folder has this name.
        MissingError: nothing can be written there.
    """
    try:
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        if there == path and not path.is_dir():
            raise ConfigError(f"{path}: expected a folder, or a name that is free, got a file; {fix}")
        if not there.is_dir():
            raise NotADirectoryError(f"a file at {there}")
        with tempfile.NamedTemporaryFile(dir=there, prefix=".try", suffix=".tmp"):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise MissingError(f"{path}: expected to make {what} and write in it, got {error}", fix) from error


def slug(text: str) -> str:
    """A label as the name of a file.

    >>> slug("8 Gaussians, width 64")
    '8-gaussians-width-64'
    """
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def make_folder(path: Path, fix: str = _CHOOSE, what: str = "the folder of the run") -> None:
    """Make a folder, with those around it, where it is not there; see `check_folder`."""
    check_folder(path, fix, what)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingError(f"{path}: expected to make {what}, got {error}", fix) from error


def check_file(path: Path, fix: str = _CHOOSE) -> None:
    """See that a file could be written at this path: before the work that needs it. See `check_folder`."""
    if os.path.isdir(path):
        raise ConfigError(f"{path}: expected the name of a file, got a folder; give a name in it: {path / 'result'}")
    check_folder(path.parent, fix, "the folder around it")


#: What to do about a file that cannot be read.
_MEND = "it is cut short or another file: delete it and ask again, or take another folder"
