"""Reader of the published CIFAR-10 batches: python pickles or binary files, in a folder or a .tar.gz."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

import numpy as np

from danskin.data.dataset import Arrays
from danskin.data.files import broken
from danskin.data.unpickle import unpickle_arrays
from danskin.errors import InputError, MissingError

ROWS = 10_000  # images per batch
PIXELS = 3 * 32 * 32
_PICKLES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
_BINARIES = tuple(f"{name}.bin" for name in _PICKLES)
_FORMS = (  # file names, archive, the folder inside it
    (_PICKLES, "cifar-10-python.tar.gz"),
    (_BINARIES, "cifar-10-binary.tar.gz"),
)


def read(folder: Path) -> Arrays | None:
    """The six batches of a folder, or of a published archive in it; None where there is neither.

    Raises:
        MissingError: some of the batches are there, others are not.
        InputError: a broken or suspicious file.
    """
    for names, archive in _FORMS:
        absent = [name for name in names if not (folder / name).is_file()]
        if not absent:
            return _arrays({name: (folder / name).read_bytes() for name in names}, names, folder)
        if (folder / archive).is_file():
            return _arrays(_read_archive(folder / archive, names), names, folder / archive)
        if len(absent) < len(names):
            raise MissingError(f"{folder} holds CIFAR-10 batches but not {absent[0]}")
    return None


def _arrays(files: dict[str, bytes], names: tuple[str, ...], where: Path) -> Arrays:
    parse = parse_binary if names == _BINARIES else parse_pickle
    batches = [parse(files[name], where / name) for name in names]
    x = [b[0] for b in batches]
    y = [b[1] for b in batches]
    return Arrays(np.concatenate(x[:-1]), np.concatenate(y[:-1]), x[-1], y[-1])


def parse_binary(body: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One binary batch: per image a label byte, then 3,072 bytes in order channel, row, column."""
    size = ROWS * (1 + PIXELS)
    if len(body) != size:
        raise broken(path, f"{size} bytes", f"{len(body)} bytes")
    rows = np.frombuffer(body, dtype=np.uint8).reshape(ROWS, 1 + PIXELS)
    return rows[:, 1:].reshape(ROWS, 3, 32, 32), rows[:, 0]


def parse_pickle(body: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One python batch: a pickled dict with `data` (N, 3072) and `labels`; nothing in it is executed."""
    batch = unpickle_arrays(body, path)
    if not isinstance(batch, dict):
        raise broken(path, "a dict with data and labels", type(batch).__name__)
    fields = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
    data, labels = fields.get("data"), fields.get("labels")
    if not isinstance(data, np.ndarray) or data.shape != (ROWS, PIXELS) or data.dtype != np.uint8:
        got = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise broken(path, f"`data` as uint8 of shape {(ROWS, PIXELS)}", got)
    try:
        y = np.asarray(labels, dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise broken(path, "`labels` as integers", type(labels).__name__) from error
    if y.shape != (ROWS,):
        raise broken(path, f"{ROWS} labels", f"shape {y.shape}")
    return data.reshape(ROWS, 3, 32, 32), y


def _read_archive(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The wanted members, read in one pass and never extracted to disk."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = Path(member.name).name
                stream = archive.extractfile(member) if member.isfile() and name in names else None
                if stream is not None:
                    files[name] = stream.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        got = f"{path.stat().st_size} bytes that break off or cannot be read ({error})"
        raise broken(path, "a complete .tar.gz archive", got) from error
    absent = [name for name in names if name not in files]
    if absent:
        raise InputError(f"{path}: expected {', '.join(names)}, got no {absent[0]}; delete the file and fetch it again")
    return files
