"""Pictures of images and perturbations, as SVG text."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from danskin.report.drawing import FONTS, INK, LINE, MUTED, PAPER, WRONG, Array

_HEAD, _CELL, _SIDE = 136, 108, 94  # widths in px: row heads, a column, an image


def png(image: Array) -> str:
    """A (C, H, W) image in [0, 1] with one or three channels as a PNG data URI."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()


def png_bytes(image: Array) -> bytes:
    """The same as the content of a PNG file."""
    pixels = np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")):
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return out


class Sheet:
    """Rows of images and captions, from top to bottom, as SVG."""

    def __init__(self, columns: int) -> None:
        self.width = _HEAD + columns * _CELL
        self.y = 4
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, style: str, full: str = "") -> None:
        """Words at a place; `full` are shown when pointed at."""
        title = f"<title>{escape(full)}</title>" if full and full != words else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" style="{style}">{escape(words)}{title}</text>')

    def head(self, lines: Sequence[str], y: float) -> None:
        """The words left of a row."""
        for i, line in enumerate(lines):
            short = line if len(line) <= 20 else line[:19] + "…"
            self.text(0, y + 15 * i, short, f"font-size: 12.5px; fill: {INK if i == 0 else MUTED}", line)

    def heading(self, words: str, color: str) -> None:
        """A rule across, and a name under it."""
        self.y += 12
        self.parts.append(f'<path d="M0 {self.y}H{self.width}" style="stroke: {LINE}"/>')
        self.parts.append(f'<circle cx="5" cy="{self.y + 18}" r="5" style="fill: {color}"/>')
        self.text(16, self.y + 22, words, f"font-size: 14px; font-weight: 600; fill: {INK}")
        self.y += 36

    def images(self, head: Sequence[str], images: Array, wrong: Sequence[bool] = ()) -> None:
        """A row of images; wrong ones get a frame."""
        self.head(head, self.y + _SIDE / 2 + 11 - 7.5 * len(head))
        for i, image in enumerate(images):
            x = _HEAD + i * _CELL
            self.parts.append(
                f'<image x="{x}" y="{self.y}" width="{_SIDE}" height="{_SIDE}" href="{png(image)}" '
                'style="image-rendering: pixelated"/>'
            )
            frame, width = (WRONG, 3) if len(wrong) and wrong[i] else (LINE, 1)
            self.parts.append(
                f'<rect x="{x}" y="{self.y}" width="{_SIDE}" height="{_SIDE}" '
                f'style="fill: none; stroke: {frame}; stroke-width: {width}"/>'
            )
        self.y += _SIDE + 6

    def captions(self, head: str, words: Sequence[str], right: Sequence[bool] | None = None) -> None:
        """A line of words under the images; right and wrong ones differ in mark, weight and colour."""
        self.head([head], self.y + 13)
        for i, word in enumerate(words):
            style, mark = f"font-size: 13px; text-anchor: middle; fill: {INK}", ""
            if right is not None:
                mark = "✓ " if right[i] else "✗ "
                style = style if right[i] else style.replace(INK, WRONG) + "; font-weight: 700"
            short = word if len(word) <= 13 else word[:12] + "…"
            self.text(_HEAD + i * _CELL + _SIDE / 2, self.y + 13, mark + short, style, mark + word)
        self.y += 18

    def svg(self) -> str:
        """The whole file."""
        size = f'width="{self.width}" height="{self.y + 4}" viewBox="-3 0 {self.width + 3} {self.y + 4}"'
        paper = f'<rect x="-3" width="{self.width + 3}" height="{self.y + 4}" style="fill: {PAPER}"/>'
        root = f'<svg style="font-family: {FONTS}" xmlns="http://www.w3.org/2000/svg" {size}>'
        return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', root, paper, *self.parts, "</svg>\n"])


def attack_pictures(
    examples: Mapping[str, Array], norm: str, color: Mapping[str, str], classes: Sequence[str]
) -> str | None:
    """Original, perturbation and adversarial image of a few examples, for each model; None if there are none.

    Args:
        examples: `x` (k, C, H, W) in [0, 1], `y` (k,), and `adv/M/norm`, `pred/M/norm`, `pred/M/clean`.
        norm: which attack.
        color: of each model M, in the order to show.
        classes: names of the labels; a label without a name is shown as its number.
    """
    x, y = examples["x"], examples["y"]
    models = [m for m in color if {f"adv/{m}/{norm}", f"pred/{m}/{norm}"} <= set(examples)]
    if not models or x.ndim != 4 or x.shape[1] not in (1, 3) or not len(x):
        return None

    def names(labels: Array) -> list[str]:
        return [str(classes[i]) if 0 <= i < len(classes) else str(i) for i in labels.tolist()]

    sheet = Sheet(len(x))
    sheet.images(["original"], x)
    sheet.captions("true label", names(y))
    for model in models:
        clean = examples.get(f"pred/{model}/clean")
        if clean is not None:
            sheet.captions(f"{model} says", names(clean), (clean == y).tolist())
    for model in models:
        adv, said = examples[f"adv/{model}/{norm}"], examples[f"pred/{model}/{norm}"]
        peak = float(np.abs(adv - x).max())
        factor = 0.5 / peak if peak > 0 else 0.0  # brings the largest change to full contrast around mid-grey
        sheet.heading(f"{model} model", color[model])
        sheet.images(["perturbation", f"contrast × {factor:.3g}" if factor else "no change"], 0.5 + (adv - x) * factor)
        sheet.images(["adversarial", "= original", "+ perturbation"], adv, (said != y).tolist())
        sheet.captions(f"{model} says", names(said), (said == y).tolist())
    return sheet.svg()
