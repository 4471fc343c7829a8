"""Weights that `torch.nn.utils.parametrize.cached()` remembers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.utils import parametrize


@contextmanager
def fresh_cache() -> Iterator[None]:
    """A context with a cache of parametrised weights of its own; what is remembered outside is put back.

    Inside `parametrize.cached()` a weight is computed once and used again. What an attack computes while parameters
    are frozen carries no gradient to them, and what is computed at shifted weights is not the model's: neither may be
    remembered. torch has no public way to set its cache aside; where it keeps it elsewhere, nothing is done.
    """
    held = getattr(parametrize, "_cache", None)
    if held is None or not getattr(parametrize, "_cache_enabled", 0):
        yield
        return
    parametrize._cache = {}
    try:
        yield
    finally:
        parametrize._cache = held
