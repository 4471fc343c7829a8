"""Random crop with zero padding and horizontal flip, for a whole batch at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from danskin.errors import InputError


def draw_crop_flip(
    n: int, padding: int, generator: torch.Generator, flip: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw what `crop_flip` needs for n images.

    Args:
        n: number of images.
        padding: zeros added on each side before cropping.
        generator: source of randomness; the draws are on its device.
        flip: whether to flip every other image on average; the crops are the same either way.

    Returns:
        dy, dx: int64 (n,), uniform in 0..2 padding; flip: bool (n,).
    """
    device = generator.device
    shift = torch.randint(0, 2 * padding + 1, (2, n), generator=generator, device=device)
    coin = torch.randint(0, 2, (n,), generator=generator, device=device).bool()
    return shift[0], shift[1], coin if flip else torch.zeros_like(coin)


def crop_flip(x: Tensor, dy: Tensor, dx: Tensor, flip: Tensor, padding: int) -> Tensor:
    """Image i, padded by zeros, cropped to its old size at (dy[i], dx[i]), then mirrored where flip[i].

    Args:
        x: images (N, C, H, W), uint8 or floating.
        dy: int64 (N,), first row of the crop in the padded image, 0..2 padding.
        dx: int64 (N,), first column likewise.
        flip: bool (N,), left-right mirrored or not.
        padding: zeros added on each side.

    Returns:
        Images of the same shape and dtype.

    Raises:
        InputError: shapes that do not fit, or crops outside the padded image.
    """
    _check(x, dy, dx, flip, padding)
    n, c, h, w = x.shape
    padded = F.pad(x, (padding, padding, padding, padding)).flatten(2)
    row = torch.arange(h, device=x.device) + dy.to(x.device)[:, None]
    column = torch.arange(w, device=x.device).expand(n, w)
    column = torch.where(flip.to(x.device)[:, None], w - 1 - column, column) + dx.to(x.device)[:, None]
    pixel = row[:, :, None] * (w + 2 * padding) + column[:, None, :]
    return padded.gather(2, pixel.view(n, 1, h * w).expand(n, c, h * w)).view(n, c, h, w)


def _check(x: Tensor, dy: Tensor, dx: Tensor, flip: Tensor, padding: int) -> None:
    if x.dim() != 4:
        raise InputError(f"x: expected images (N, C, H, W), got shape {tuple(x.shape)}; add the missing dimensions")
    if padding < 0:
        raise InputError(f"padding: expected 0 or more, got {padding}; use 0 for none")
    for name, t in (("dy", dy), ("dx", dx), ("flip", flip)):
        if t.shape != x.shape[:1]:
            raise InputError(f"{name}: expected shape ({len(x)},), got {tuple(t.shape)}; draw one per image")
    if flip.dtype != torch.bool:
        raise InputError(f"flip: expected bool, got {flip.dtype}; compare or call .bool() first")
    for name, t in (("dy", dy), ("dx", dx)):
        if t.device.type == "cpu" and len(t):  # elsewhere the look would stall the device
            low, high = (int(v) for v in t.aminmax())
            if low < 0 or high > 2 * padding:
                raise InputError(
                    f"{name}: expected 0 to {2 * padding}, got {low} to {high}; draw with the same padding"
                )
