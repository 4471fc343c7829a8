"""Reading pickled arrays from strangers: nothing that the file names is imported or executed.

A pickle is a program. The unpickler here resolves the handful of names that pickled numpy arrays need to
stand-ins of its own, which only note what was stored, and refuses every other name.
"""

from __future__ import annotations

import io
import math
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from danskin.data.files import broken
from danskin.errors import InputError

_CODES = {"u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8", "f4", "f8", "b1"}


def unpickle_arrays(body: bytes, path: str | Path) -> Any:
    """Plain containers, text, bytes, numbers and numeric numpy arrays out of a pickle.

    Args:
        body: the pickle, also one written by Python 2.
        path: named in errors.

    Raises:
        InputError: the pickle is broken, or refers to anything else (it may be an attack).
    """
    try:
        return _plain(_Unpickler(io.BytesIO(body), encoding="bytes").load())
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        if isinstance(error, _RefusedError):
            raise InputError(
                f"{path}: expected arrays, text and numbers only, got a reference to {error}; "
                "do not open it with pickle, delete it and fetch it again"
            ) from error
        raise broken(path, "a complete pickle", f"{len(body)} bytes ({error})") from error
    except Exception as error:  # a damaged pickle can raise anything, from EOFError to IndexError
        raise broken(path, "a complete pickle of arrays", f"{len(body)} bytes ({error!r})") from error


class _RefusedError(pickle.UnpicklingError):
    """A name that arrays do not need."""


class _DType:
    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else order


class _Array:
    shape: tuple[int, ...] = ()
    dtype: _DType
    body: Any = None
    fortran = False

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.body = state

    def numpy(self) -> np.ndarray:
        code, body = self.dtype.code, self.body
        if code not in _CODES or not isinstance(body, bytes | bytearray):
            raise ValueError(f"an array of {code!r}, only numbers are read")
        order = self.dtype.order if self.dtype.order in ("<", ">") else "="
        flat = np.frombuffer(body, dtype=np.dtype(f"{order}{code}"))
        if math.prod(self.shape) != flat.size:
            raise ValueError(f"{flat.size} numbers for shape {self.shape}")
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(body: Any, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", bytes(body)))
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in old protocols: text that is to be encoded again."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the codec {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How Python 3 writes empty bytes in old protocols: a call of `bytes` without arguments."""
    return b""


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return partial(_STAND_INS[module, name])  # a fresh object, so that no pickle can alter the stand-in
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None


def _plain(value: Any) -> Any:
    """Stand-ins replaced by numpy arrays, through dicts, lists and tuples."""
    if isinstance(value, _Array):
        return value.numpy()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(v) for v in value)
    return value
