"""What opening a model gives, and the small adapters around models that are not quite as needed."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danskin.callables import reach
from danskin.errors import DanskinWarning, ModelError
from danskin.evaluation.fingerprint import state_hash
from danskin.evaluation.masking import Flag


@dataclass(frozen=True, eq=False)
class Opened:
    """A classifier that somebody else made, ready to be judged.

    Args:
        model: inputs (batch, ...) in [0, 1] to logits (batch, classes); an `nn.Module` in eval mode wherever
            possible, else a callable.
        name: what it was called when it was opened.
        hash: SHA-256 of the state of the model (`danskin.evaluation.fingerprint.state_hash`) or, for a file that
            holds the whole model, of the file; None for a callable without a state.
        differentiable: whether gradients reach the input. Settled by `check_model`; before it, whether
            nothing speaks against it.
        note: what the user should know: normalisation, batch size, prefixes, doubts.
        classes: how many logits are expected; None for any number.
        flags: what should be known beside its verdict.
    """

    model: Callable[[Tensor], Tensor]
    name: str
    hash: str | None
    differentiable: bool
    note: str = ""
    classes: int | None = None
    flags: tuple[Flag, ...] = ()


class Batched(nn.Module):
    """A model that takes only some batch sizes, made to take all: batches are cut, and filled up.

    A batch that is too small is filled up by repeating its last example; the answers to those are dropped.

    Args:
        net: takes from `least` to `most` examples.
        least: smallest batch it takes.
        most: largest batch it takes; None for no limit.
    """

    def __init__(self, net: nn.Module, least: int, most: int | None) -> None:
        super().__init__()
        self.net, self.least, self.most = net, least, most
        self.training = False  # as what is opened is

    def forward(self, x: Tensor) -> Tensor:
        """Logits of all examples."""
        if self.least <= len(x) <= (self.most or len(x)) and len(x):
            return self.net(x)
        size = self.most or max(len(x), 1)
        parts = []
        for part in x.split(size) or (x,):
            short = self.least - len(part)
            if short > 0:
                last = part[-1:] if len(part) else part.new_zeros(1, *part.shape[1:])
                filled = torch.cat([part, last.expand(short, *part.shape[1:])])
            else:
                filled = part
            parts.append(self.net(filled)[: len(part)])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def extra_repr(self) -> str:
        """The batch sizes, for printing."""
        return f"least={self.least}, most={self.most}"


class Logits(nn.Module):
    """The logits out of an output that is a mapping or an object which calls them so."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """What the output calls logits."""
        return logits_of(self.net(x))


def logits_of(output: Any) -> Any:
    """`output.logits` or `output["logits"]` where there is such a thing; the output itself otherwise."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    return getattr(output, "logits", output)


def ready(
    model: Any,
    name: str,
    device: torch.device,
    *,
    notes: Iterable[str] = (),
    digest: str | None = None,
    differentiable: bool = True,
    classes: int | None = None,
    flags: tuple[Flag, ...] = (),
) -> Opened:
    """The model on its device and in eval mode, with its hash."""
    notes = list(notes)
    if isinstance(model, nn.Module):
        model = _moved(model, name, device)
    else:
        notes.append("a plain callable: it stays on its own device")
    if set_eval(model):
        notes.append("put into eval mode")
    digest = state_hash(model) if digest is None else digest
    return Opened(model, name, digest, differentiable, "; ".join(notes), classes, flags)


def set_eval(model: Any) -> bool:
    """Put every module that the model reaches into eval mode; True where something was in training mode.

    Exported programs refuse `.eval()`, and frozen TorchScript modules have no such flag; so flags are set one
    by one.
    """
    trained = [m for m in reach(model).modules if getattr(m, "training", False)]
    for m in trained:
        m.training = False
    return bool(trained)


def _moved(model: nn.Module, name: str, device: torch.device) -> nn.Module:
    try:
        return model.to(device)
    except NotImplementedError as error:  # tensors on the meta device hold no data
        raise ModelError(
            f"{name}: expected weights, got a model on the meta device, without any; load its weights in the factory"
        ) from error


def warn(text: str) -> str:
    """Warn, and return the text for the note."""
    warnings.warn(text, DanskinWarning, stacklevel=3)
    return text


def file_hash(*paths: Path) -> str:
    """SHA-256 of the content of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
