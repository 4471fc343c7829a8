"""Random numbers that belong to examples, not to batches.

A `Streams` holds one key per row of a batch. What is drawn for a row depends on its key and on nothing
else: not on the batch it stands in, its place there, the device, or the number of processes. It has no
state: the same streams give the same numbers, and `child` gives independent ones (a restart, a step).

The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014) in counter form, in plain int64 tensor arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _wrap(value: int) -> int:
    """A Python integer modulo 2^64, as a signed 64-bit one."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finalizer: a bijection of 64-bit integers that scatters every bit."""
    z = (z ^ _shift(z, 30)).mul_(_MIX_1)
    z.bitwise_xor_(_shift(z, 27)).mul_(_MIX_2)
    return z.bitwise_xor_(_shift(z, 31))


def _like(flat: Tensor, like: Tensor) -> Tensor:
    """`flat` (batch, d) in the shape, dtype, device and memory format of `like`; no copy where it has them."""
    if flat.dtype == like.dtype and flat.device == like.device and like.is_contiguous():
        return flat.view(like.shape)
    return torch.empty_like(like).copy_(flat.view(like.shape))


@dataclass(frozen=True, eq=False)
class Streams:
    """One stream of random numbers per row.

    Args:
        key: (batch,) int64.
    """

    key: Tensor

    @staticmethod
    def of(seed: int, index: Tensor) -> Streams:
        """Streams of the examples `index` (batch,) int64 under `seed`."""
        return Streams(_mix(_mix(index * _GAMMA + 1) + _mix(torch.full_like(index, _wrap(seed)))))

    @staticmethod
    def of_content(seed: int, x: Tensor) -> Streams:
        """Streams keyed by what the examples are, so that nobody need number them.

        Equal examples share a stream. The hash is multilinear over the float32 bits of each row.
        """
        bits = (x.detach().reshape(len(x), _size(x)).to(torch.float32) + 0.0).contiguous().view(torch.int32)
        weights = _mix(torch.arange(1, bits.shape[1] + 1, device=x.device) * _GAMMA) | 1
        return Streams.of(seed, bits.to(torch.int64).mul_(weights).sum(1))

    def child(self, k: int | Tensor) -> Streams:
        """The k-th family of streams derived from these: for a restart, a step, a second draw.

        Args:
            k: one number, or one int64 per row.
        """
        shift = (2 * k + 1) * _MIX_2 if isinstance(k, Tensor) else _wrap((2 * k + 1) * _MIX_2)
        return Streams(_mix(self.key + shift))

    def rows(self, index: Tensor) -> Streams:
        """The streams of some rows."""
        return Streams(self.key[index])

    def bits(self, n: int) -> Tensor:
        """(batch, n) int64, all bits random."""
        counter = torch.arange(1, n + 1, device=self.key.device, dtype=torch.int64)
        return _mix(self.key[:, None] + counter * _GAMMA)

    def _unit(self, n: int, dtype: torch.dtype) -> Tensor:
        """(batch, n) uniform on the open interval (0, 1): the middles of 2^52 (float32: 2^23) cells, exactly.

        64 random bits make one number in float64 and two in float32: drawing them is what costs.
        """
        if dtype == torch.float64:
            return _shift(self.bits(n), 12).to(torch.float64).add_(0.5).mul_(2.0**-52)
        halves = self.bits(-(-n // 2)).view(torch.int32)[:, :n]
        return (halves >> 9).to(torch.float32).add_(2**22 + 0.5).mul_(2.0**-23)

    def uniform(self, like: Tensor) -> Tensor:
        """Independent U(0, 1), in the shape and dtype of `like`."""
        return _like(self._unit(_size(like), like.dtype), like)

    def exponential(self, like: Tensor) -> Tensor:
        """Independent Exp(1), in the shape and dtype of `like`."""
        return _like(-self._unit(_size(like), like.dtype).log(), like)

    def normal(self, like: Tensor) -> Tensor:
        """Independent N(0, 1) by Box and Muller, in the shape and dtype of `like`."""
        n = _size(like)
        u = self._unit(2 * n, like.dtype)
        return _like((-2 * u[:, :n].log()).sqrt() * (2 * math.pi * u[:, n:]).cos(), like)

    def sign(self, like: Tensor) -> Tensor:
        """Independent random signs, in the shape and dtype of `like`."""
        return _like(1 - 2 * _shift(self.bits(_size(like)), 63), like)

    def integers(self, most: Tensor, n: int = 1) -> Tensor:
        """(batch, n) int64, uniform on 0 .. most - 1, with `most` (batch,) below 2^31.

        By multiplying and shifting 32 random bits: no value is off by more than 1 part in 2^32 / most.
        """
        return (_shift(self.bits(n), 32) * most[:, None]) >> 32


def _size(like: Tensor) -> int:
    return math.prod(like.shape[1:])


def check_streams(generator: Any, who: str) -> Streams:
    """The streams, and nothing else.

    Raises:
        InputError: a generator of torch, a seed, None.
    """
    if isinstance(generator, Streams):
        return generator
    got = "None" if generator is None else type(generator).__name__
    raise InputError(
        f"{who}: expected Streams, one stream of random numbers for each row, got {got}; use "
        "Streams.of(seed, torch.arange(len(y)))"
    )
