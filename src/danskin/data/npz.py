"""Reader of numpy archives: x_train, y_train, x_test, y_test and perhaps x_val, y_val; or test examples alone."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path

import numpy as np

from danskin.data.dataset import Arrays, Dataset, from_arrays
from danskin.data.files import broken
from danskin.errors import InputError, MissingError

_KEYS = ("x_train", "y_train", "x_test", "y_test", "x_val", "y_val")
_MEDMNIST = ("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels")
_FILES = {
    "fashion_mnist": ("fashion_mnist.npz", "fashion_mnist_30k.npz"),
    "pneumonia_mnist": ("pneumonia_mnist.npz", "pneumoniamnist.npz"),
}


def names(name: str) -> tuple[str, ...]:
    """File names under which the archive of a named set is looked for."""
    return _FILES.get(name, (f"{name}.npz",))


def read(folder: Path, name: str) -> Arrays | None:
    """The archive of a named set in a folder; None where there is none."""
    for file in names(name):
        if (folder / file).is_file():
            return read_npz(folder / file)
    return None


def read_npz(path: str | Path) -> Arrays:
    """The arrays of one archive: all four, or x_test and y_test (or x and y) alone; pickled objects are refused.

    Raises:
        InputError: truncated, corrupt, or without these arrays.
    """
    path = Path(path)
    try:
        with path.open("rb") as f, np.load(f, allow_pickle=False) as archive:
            keys = _MEDMNIST if _MEDMNIST[2] in archive else _KEYS
            for x, y in (keys[2:4], ("x", "y")):
                if x in archive and y in archive and keys[0] not in archive and keys[1] not in archive:
                    return Arrays.only_test(archive[x], archive[y])
            absent = [key for key in keys[:4] if key not in archive]
            if absent:
                held = ", ".join(archive.files)
                raise InputError(
                    f"{path}: expected arrays {', '.join(_KEYS[:4])}, got {held or 'none'}; "
                    f"store {', '.join(absent)} too"
                )
            return Arrays(*(archive[key] if key in archive else None for key in keys))  # type: ignore[arg-type]
    except InputError:
        raise
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        got = f"{path.stat().st_size} bytes that cannot be read ({error})"
        raise broken(path, "a complete .npz archive of plain arrays", got) from error


def load_npz(path: str | Path) -> Dataset:
    """A data set of your own from an archive: images (uint8, or floating in [0, 1]) or floating vectors, and labels.

    Raises:
        MissingError: no such file.
        InputError: not such an archive.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingError(f"{path}: expected an .npz file, got nothing", "check the path")
    return from_arrays(f"npz:{path.name}", read_npz(path))
