"""A data set in memory: four tensors, class names, and a digest that says what exactly was read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from danskin.data.registry import DATASETS
from danskin.errors import InputError
from danskin.inputs import class_numbers, in_box


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (or vectors) and labels, all in memory.

    Args:
        name: name in `DATASETS`, or what `load` was given.
        x_train: training images, uint8 or floating in [0, 1], of shape (N, C, H, W), or vectors, floating (N, d).
        y_train: training labels, int64 of shape (N,).
        x_test: test images or vectors.
        y_test: test labels.
        classes: class names; label k means `classes[k]`.
        x_val: validation images, for the sets that ship some.
        y_val: validation labels.
        test_only: there is nothing to train on: the training part is empty.

    Raises:
        InputError: empty parts, shapes or dtypes that do not fit, labels without a class.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]
    x_val: Tensor | None = None
    y_val: Tensor | None = None
    test_only: bool = False

    def __post_init__(self) -> None:
        if not self.test_only:
            _check_part(self, "train", self.x_train, self.y_train)
        _check_part(self, "test", self.x_test, self.y_test)
        if (self.x_val is None) != (self.y_val is None):
            raise InputError(f"{self.name}: expected both x_val and y_val or neither, got one; give both")
        if self.x_val is not None and self.y_val is not None:
            _check_part(self, "val", self.x_val, self.y_val)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one example: (C, H, W) for images, (d,) for vectors."""
        return tuple(self.x_train.shape[1:])

    @cached_property
    def sha256(self) -> str:
        """Digest over the bytes of x_train, y_train, x_test, y_test (computed once, on first use)."""
        return _digest(self.x_train, self.y_train, self.x_test, self.y_test)

    @cached_property
    def sha256_test(self) -> str:
        """Digest over the bytes of x_test, y_test: two results on the same test set share it."""
        return _digest(self.x_test, self.y_test)

    @property
    def canonical(self) -> bool | None:
        """Whether this is, bit for bit, the complete published set; None where that is not known."""
        info = DATASETS.get(self.name)
        if info is None:
            return None
        if info.check is not None and info.check.shape != (len(self.y_train), len(self.y_test)):
            return False
        return None if info.sha256 is None else self.sha256 == info.sha256

    @property
    def canonical_test(self) -> bool | None:
        """Whether the test part is, bit for bit, the published one; None where no digest is known."""
        info = DATASETS.get(self.name)
        return None if info is None or info.sha256_test is None else self.sha256_test == info.sha256_test

    def limit(self, train: int | None = None, test: int | None = None) -> Dataset:
        """The first `train` training and the first `test` test examples (all where None or beyond the end).

        Raises:
            InputError: a limit below 1.
        """
        for part, n in (("train", train), ("test", test)):
            if n is not None and n < 1:
                raise InputError(f"limit({part}=...): expected at least 1, got {n}; leave it out for all")
        return replace(
            self,
            x_train=self.x_train[:train],
            y_train=self.y_train[:train],
            x_test=self.x_test[:test],
            y_test=self.y_test[:test],
        )

    def split(self, validation: int, seed: int) -> tuple[Dataset, Tensor, Tensor]:
        """Hold out a seeded random subset of the training examples.

        Args:
            validation: how many to hold out, between 1 and one less than there are.
            seed: which ones.

        Returns:
            The set without them (its remaining examples in their old order), x_val, y_val.

        Raises:
            InputError: `validation` is below 1 or leaves nothing to train on.
        """
        n = len(self.y_train)
        self.check_trainable()
        if not 1 <= validation < n:
            raise InputError(
                f"validation: expected between 1 and {n - 1} of {self.name}'s {n} training examples, "
                f"got {validation}; hold out fewer"
            )
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        held, kept = order[:validation].sort().values, order[validation:].sort().values
        rest = replace(self, x_train=self.x_train[kept], y_train=self.y_train[kept])
        return rest, self.x_train[held], self.y_train[held]

    def check_trainable(self) -> None:
        """There are training examples.

        Raises:
            InputError: there are test examples only.
        """
        if self.test_only:
            raise InputError(
                f"{self.name}: expected training examples, got test examples only; add x_train and y_train (.npz) "
                "or train/<class> (folder)"
            )

    def __repr__(self) -> str:
        sizes = f"{len(self.y_train)} train, {len(self.y_test)} test"
        return f"Dataset({self.name}: {sizes}, {self.image_shape}, {len(self.classes)} classes)"


