"""Reader of the idx format, in which MNIST and Fashion-MNIST were published (plain or gzipped)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from danskin.data.dataset import Arrays
from danskin.data.files import broken
from danskin.errors import MissingError

_PARTS = (  # file name without the ending, number of dimensions
    ("train-images{}idx3-ubyte", 3),
    ("train-labels{}idx1-ubyte", 1),
    ("t10k-images{}idx3-ubyte", 3),
    ("t10k-labels{}idx1-ubyte", 1),
)


def read_idx(path: str | Path, ndim: int) -> np.ndarray:
    """One idx file of unsigned bytes.

    Args:
        path: the file; gzipped where the name ends in .gz.
        ndim: 3 for images, 1 for labels.

    Returns:
        uint8 array of `ndim` dimensions.

    Raises:
        InputError: wrong magic number, or fewer or more bytes than the header promises.
    """
    path = Path(path)
    opened = cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
    with opened as f:
        head = _read(f, 4 + 4 * ndim)
        magic = 0x0800 + ndim
        if len(head) < 4 + 4 * ndim or struct.unpack(">I", head[:4])[0] != magic:
            raise broken(path, f"an idx file starting with 0x{magic:08x}", f"0x{head[:4].hex()} ({len(head)} bytes)")
        shape = struct.unpack(f">{ndim}I", head[4:])
        size = math.prod(shape)
        body = _read(f, size + 1)
    if len(body) != size:
        got = "more" if len(body) > size else f"{len(head) + len(body)} bytes"
        raise broken(path, f"{len(head) + size} bytes (for shape {shape})", got)
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def read(folder: Path) -> Arrays | None:
    """The four idx files of a folder; None where there is none of them.

    Raises:
        MissingError: some of the four are there, others are not.
        InputError: a broken file.
    """
    found = [_locate(folder, name) for name, _ in _PARTS]
    if not any(found):
        return None
    paths = [path for path in found if path]
    if len(paths) < len(found):
        absent = next(name for (name, _), path in zip(_PARTS, found, strict=True) if not path)
        raise MissingError(f"{folder} holds {paths[0].name} but not {absent.format('-')}")
    return Arrays(*(read_idx(path, ndim) for path, (_, ndim) in zip(paths, _PARTS, strict=True)))  # type: ignore[arg-type]


def _locate(folder: Path, name: str) -> Path | None:
    for mark in ("-", "."):
        for ending in ("", ".gz"):
            path = folder / (name.format(mark) + ending)
            if path.is_file():
                return path
    return None


def _read(f: IO[bytes], size: int) -> bytearray:
    """Up to `size` bytes; what could be read where the compressed stream breaks off."""
    body = bytearray()
    while len(body) < size:
        try:
            chunk = f.read(min(size - len(body), 1 << 24))
        except (EOFError, gzip.BadGzipFile, zlib.error):
            break
        if not chunk:
            break
        body += chunk
    return body
