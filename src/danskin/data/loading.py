"""`load`: a data set by name, from whichever of its published forms is on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from danskin.data import cifar, fetching, idx, npz, sheets
from danskin.data import folder as image_folder
from danskin.data.dataset import Arrays, Dataset, from_arrays
from danskin.data.digits import digits
from danskin.data.files import data_folder
from danskin.data.npz import load_npz
from danskin.data.registry import DATASETS, DatasetInfo
from danskin.data.toys import TOYS, toy
from danskin.errors import InputError, MissingError, suggest

Reader = Callable[[Path], Arrays | None]

_SUBFOLDERS = {
    "mnist": ("mnist", "mnist/raw", "MNIST", "MNIST/raw"),
    "fashion_mnist": (
        "fashion_mnist",
        "fashion_mnist/raw",
        "FashionMNIST",
        "FashionMNIST/raw",
        "fashion-mnist",
    ),
    "cifar10": (
        *("cifar10", "cifar10/cifar-10-batches-py", "cifar10/cifar-10-batches-bin"),
        *("cifar-10-batches-py", "cifar-10-batches-bin"),
    ),
}
_FORMS = {
    "mnist": "train-images-idx3-ubyte[.gz] and the other three idx files",
    "fashion_mnist": "train-images-idx3-ubyte[.gz] and the other three idx files",
    "cifar10": "data_batch_1..5 and test_batch (pickles or .bin), cifar-10-python.tar.gz, "
    "cifar-10-binary.tar.gz, cifar10_train_1..5.webp with cifar10_test.webp and cifar10_labels.npz",
}


def load(name: str, folder: str | Path | None = None, *, download: bool = False) -> Dataset:
    """A data set, read into memory.

    Args:
        name: a name in `DATASETS`; or "folder:/path" for an image folder of your own
            (train/<class>/*.png, test/<class>/*.png); or "npz:/path/file.npz" for an archive of your own; the path of
            an archive or of a folder alone will do.
        folder: where the files are; default $DANSKIN_DATA, else danskin in the user's cache.
            Its usual sub-folders are searched too.
        download: fetch a set that is not found.

    Raises:
        InputError: unknown name, broken files, or files of another set.
        MissingError: nothing found; the text lists the places and the command that brings the set.
    """
    name = spelled(name)
    for prefix, read in (("folder:", image_folder.load_folder), ("npz:", load_npz)):
        if name.startswith(prefix):
            return read(name.removeprefix(prefix))
    if name == "digits":
        return digits()
    if name in TOYS:
        return toy(name)
    info = DATASETS.get(name)
    if info is None:
        raise InputError(f"data set: expected a known name, got {name!r}; {suggest(name, DATASETS)}")
    try:
        return _find(info, folder)
    except MissingError:
        if not download:
            raise
    fetching.download(name, folder)
    return _find(info, folder)


def spelled(name: str) -> str:
    """The name of a data set in full: "npz:..." for the path of an archive, "folder:..." for that of a folder.

    >>> spelled("own/data.npz"), spelled("cifar10")
    ('npz:own/data.npz', 'cifar10')
    """
    if name in DATASETS or ":" in name:
        return name
    if name.lower().endswith(".npz"):
        return f"npz:{name}"
    return f"folder:{name}" if Path(name).expanduser().is_dir() else name


def _find(info: DatasetInfo, folder: str | Path | None) -> Dataset:
    """The first form found: the published files first, then archives, then images."""
    root = data_folder(folder)
    places = [root, *(root / sub for sub in _SUBFOLDERS.get(info.name, (info.name,)))]
    notes: list[str] = []
    for read in _readers(info):
        for place in places:
            try:
                arrays = read(place)
                if arrays is not None:
                    return _dataset(info, arrays, place)
            except _OtherSet as note:
                notes.append(str(note))
            except MissingError as note:
                if note.command:  # a package is missing, not a file
                    raise
                notes.append(str(note))
    raise _nothing_found(info, folder, places, notes)


def _readers(info: DatasetInfo) -> list[Reader]:
    forms: list[Reader] = [lambda place: npz.read(place, info.name)]
    if info.name in ("mnist", "fashion_mnist"):
        forms.insert(0, lambda place: _not_of_another_set(info, idx.read(place), place))
    if info.name == "cifar10":
        forms.insert(0, cifar.read)
        forms.append(sheets.read)
    forms.append(lambda place: image_folder.read(place, info.classes))
    return forms


class _OtherSet(Exception):
    """The files here belong to another set that uses the same file names."""


def _not_of_another_set(info: DatasetInfo, arrays: Arrays | None, place: Path) -> Arrays | None:
    """MNIST and Fashion-MNIST share their file names; their first labels tell them apart."""
    if arrays is not None:
        first = tuple(arrays.y_train[:10].tolist())
        for other in DATASETS.values():
            if other.name != info.name and other.check is not None and other.check.y_train == first:
                raise _OtherSet(f"{place} holds {other.name}, not {info.name}")
    return arrays


def _dataset(info: DatasetInfo, arrays: Arrays, place: Path) -> Dataset:
    data = from_arrays(info.name, arrays, info.classes)
    if data.image_shape != info.shape:
        raise InputError(
            f"{info.name} in {place}: expected images of shape {info.shape}, got {data.image_shape}; "
            "read files of your own with load('npz:...') or load('folder:...')"
        )
    return data


def _nothing_found(info: DatasetInfo, folder: str | Path | None, places: list[Path], notes: list[str]) -> MissingError:
    forms = [*npz.names(info.name), "train/<class>/*.png with test/<class>/*.png"]
    if info.name in _FORMS:
        forms.insert(0, _FORMS[info.name])
    text = f"{info.name} was not found; looked in {', '.join(str(p) for p in places)} for {'; '.join(forms)}"
    if notes:
        text += f" ({'; '.join(notes)})"
    if info.openml is None:
        return MissingError(text, f"fetch {npz.names(info.name)[-1]} from https://medmnist.com into {places[0]}")
    where = "" if folder is None else f", {str(folder)!r}"
    call = f"danskin.data.download({info.name!r}{where})"
    return MissingError(text, f'python -c "import danskin.data; {call}"')
