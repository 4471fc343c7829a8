"""Reader of CIFAR-10 contact sheets: 10,000 images as one lossless WebP of 100 x 100 tiles.

`cifar10_test.webp`, `cifar10_train_1.webp` to `cifar10_train_5.webp` (sheet k is the canonical batch k; any
of the five may be left out) and `cifar10_labels.npz` with y_train (all 50,000) and y_test.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from danskin.data.dataset import Arrays
from danskin.data.files import broken
from danskin.data.folder import read_image
from danskin.errors import MissingError

GRID = 100  # tiles per row and per column
SIDE = 32
SUMS = {  # of all pixels of a sheet
    "cifar10_train_1.webp": 3_718_380_578,
    "cifar10_train_2.webp": 3_712_041_194,
    "cifar10_train_3.webp": 3_690_028_756,
    "cifar10_train_4.webp": 3_708_459_093,
    "cifar10_train_5.webp": 3_711_772_382,
    "cifar10_test.webp": 3_733_375_634,
}


def read(folder: Path) -> Arrays | None:
    """The sheets of a folder: the training sheets that are there, in order, and the test sheet.

    Raises:
        MissingError: sheets without the test sheet, without any training sheet, or without labels.
        InputError: a broken sheet.
    """
    present = [k for k in range(1, 6) if (folder / f"cifar10_train_{k}.webp").is_file()]
    test, labels = folder / "cifar10_test.webp", folder / "cifar10_labels.npz"
    if not (present or test.is_file()):
        return None
    wanted = (
        ("cifar10_train_1.webp", bool(present)),
        (test.name, test.is_file()),
        (labels.name, labels.is_file()),
    )
    absent = [name for name, there in wanted if not there]
    if absent:
        raise MissingError(f"{folder} holds CIFAR-10 sheets but not {absent[0]}")
    y_train, y_test = _read_labels(labels)
    n = GRID * GRID
    x = np.empty(((len(present) + 1) * n, 3, SIDE, SIDE), dtype=np.uint8)
    paths = [folder / f"cifar10_train_{k}.webp" for k in present] + [test]
    with ThreadPoolExecutor(max_workers=min(4, len(paths))) as pool:  # the decoder runs outside the GIL
        list(pool.map(lambda i: _read_sheet(paths[i], x[i * n : (i + 1) * n]), range(len(paths))))
    y = np.concatenate([y_train[(k - 1) * n : k * n] for k in present])
    return Arrays(x[:-n], y, x[-n:], y_test)


def _read_sheet(path: Path, out: np.ndarray) -> None:
    sheet = read_image(path)
    side = GRID * SIDE
    if sheet.shape != (side, side, 3):
        raise broken(path, f"{side} x {side} RGB pixels", f"shape {sheet.shape}")
    tiles = sheet.reshape(GRID, SIDE, GRID, SIDE, 3).transpose(0, 2, 4, 1, 3)
    out.reshape(tiles.shape)[...] = tiles
    total = int(out.sum(dtype=np.uint64))
    if total != SUMS[path.name]:
        raise broken(path, f"pixels that sum to {SUMS[path.name]}", str(total))


def _read_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    n = GRID * GRID
    try:
        with path.open("rb") as f, np.load(f, allow_pickle=False) as archive:
            y_train, y_test = archive["y_train"], archive["y_test"]
    except Exception as error:  # a damaged archive can fail in any layer: zip, lzma, numpy
        raise broken(path, "an archive with y_train and y_test", f"{path.stat().st_size} bytes ({error})") from error
    if y_train.shape != (5 * n,) or y_test.shape != (n,):
        raise broken(path, f"{5 * n} and {n} labels", f"shapes {y_train.shape} and {y_test.shape}")
    return y_train, y_test
