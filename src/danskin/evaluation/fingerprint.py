"""Fingerprints of models and tensors, so that a journal can tell whether it is about the same thing."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from danskin.callables import reach
from danskin.errors import ModelError


def model_hash(model: Any) -> str | None:
    """SHA-256 over weights and buffers of a model and of all modules that it reaches (`danskin.callables.reach`).

    Names, dtypes, shapes and bytes count, those of buffers that are not saved with the state too. The hash does not
    depend on the device, on `requires_grad`, on training mode or on the order of registration. It knows nothing of
    code and of plain attributes; `danskin.evaluation.identity` looks at what is computed.

    Args:
        model: anything; what has no `state_dict()` and reaches no module has no hash.

    Returns:
        64 hexadecimal digits, or None for a callable without a state. Of a module with nothing beside its state it
        is `state_hash`.

    Raises:
        ModelError: a state holds something else than tensors, numbers, texts and containers of them.
    """
    own, behind = state_hash(model), reach(model)
    beside = [h for root in behind.roots if root is not model and (h := state_hash(root)) is not None]
    beside += [h for root in behind.roots for h in _unsaved(root)]
    if not beside:
        return own
    return hashlib.sha256("".join([own or "", *sorted(beside)]).encode()).hexdigest()


def state_hash(model: Any) -> str | None:
    """SHA-256 over `model.state_dict()` alone; None for what has none.

    Raises:
        ModelError: as `model_hash`.
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


def _unsaved(root: nn.Module) -> Iterator[str]:
    """Hashes of the buffers that `state_dict` leaves out, each with its name."""
    for prefix, module in root.named_modules():
        for name in sorted(getattr(module, "_non_persistent_buffers_set", ())):
            buffer = module._buffers.get(name)
            if buffer is not None:
                digest = hashlib.sha256()
                _absorb(digest, f"{prefix}.{name}")
                _absorb(digest, buffer)
                yield digest.hexdigest()


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
