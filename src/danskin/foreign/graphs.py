"""Whole models in one file: programs of torch.export, and TorchScript archives."""

from __future__ import annotations

import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from danskin.errors import CheckpointError
from danskin.foreign.audit import audited
from danskin.foreign.opened import Batched, Opened, file_hash, ready, set_eval
from danskin.foreign.words import first_line

#: What TorchScript code may not name: files, under any spelling, and operators and classes that are no layers.
_FILES = re.compile(
    r"\b(?:torch|aten)[\s\\]*\.[\s\\]*(?:from_file|save|load)\b|[\"'](?:from_file|save)[\"']|getattr\s*\(\s*(?:torch|ops)\b|"
    r"\bops\.(?!prim\.|aten\.|quantized\.|torchvision\.)\w+|torch\.classes\.(?!quantized\.|xnnpack\.)\w+"
)


def open_exported(path: Path, device: torch.device, classes: int | None) -> Opened:
    """A program written by torch.export.save.

    Raises:
        CheckpointError: it does not read, or could run code.
        ModelError: exported in training mode, or with other inputs than one tensor.
    """
    clean = audited(path, device)
    with _quiet():
        try:
            program = torch.export.load(clean.archive)
            net: nn.Module = program.module()
        except Exception as error:  # torch raises many kinds here
            raise CheckpointError(
                f"{path}: expected a program that this torch ({torch.__version__}) reads, got {first_line(error)}; "
                "export it again with this version"
            ) from error
    least, most = clean.batch
    notes = [f"exported for inputs of shape {_shape(clean.shape)}"]
    if least == most:
        notes.append(
            f"exported with a fixed batch size of {most}: batches are cut and filled up to {most}; export with "
            "dynamic_shapes for speed"
        )
    elif least > 1 or most is not None:
        notes.append(f"exported for batches of {least} to {most or 'any number'}: others are cut or filled up")
    if least > 1 or most is not None:
        net = Batched(net, least, most)
    set_eval(net)  # a flag without a meaning here: the mode is part of the program
    return ready(net, str(path), device, notes=notes, digest=file_hash(path), classes=classes)


def open_script(path: Path, device: torch.device, classes: int | None) -> Opened:
    """A TorchScript archive. It holds code, as a graph that torch interprets; no Python is run.

    Raises:
        CheckpointError: it does not read, or names operators that touch files.
    """
    try:
        _check_code(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such: the file is what it is
            net = torch.jit.load(str(path), map_location=device)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises many kinds here
        raise CheckpointError(
            f"{path}: expected a TorchScript archive, got a file that does not read ({first_line(error)}); "
            "save it again"
        ) from error
    for module in net.modules():  # frozen archives have lost the flag that everybody asks for
        if not hasattr(module, "training"):
            module.__dict__["training"] = False
    return ready(net, str(path), device, notes=["TorchScript"], digest=file_hash(path), classes=classes)


def _check_code(path: Path) -> None:
    """Refuse code that names files; torch finds members whatever their case, and one of several of a name."""
    with zipfile.ZipFile(path) as archive:
        names = [info.filename.lower() for info in archive.infolist()]
        code = [archive.read(info) for info in archive.infolist() if info.filename.lower().endswith(".py")]
    if len(set(names)) != len(names):
        raise CheckpointError(f"{path}: expected each name once in the archive, got doubles; it was tampered with")
    for text in code:
        found = _FILES.search(text.decode("utf-8", "replace"))
        if found:
            raise CheckpointError(
                f"{path}: expected a network of torch operators, got TorchScript that names {found.group().strip()!r}; "
                "it could use files, which danskin refuses; if it is yours, give its code (package.module:factory)"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch tells of old formats, with tracebacks, before it reads them."""
    log = logging.getLogger("torch")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if n is None else str(n) for n in shape)})"