class Arrays(NamedTuple):
    """What a reader returns: numpy arrays as they lay on disk, images (N,H,W), (N,H,W,C) or (N,C,H,W)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    x_val: np.ndarray | None = None
    y_val: np.ndarray | None = None
    test_only: bool = False

    @staticmethod
    def only_test(x: np.ndarray, y: np.ndarray) -> Arrays:
        """Test examples without any to train on."""
        return Arrays(x[:0], y[:0], x, y, test_only=True)


def from_arrays(name: str, arrays: Arrays, classes: tuple[str, ...] | None = None) -> Dataset:
    """A `Dataset` from numpy arrays; channels go first, labels become int64.

    Args:
        name: name of the set.
        arrays: images or vectors, and integer labels.
        classes: class names; default "0", "1", … up to the largest label.

    Raises:
        InputError: dtypes or shapes that are neither images nor vectors.
    """
    if arrays.x_train.dtype.kind != arrays.x_test.dtype.kind and arrays.x_test.ndim > 2:
        raise InputError(
            f"{name}: expected one kind of images, got {arrays.x_train.dtype} to train on and {arrays.x_test.dtype} to "
            "test on; store (255 * x).round().astype('uint8')"
        )
    parts = ("test",) if arrays.test_only else ("train", "test")
    x = [_examples(f"{name} x_{part}", getattr(arrays, f"x_{part}")) for part in parts]
    y = [_labels(f"{name} y_{part}", getattr(arrays, f"y_{part}")) for part in parts]
    if arrays.test_only:
        x, y = [x[0][:0], *x], [y[0][:0], *y]
    val: tuple[Tensor | None, Tensor | None] = (None, None)
    if arrays.x_val is not None and arrays.y_val is not None:
        val = _examples(f"{name} x_val", arrays.x_val), _labels(f"{name} y_val", arrays.y_val)
    if classes is None:
        top = max(int(t.max()) if len(t) else 0 for t in y)
        classes = tuple(str(k) for k in range(top + 1))
    return Dataset(name, x[0], y[0], x[1], y[1], classes, *val, test_only=arrays.test_only)


def to_float(x: Tensor) -> Tensor:
    """Examples in natural units: uint8 becomes float32 in [0, 1], floating numbers stay as they are.

    Args:
        x: uint8 or floating, any shape.

    Raises:
        InputError: another dtype.
    """
    return in_box(x, bytes_known=True)


def _digest(*tensors: Tensor) -> str:
    total = hashlib.sha256()
    for t in tensors:
        total.update(t.detach().cpu().contiguous().numpy().data)
    return total.hexdigest()


_SLACK = 1e-6  # float images that left [0, 1] by rounding are not refused


def _check_part(data: Dataset, part: str, x: Tensor, y: Tensor) -> None:
    what = f"{data.name} {part}"
    if len(x) == 0 or len(y) == 0:
        raise InputError(f"{what}: expected at least one example, got none; check the source")
    if len(x) != len(y):
        raise InputError(f"{what}: expected one label per example, got {len(x)} and {len(y)} labels; check the source")
    images = x.dim() == 4 and (x.dtype == torch.uint8 or x.is_floating_point())
    if not (images or (x.is_floating_point() and x.dim() == 2)):
        raise InputError(
            f"{what}: expected uint8 images (N, C, H, W), floating ones, or floating vectors (N, d), "
            f"got {x.dtype} of shape {tuple(x.shape)}; convert it first"
        )
    if images and x.is_floating_point() and not bool(((x >= -_SLACK) & (x <= 1 + _SLACK)).all()):
        low, high = (float(v) for v in x.aminmax())
        raise InputError(
            f"{what}: expected uint8 images, or floating ones in [0, 1], got {x.dtype} from {low:.4g} to {high:.4g}; "
            "divide pixels by 255, and leave normalisation to the model's first layer"
        )
    if x.shape[1:] != data.x_train.shape[1:]:
        raise InputError(
            f"{what}: expected examples of shape {data.image_shape} as in train, got {tuple(x.shape[1:])}; "
            "bring all to one size"
        )
    if y.dtype != torch.int64 or y.dim() != 1:
        raise InputError(f"{what} labels: expected int64 (N,), got {y.dtype} {tuple(y.shape)}; convert them")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= len(data.classes):
        raise InputError(
            f"{what} labels: expected 0 to {len(data.classes) - 1}, got {low} to {high}; "
            "give a name in `classes` for each label"
        )


def _examples(what: str, a: np.ndarray) -> Tensor:
    image = a.ndim in (3, 4) and (a.dtype == np.uint8 or a.dtype.kind == "f")
    if not image and not (a.dtype.kind == "f" and a.ndim == 2):
        raise InputError(
            f"{what}: expected images (N, H, W[, C]), uint8 or floating in [0, 1], or floating vectors (N, d), "
            f"got {a.dtype} of shape {a.shape}; for images in [0, 1] store (255 * x).round().astype('uint8')"
        )
    if a.dtype == np.uint8 and a.size and a.max() == 1:
        raise InputError(
            f"{what}: expected bytes from 0 to 255, got none but 0 and 1; store 255 * x, or x.astype('float32')"
        )
    if image:
        a = a[:, None] if a.ndim == 3 else _channels_first(what, a)
    if a.dtype.kind == "f":
        a = a.astype(np.float32)
    return torch.from_numpy(np.require(a, requirements=["C", "W"]))


def _channels_first(what: str, a: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W), where it is plain which dimension holds the channels."""
    first, height, last = a.shape[1:]
    if first in (1, 3):
        return a
    if last in (1, 3):
        return a.transpose(0, 3, 1, 2)
    if last in (2, 4) and first != last:
        kind = "RGBA" if last == 4 else "grey and alpha"
        raise InputError(
            f"{what}: expected 1 or 3 channels, got shape {a.shape}, {kind} by its looks; drop the last channel: "
            f"x[..., :{last - 1}]"
        )
    if first > min(height, last):
        raise InputError(
            f"{what}: expected images (N, C, H, W) or (N, H, W, 1 or 3), got shape {a.shape}, where it is not plain "
            "which dimension holds the channels; store them channels first, x.transpose(0, 3, 1, 2)"
        )
    return a


def _labels(what: str, a: np.ndarray) -> Tensor:
    if a.ndim == 2 and a.shape[1] == 1:
        a = a[:, 0]
    return class_numbers(a, len(a), what, "integers")
