"""Reader of image folders: train/<class>/*.png and test/<class>/*.png, or test examples alone, through PIL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from danskin.data.dataset import Arrays, Dataset, from_arrays
from danskin.data.files import broken
from danskin.errors import InputError, MissingError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm")


def load_folder(path: str | Path) -> Dataset:
    """A data set of your own from a folder; classes are the sorted names of the sub-folders of train.

    Without train the images of test, or of the class folders themselves, are test examples to judge models on, and the
    classes are the sorted names of those folders.

    Args:
        path: folder with `train/<class>/` and `test/<class>/`, with `test/<class>/`, or with `<class>/`; all images of
            one size.

    Raises:
        MissingError: no such folders, or Pillow is not installed.
        InputError: images of different sizes, unreadable images, class folders without images, test classes that train
            lacks.
    """
    path = Path(path).expanduser()
    name = f"folder:{path.resolve().name}"
    if not (path / "train").is_dir():
        where = path / "test" if (path / "test").is_dir() else path
        classes = _class_names(where) if where.is_dir() else ()
        if not any(_image_files(where / each) for each in classes):
            raise MissingError(f"{path / 'train'}: expected a folder of class folders, got nothing", "check the path")
        _check_filled(where, classes)
        return from_arrays(name, Arrays.only_test(*_read_part(where, _numbered(classes), None)), classes)
    if not (path / "test").is_dir():
        raise MissingError(f"{path / 'test'}: expected a folder of class folders, got nothing", "check the path")
    classes = _class_names(path / "train")
    _check_filled(path / "train", classes)
    return from_arrays(name, _read_parts(path, _numbered(classes)), classes)


def _numbered(classes: tuple[str, ...]) -> dict[str, int]:
    return {name: k for k, name in enumerate(classes)}


def _check_filled(path: Path, classes: tuple[str, ...]) -> None:
    """Every class folder holds images: an empty one would shift the numbers of those after it, or add a class."""
    for name in classes:
        if not _image_files(path / name):
            raise InputError(
                f"{path / name}: expected images of the class {name!r}, got none; put some there, or delete the folder "
                "if it is no class"
            )


def read(folder: Path, classes: tuple[str, ...]) -> Arrays | None:
    """The image folder of a named set, class folders called by name or by number; None if there is none.

    Raises:
        MissingError: the class folders are of another set.
    """
    if not ((folder / "train").is_dir() and (folder / "test").is_dir()):
        return None
    held = set(_class_names(folder / "train"))
    for names in (classes, [str(k) for k in range(len(classes))]):
        if held == set(names):
            return _read_parts(folder, {name: k for k, name in enumerate(names)})
    raise MissingError(f"{folder / 'train'} holds other classes ({', '.join(sorted(held)[:4]) or 'none'}, ...)")


def _read_parts(path: Path, label: dict[str, int]) -> Arrays:
    train = _read_part(path / "train", label, None)
    return Arrays(*train, *_read_part(path / "test", label, (*train[0].shape[2:], train[0].shape[1])))


def _read_part(path: Path, label: dict[str, int], size: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    """(images (N, C, H, W), labels) of a folder of class folders; all of this (height, width, channels), if given."""
    images, labels = [], []
    for name in _class_names(path):
        if name not in label:
            raise InputError(f"{path / name}: expected a class of train, got {name!r}; rename it")
        for file in _image_files(path / name):
            image = read_image(file)
            size = size or image.shape
            if image.shape != size:
                raise InputError(
                    f"{file}: expected height, width, channels {size} as before, got {image.shape}; "
                    "bring all images to one size and mode"
                )
            images.append(image)
            labels.append(label[name])
    if not images:
        raise InputError(f"{path}: expected at least one image, got none; put images into its class folders")
    return _channels_first(np.stack(images)), np.array(labels, dtype=np.int64)


def _image_files(path: Path) -> list[Path]:
    """The images of a class folder in order; hidden files, such as those of a Mac's archives, are none."""
    return sorted(f for f in path.iterdir() if f.suffix.lower() in ENDINGS and not f.name.startswith("."))


def read_image(file: Path) -> np.ndarray:
    """One image as uint8 (height, width, 1 or 3): grey stays grey, all else becomes RGB.

    Raises:
        MissingError: Pillow is not installed.
        InputError: not a readable 8-bit image.
    """
    image = _pil()
    try:
        with image.open(file) as opened:
            if opened.mode.startswith(("I", "F")):
                raise InputError(f"{file}: expected 8 bits per channel, got mode {opened.mode}; convert it to 8 bits")
            mode = "L" if opened.mode in ("1", "L") else "RGB"
            pixels = np.asarray(opened if opened.mode == mode else opened.convert(mode))
    except image.DecompressionBombError as error:
        told = str(error).split(",")[0]
        raise InputError(f"{file}: expected an image, got one too large to hold ({told}); make it smaller") from error
    except (OSError, SyntaxError, EOFError) as error:
        got = f"{file.stat().st_size} bytes that cannot be decoded ({error})"
        raise broken(file, "a complete image", got) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _pil() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingError("reading images needs Pillow", "pip install 'danskin[data]'") from error
    return Image


def _channels_first(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.transpose(0, 3, 1, 2))


def _class_names(path: Path) -> tuple[str, ...]:
    """Sorted names of the sub-folders; not the hidden ones, and not those of tools, such as __MACOSX."""
    return tuple(sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))))
