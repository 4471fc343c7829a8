"""How the suites complain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def expect(ok: Any, message: str) -> None:
    """Raise AssertionError(message) unless `ok` (a bool, or a tensor of bools that must all be true).

    Not an `assert` statement: it also works under ``python -O``.
    """
    if not bool(ok.all() if isinstance(ok, Tensor) else ok):
        raise AssertionError(message)


def expect_close(got: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """Expect |got - wanted| <= tolerance * (1 + max |wanted|) everywhere, with equal shapes; NaN is never close."""
    expect(got.shape == wanted.shape, f"{what}: expected shape {tuple(wanted.shape)}, got {tuple(got.shape)}")
    if wanted.numel() == 0:
        return
    got, wanted = got.detach().double(), wanted.detach().double()
    gap, most = float((got - wanted).abs().max()), tolerance * (1 + float(wanted.abs().max()))
    expect(gap <= most, f"{what}: expected a difference of at most {most:.3g}, got {gap:.3g}")


def expect_same(got: Tensor, wanted: Tensor, what: str) -> None:
    """Expect equal bits."""
    same = got.dtype == wanted.dtype and torch.equal(got, wanted)
    expect(same, f"{what}: expected the same tensor bit for bit, got another one")
