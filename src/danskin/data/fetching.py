"""Fetching the published sets from OpenML, on request only, and storing them as checked .npz files."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from danskin.data.dataset import Arrays
from danskin.data.files import data_folder
from danskin.data.registry import DATASETS, Check, DatasetInfo
from danskin.errors import InputError, MissingError, suggest


def download(name: str, folder: str | Path | None = None) -> Path:
    """Fetch a set from OpenML (through scikit-learn), check it, and store it as `<name>.npz`.

    Args:
        name: "mnist", "fashion_mnist" or "cifar10".
        folder: where to store it; default as for `load`.

    Returns:
        The file, complete: it appears under its name only when all has been written.

    Raises:
        InputError: another name, or what came is not the published set.
        MissingError: no network, or scikit-learn is not installed.
    """
    info = DATASETS.get(name)
    if info is None or info.openml is None or info.check is None:
        known = [k for k, i in DATASETS.items() if i.openml is not None]
        raise InputError(f"download: expected a set that OpenML holds, got {name!r}; {suggest(name, known)}")
    try:
        data, target = _fetch(info.openml)
    except ImportError as error:
        raise MissingError("downloading needs scikit-learn", "pip install 'danskin[data]'") from error
    except (OSError, ValueError) as error:
        raise MissingError(
            f"{name} could not be fetched from openml.org ({error})",
            f"check the network and try again, or put its files into {data_folder(folder)} by hand",
        ) from error
    arrays = _canonical(info, info.check, data, target)
    return _store(arrays, data_folder(folder) / f"{name}.npz")


def _fetch(data_id: int) -> tuple[Any, Any]:
    """Rows of pixels and their labels from OpenML; pandas, where there is one, only reads them faster."""
    from sklearn.datasets import fetch_openml

    parser = "pandas" if importlib.util.find_spec("pandas") else "liac-arff"
    bunch = fetch_openml(data_id=data_id, as_frame=False, parser=parser, cache=False)
    return bunch.data, bunch.target


def _canonical(info: DatasetInfo, check: Check, data: Any, target: Any) -> Arrays:
    """Rows (train first, then test) as uint8 images in the published order, checked against known numbers."""
    rows, labels = np.asarray(data), np.asarray(target).astype(np.int64)
    train, test = check.shape
    expected = (train + test, int(np.prod(info.shape)))
    if rows.shape != expected or labels.shape != expected[:1]:
        raise _unlike(info, f"{expected} pixels", f"{rows.shape} with labels {labels.shape}")
    x = rows.astype(np.uint8).reshape(-1, *info.shape)
    arrays = Arrays(x[:train], labels[:train].astype(np.uint8), x[train:], labels[train:].astype(np.uint8))
    for what, wanted, found in (
        ("first training labels", check.y_train, tuple(arrays.y_train[:10].tolist())),
        ("first test labels", check.y_test, tuple(arrays.y_test[:10].tolist())),
        ("pixel sum (train)", check.train_sum, int(arrays.x_train[: check.train_rows].sum(dtype=np.uint64))),
        ("pixel sum (test)", check.test_sum, int(arrays.x_test.sum(dtype=np.uint64))),
    ):
        if wanted != found:
            raise _unlike(info, f"{what} {wanted}", str(found))
    return arrays


def _unlike(info: DatasetInfo, expected: str, got: str) -> InputError:
    fix = "OpenML's copy differs from the published set: use the published files"
    return InputError(f"{info.name} from OpenML (id {info.openml}): expected {expected}, got {got}; {fix}")


def _store(arrays: Arrays, path: Path) -> Path:
    """Written beside its place and then moved there, so that no half file is ever found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as f:
            np.savez_compressed(f, **{k: v for k, v in arrays._asdict().items() if v is not None})
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
