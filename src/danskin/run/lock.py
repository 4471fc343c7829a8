"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from danskin.errors import ConfigError, DanskinWarning
from danskin.files import make_folder

NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if it is not there, against all other processes.

    The lock is the operating system's: it ends with the process, however that ends, so none is ever stale. Processes
    that share a run under torchrun have one lock, held by the main one.

    Raises:
        ConfigError: another process works there, or something else than a folder has this name.
        MissingError: the folder cannot be made or written.
    """
    make_folder(folder)
    stream = _held(folder / NAME)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # while it is held, so that nobody else's file is taken away
            os.unlink(folder / NAME)
        os.close(stream)


def _held(path: Path) -> int:
    """The lock file, open and locked."""
    while True:
        stream = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(stream)
            if _is_at(stream, path):
                os.ftruncate(stream, 0)
                os.write(stream, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return stream
        except BlockingIOError:
            holder = os.read(stream, 200).decode(errors="replace") or "another process"
            os.close(stream)
            raise ConfigError(
                f"{path.parent}: expected a folder that nobody works in, got one that {holder} works in; wait for it, "
                "stop it, or choose another folder"
            ) from None
        except BaseException:
            os.close(stream)
            raise
        os.close(stream)  # its holder has just gone, and the file with it


def _is_at(stream: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _take(stream: int) -> None:
        try:
            os.lseek(stream, 1 << 20, os.SEEK_SET)  # beyond the text, which others may read
            msvcrt.locking(stream, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        finally:
            os.lseek(stream, 0, os.SEEK_SET)
else:
    import fcntl

    def _take(stream: int) -> None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            warnings.warn(
                f"lock: expected a file system with locks, got {error}; see that one process works in the folder",
                DanskinWarning,
                stacklevel=2,
            )
