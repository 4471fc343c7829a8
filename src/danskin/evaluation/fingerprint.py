"""Fingerprints of models and tensors, so that a journal can tell whether it is about the same thing."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from danskin.errors import ModelError


def model_hash(model: Any) -> str | None:
    """SHA-256 over the state of a model: names, dtypes, shapes and bytes, in the order of the names.

    It does not depend on the device, on `requires_grad`, on training mode or on the order of registration. It
    knows nothing of code: two architectures that hold the same tensors under the same names get the same hash.

    Args:
        model: anything; what has no `state_dict()` has no hash.

    Returns:
        64 hexadecimal digits, or None for a callable without a state.

    Raises:
        ModelError: the state holds something else than tensors, numbers, texts and containers of them.
    """
    state = getattr(model, "state_dict", None)
    if state is None:
        return None
    state, digest = state(), hashlib.sha256()
    for name in sorted(state):
        _absorb(digest, name)
        try:
            _absorb(digest, state[name])
        except TypeError as error:
            raise ModelError(
                f"model: expected a state of tensors, numbers and texts, got {type(state[name]).__name__} under "
                f"{name!r}; it cannot be told whether that is the same as before"
            ) from error
    return digest.hexdigest()


def tensor_hash(x: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of a tensor, the same on every device and for every stride."""
    digest = hashlib.sha256()
    _absorb(digest, x)
    return digest.hexdigest()


def examples_hash(x: Tensor, y: Tensor) -> str:
    """SHA-256 over inputs and labels."""
    return hashlib.sha256((tensor_hash(x) + tensor_hash(y)).encode()).hexdigest()


def _absorb(digest: Any, value: Any) -> None:
    """Add a value; every part says its kind and length first, so that no two values read the same."""
    if isinstance(value, Tensor):
        digest.update(f"tensor {value.dtype} {tuple(value.shape)} {value.numel() * value.element_size()}:".encode())
        digest.update(_bytes(value).numpy().data)
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}:".encode())
        for key in sorted(value, key=repr):
            _absorb(digest, key)
            _absorb(digest, value[key])
    elif isinstance(value, tuple | list):
        digest.update(f"sequence {len(value)}:".encode())
        for item in value:
            _absorb(digest, item)
    elif isinstance(value, bytes | bytearray | io.BytesIO):
        raw = value.getvalue() if isinstance(value, io.BytesIO) else bytes(value)
        digest.update(f"bytes {len(raw)}:".encode() + raw)
    elif value is None or isinstance(value, bool | int | float | complex | str | torch.dtype | torch.device):
        text = repr(value).encode()
        digest.update(f"{type(value).__name__} {len(text)}:".encode() + text)
    else:
        raise TypeError(type(value).__name__)


def _bytes(x: Tensor) -> Tensor:
    """The elements as uint8 on the CPU, row-major; quantized and sparse tensors as the numbers they stand for."""
    x = x.detach()
    if x.is_quantized:
        x = x.dequantize()
    if x.layout != torch.strided:
        x = x.to_dense()
    return x.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
