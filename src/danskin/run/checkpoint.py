"""Checkpoints to resume from (torch.save, read with weights_only=True) and weights to share (safetensors)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from danskin.errors import CheckpointError, MissingError
from danskin.files import write_atomically


def save(path: Path, value: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    write_atomically(path, lambda stream: torch.save(value, stream))


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; executes no code from the file.

    Raises:
        MissingError: it does not exist.
        CheckpointError: it is truncated, or no checkpoint.
    """
    if not path.is_file():
        raise MissingError(f"{path}: expected a checkpoint, got nothing there", "start the run without --resume")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        detail = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path}: expected a checkpoint, got a file of {path.stat().st_size} bytes that does not read ({detail}); "
            "it is truncated or not a checkpoint: delete it and start again"
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path}: expected a checkpoint, got a {type(found).__name__}; it is another kind of file"
        )
    return found


def save_weights(path: Path, weights: dict[str, torch.Tensor], card: dict[str, str]) -> None:
    """Write weights as safetensors, with a card of texts in its header."""
    from safetensors.torch import save as to_bytes

    contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}
    write_atomically(path, lambda stream: stream.write(to_bytes(contiguous, metadata=card)))


def load_weights(path: Path, model: nn.Module) -> None:
    """Load weights into a model of the same architecture.

    Raises:
        MissingError: there is no such file.
        CheckpointError: it is broken, or its tensors do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise MissingError(f"{path}: expected weights, got nothing there", "give the path of a .safetensors file")
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: expected safetensors, got a file that does not read ({error}); fetch or export it again"
        ) from error
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: expected weights of this architecture, got others ({detail}); check the model's name and options"
        ) from error
