"""Rows that are zero outside a window of an image: what a neuron of a convolution sees of the layers before.

A neuron at (i, j) of a layer depends on a window of each earlier image, at i * step + offset and of a size that
grows with the kernels. Carrying the window backward, not the whole image, is the same bound for a fraction of
the work. Entries that fall into the padding of an image belong to no neuron and count as 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from danskin.lipschitz.operations import Conv, Pair


@dataclass(frozen=True, eq=False)
class Window:
    """Coefficients on a window for each row.

    Args:
        a: (rows, channels, height, width).
        place: (rows, 2) int64, where the neuron stands in its own layer.
        offset: of the window's first entry in the image, for a neuron at (0, 0); negative in the padding.
        step: by how much the window moves when the neuron moves by one.
        clean: whether entries in the padding are 0 already.
    """

    a: Tensor
    place: Tensor
    offset: Pair
    step: Pair
    clean: bool

    @staticmethod
    def of_neurons(channel: Tensor, place: Tensor, channels: int, sign: float) -> Window:
        """Sign times one neuron per row, at `place` (rows, 2) of `channel` (rows,)."""
        a = torch.zeros((len(channel), channels, 1, 1), dtype=torch.float64, device=channel.device)
        a[torch.arange(len(channel), device=channel.device), channel] = sign
        return Window(a, place, (0, 0), (1, 1), True)

    def cut(self, image: Tensor, example: Tensor | None) -> Tensor:
        """(rows, channels, height, width): the windows of images (n, ...), 0 in the padding.

        Args:
            image: (n, channels, height, width).
            example: (rows,) whose image; None where all rows share one.
        """
        size = self.a.shape[2:]
        most = self.place.amax(0).tolist() if len(self.place) else [0, 0]
        (top, bottom), (left, right) = (
            (-o, max(0, m * s + o + w - n))
            for o, m, s, w, n in zip(self.offset, most, self.step, size, image.shape[2:], strict=True)
        )
        views = (
            F.pad(image, (left, right, top, bottom)).unfold(2, size[0], self.step[0]).unfold(3, size[1], self.step[1])
        )
        owner = torch.zeros_like(self.place[:, 0]) if example is None else example
        return views[owner, :, self.place[:, 0], self.place[:, 1]]

    def cleaned(self, shape: tuple[int, ...]) -> Window:
        """With 0 in the padding of images of this shape."""
        if self.clean:
            return self
        inside = self.cut(self.a.new_ones((1, 1, *shape[1:])), None)
        return replace(self, a=self.a * inside, clean=True)

    def times(self, a: Tensor, clean: bool) -> Window:
        """The same windows with other coefficients."""
        return replace(self, a=a, clean=clean)

    def before(self, conv: Conv) -> Window:
        """The windows of a convolution's input (the transposed convolution, without cutting off the padding)."""
        a = _transposed(self.a, conv)
        (o, p), (s, t) = (
            tuple(o * s - p for o, s, p in zip(self.offset, conv.stride, conv.padding, strict=True)),
            tuple(s * t for s, t in zip(self.step, conv.stride, strict=True)),
        )
        return Window(a, self.place, (o, p), (s, t), conv.padding == (0, 0))

    def plus(self, other: Window) -> Window:
        """The sum of two windows of the same image: of two branches that meet there."""
        first = tuple(min(o, p) for o, p in zip(self.offset, other.offset, strict=True))
        last = tuple(
            max(o + n, p + m)
            for o, n, p, m in zip(self.offset, self.a.shape[2:], other.offset, other.a.shape[2:], strict=True)
        )

        def widened(w: Window) -> Tensor:
            (top, bottom), (left, right) = (
                (o - f, e - o - n) for o, f, e, n in zip(w.offset, first, last, w.a.shape[2:], strict=True)
            )
            return F.pad(w.a, (left, right, top, bottom))

        clean = self.clean and other.clean
        return Window(widened(self) + widened(other), self.place, (first[0], first[1]), self.step, clean)

    def dense(self, shape: tuple[int, ...]) -> Tensor:
        """(rows, *shape): the whole images."""
        window = self.cleaned(shape)
        channels, height, width = shape
        device = self.a.device
        rows, columns = (
            self.place[:, k, None] * self.step[k] + self.offset[k] + torch.arange(self.a.shape[2 + k], device=device)
            for k in (0, 1)
        )
        at = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
        flat = self.a.new_zeros((len(self.a), channels, height * width))
        index = at.flatten(1)[:, None].expand(-1, channels, -1)
        return flat.scatter_add_(2, index, window.a.flatten(2)).view(-1, *shape)


def _transposed(a: Tensor, conv: Conv) -> Tensor:
    """The transposed convolution of many small images without padding.

    One matrix product for all of them, then a sum of overlapping patches: PyTorch's own takes one product an image.
    """
    if conv.groups != 1:
        return F.conv_transpose2d(a, conv.weight, None, conv.stride, 0, 0, conv.groups, conv.dilation)
    (rows, channels), (height, width), kernel = a.shape[:2], a.shape[2:], conv.weight.shape[2:]
    patches = a.permute(0, 2, 3, 1).reshape(-1, channels) @ conv.weight.flatten(1)
    if height * width == 1 and conv.dilation == (1, 1):
        return patches.view(rows, -1, *kernel)
    size = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip((height, width), conv.stride, kernel, conv.dilation, strict=True)
    ]
    columns = patches.view(rows, height * width, -1).transpose(1, 2)
    return F.fold(columns, (size[0], size[1]), tuple(kernel), conv.dilation, (0, 0), conv.stride)
