"""What an ONNX file wants for an input, and how images (N, C, H, W) become that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from danskin.errors import ConfigError, ModelError
from danskin.foreign.onnx_graph import Graph, Size, Value

LAYOUTS = ("auto", "nchw", "nhwc")
_CHANNELS = (1, 3, 4)
_GUESS = (32, 32, 48)  # pixels along a side that is free, at three batch sizes


@dataclass(frozen=True)
class InputForm:
    """The input of a file.

    Args:
        declared: its shape there; None where a size is free.
        batch: the batch size it was exported for; None for any, 0 where the input has no dimension for it.
        sizes: of one example, as the file wants it; None where free.
        last: whether channels come last, or, for an example without height and width, come last before flattening.
        image: (C, H, W) of the images where it is known.
    """

    declared: tuple[int | None, ...]
    batch: int | None
    sizes: tuple[int | None, ...]
    last: bool
    image: tuple[int, ...] | None = None

    @classmethod
    def of(cls, path: Path, declared: tuple[int | None, ...], layout: str, image: Sequence[int] | None) -> InputForm:
        """Read it from the declared shape, and from that of the images where it is known.

        Raises:
            ModelError: images of this shape are not what the file takes.
            ConfigError: a layout that cannot be meant.
        """
        image = None if image is None else tuple(image)
        if not declared:
            raise ModelError(f"{path}: expected an input with a shape, got a single number; export it again")
        without = len(declared) == 1 or (len(declared) == 2 and declared[1] == 1)
        if image is not None and None not in declared and declared[0] != 1:
            fits = math.prod(n or 1 for n in declared[1:]) == math.prod(image)
            without = not fits and math.prod(n or 1 for n in declared) == math.prod(image)
        batch, sizes = (0, declared) if without else (declared[0], declared[1:])
        last = layout == "nhwc" or (layout == "auto" and _channels_last(sizes, image))
        if last and len(sizes) != 3 and image is None:
            raise ConfigError(
                f"layout: expected nhwc only for images, got it for inputs of shape {shown(declared)}; say what "
                "images: input_shape=[3, 32, 32]"
            )
        if image is not None:
            wanted = (*image[1:], image[0]) if last and len(image) == 3 and len(sizes) == 3 else image
            if len(wanted) == len(sizes) and not _flat(sizes):
                if any(n is not None and n != m for n, m in zip(sizes, wanted, strict=True)):
                    told = f"{shown(sizes)}{', channels last' if last else ''}"
                    raise ModelError(
                        f"{path}: expected images that the network takes, of shape {told}, got images of shape "
                        f"{shown(image)}; give such data, or say layout=nchw or nhwc"
                    )
                sizes = wanted
        return cls(declared, batch, sizes, last, image)

    @property
    def flat(self) -> bool:
        """Whether an example is a list of numbers, whatever shape the images have."""
        return _flat(self.sizes)

    @property
    def key(self) -> str:
        """What tells it from another reading of the same file; "" for the plain one."""
        return "nhwc" if self.last else ""

    def notes(self) -> list[str]:
        """What the user should know."""
        told = ["channels are moved to the end (layout nhwc)"] if self.last else []
        if self.flat:
            told.append(f"images are laid out row by row as {shown(self.sizes)}")
        return told

    def samples(self, n: int) -> Tensor:
        """Random images of [0, 1]."""
        return torch.rand(self._shape(n, 0), generator=torch.Generator().manual_seed(0))

    def arrange(self, g: Graph) -> Value:
        """The file's input, in the graph, made from images."""
        x = g.take(self._shape(n, k) for k, n in enumerate(g.batches))
        rank = x.rank
        if self.last and rank == 4:
            x = g.call(torch.permute, x, (0, 2, 3, 1))
        if self.flat and (rank > 2 or self.image is None):
            x = g.call(torch.flatten, x, 1)
        fixed = [Size((n,) * len(g.batches)) for n in self.sizes if n is not None]
        if self.batch == 0:
            return g.call(torch.reshape, x, fixed)
        return g.call(torch.reshape, x, [x.size(0), *fixed]) if self.flat and len(self.sizes) > 1 else x

    def arranged(self, x: Tensor) -> Tensor:
        """The file's input made from images, as `arrange` does it."""
        if self.last and x.ndim == 4:
            x = x.permute(0, 2, 3, 1)
        if self.batch == 0:
            return x.reshape([n or 1 for n in self.sizes])
        return x.reshape([len(x), *(n or 1 for n in self.sizes)]) if self.flat else x

    def _shape(self, n: int, k: int) -> tuple[int, ...]:
        """Of n images; sizes that nobody knows are guessed, another time differently."""
        if self.image is not None:
            return (n, *self.image)
        sizes = (self.sizes[-1], *self.sizes[:-1]) if self.last and len(self.sizes) == 3 else self.sizes
        free = [d for d, size in enumerate(sizes) if size is None]
        if any(d == 0 for d in free) or (free and len(sizes) != 3):
            raise ConfigError(
                f"input_shape: expected the shape of an example, for the file leaves it free "
                f"{shown(self.declared)}, got none; give it, for example input_shape=[3, 32, 32]"
            )
        return (n, *(_GUESS[k] if size is None else size for size in sizes))


def _flat(sizes: tuple[int | None, ...]) -> bool:
    return None not in sizes and sum(n != 1 for n in sizes) <= 1


def _channels_last(sizes: tuple[int | None, ...], image: tuple[int, ...] | None) -> bool:
    """Whether the declared sizes of an example are (H, W, C)."""
    if len(sizes) != 3 or _flat(sizes):
        return False
    if image is not None and len(image) == 3:
        first, last = (
            all(n is None or n == m for n, m in zip(sizes, wanted, strict=True))
            for wanted in (image, (*image[1:], image[0]))
        )
        if first != last:
            return last
    return sizes[2] in _CHANNELS and sizes[0] not in _CHANNELS


def shown(shape: tuple[int | None, ...]) -> str:
    """A shape for people."""
    return f"({', '.join('any' if n is None else str(n) for n in shape)})"
