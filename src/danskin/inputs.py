"""What people hand in: models, images, labels, whole numbers. One check of each for all entrances.

Ground for all packages: it knows torch and the errors only.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.errors import InputError

#: (low, high) of valid data, numbers or tensors that broadcast against an example; None where data have no bounds.
Box = tuple[Any, Any] | None


def in_box(x: Tensor, box: Box = (0, 1), *, bytes_known: bool = False) -> Tensor:
    """Examples in the units of the box: uint8 images as floats, floating numbers as they are.

    A pixel k of 0..255 becomes low + (high - low) k / 255: k / 255 in (0, 1), k itself in (0, 255), k / 127.5 - 1 in
    (-1, 1). Refused where that is not plain: without a box, and where the bytes lie in the box as they are (0 and 1 in
    (0, 1), 0..16 in (0, 16)), so that they may be meant as they are.

    Args:
        x: uint8 or floating, any shape.
        box: (low, high), numbers or tensors that broadcast against an example.
        bytes_known: the bytes are known to be pixels of 0..255: do not look at them.

    Raises:
        InputError: another dtype, or bytes whose units are not plain.

    >>> in_box(torch.tensor([[0, 51, 255]], dtype=torch.uint8), (-1, 1))
    tensor([[-1.0000, -0.6000,  1.0000]])
    """
    if x.is_floating_point():
        return x
    if x.dtype != torch.uint8:
        raise InputError(not_floating(x))
    if box is None:
        raise InputError(
            "x: expected floating-point inputs where there is no box, got uint8, whose units are not plain; pass "
            "x.float() / 255 or x.float(), whichever the model takes, or the box of the data"
        )
    low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in box)
    if x.ndim > 2:  # one bound for each channel
        low, high = (b.reshape(-1, *[1] * (x.ndim - 2)) if b.ndim == 1 else b for b in (low, high))
    if bool((high - low == 255).all()):
        return x.to(torch.float32) + low.to(x.device)
    most = 0.0 if bytes_known or not x.numel() else float(x.max())
    if bool((low <= 0).all()) and 0 < most <= float(high.min()):
        raise InputError(
            f"x: expected bytes of 0..255 to map to the box from {float(low.min()):g} to {float(high.max()):g}, got "
            f"none above {most:g}: they lie in the box as they are; pass x.float() if they are meant so, and else the "
            "images as floats"
        )
    share = x.to(torch.float32) / 255
    if bool((low == 0).all() & (high == 1).all()):
        return share
    return low.to(x.device) + (high - low).to(x.device) * share


def not_floating(x: Tensor) -> str:
    """What to say of inputs that are neither floating-point numbers nor bytes."""
    if x.dtype != torch.uint8 and not x.is_complex() and x.ndim <= 2 and x.dtype != torch.bool:
        return (
            f"x: expected floating-point inputs, got {x.dtype} of shape {tuple(x.shape)} (tokens?); perturbations are "
            "real numbers: attack the embeddings, or use x.float() if these are measurements"
        )
    return (
        f"x: expected floating-point inputs, got {x.dtype}; for images of 0..255 use x.float() / 255 (x.float() with "
        "box=(0, 255))"
    )


def class_numbers(
    labels: Any, n: int, what: str = "y", wanted: str = "integer labels", *, cast: bool = False
) -> Tensor:
    """Labels as int64 (n,), where they are: one whole number per example, from a tensor, an array or a list.

    All integer types are taken. Everything else is refused, and named for what it is.

    Args:
        labels: what was handed in.
        n: examples.
        what: their name in errors.
        wanted: what they should be, in errors.
        cast: take floats and bools too, where they are whole numbers: of data, which loaders may have stacked so.

    Raises:
        InputError: floating-point or bool labels, a column, one-hot or multi-label rows, shares of classes, one label
            per pixel, texts, or another number of labels than examples.
    """
    if isinstance(labels, np.ndarray):  # of any byte order, writable or not
        labels = labels.astype(np.int64) if labels.dtype.kind in "iu" else labels.copy()
    if isinstance(labels, Tensor):
        found = labels
    else:
        try:
            found = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{what}: expected whole numbers, got {_kind(labels)}; number the classes 0, 1, ..."
            ) from error
    if found.ndim == 1 and len(found) == n and (not _not_whole(found) or (cast and _holds_whole(found))):
        return found.to(torch.int64)
    raise InputError(f"{what}: {_unlike(found, n, what, wanted)}")


def _kind(labels: Any) -> str:
    first = labels[0] if isinstance(labels, list | tuple | np.ndarray) and len(labels) else None
    return f"{type(labels).__name__} of {type(first).__name__}" if first is not None else type(labels).__name__


def _not_whole(labels: Tensor) -> bool:
    return labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool


def _holds_whole(labels: Tensor) -> bool:
    return labels.dtype == torch.bool or (
        labels.is_floating_point() and bool((labels.isfinite() & (labels == labels.trunc())).all())
    )


def _unlike(found: Tensor, n: int, what: str, integers: str) -> str:
    """What labels are that are not one whole number per example, and what to do about it."""
    what = what.split()[-1]  # "y_test" of "own.npz y_test", in what to do
    shape, wanted = tuple(found.shape), f"expected one label per example, shape ({n},), got {tuple(found.shape)}"
    if found.ndim == 0:
        return f"{wanted}, a single number; use {what}.reshape(1) for a batch of one"
    if shape == (n, 1):
        return f"{wanted}, a column; use {what}[:, 0]{'.long()' if _not_whole(found) else ''}"
    if found.ndim == 2 and len(found) == n:
        return f"expected {integers}, shape ({n},), got {_rows(found)} {shape} of {found.dtype}; {_cure(found, what)}"
    if found.ndim > 2:
        return f"{wanted}, such as one label per pixel; danskin judges one decision per example: make it one"
    if len(found) != n:
        return f"{wanted}; pass labels of the same batch as x"
    if found.is_floating_point():
        parts = ~(found == found.trunc())  # NaN, too
        if bool(parts.any()):
            at = int(parts.nonzero()[0])
            return (
                f"expected {integers}, got {found.dtype} with fractional parts ({float(found[at]):g} at example "
                f"{at}); pass class numbers 0, 1, ..., as y.long() would cut them silently"
            )
    return f"expected {integers}, got {found.dtype}; use {what}.long() for class numbers"


def _rows(found: Tensor) -> str:
    """What (n, several) labels are."""
    real = found.double() if not found.is_complex() else found.real.double()
    binary = bool(((real == 0) | (real == 1)).all())
    if binary and bool((real.sum(1) == 1).all()):
        return "one-hot rows"
    if binary:
        return "multi-label rows"
    if bool((real >= 0).all()) and bool(((real.sum(1) - 1).abs() < 1e-4).all()):
        return "rows of shares (soft labels)"
    return "several numbers per example,"


def _cure(found: Tensor, what: str) -> str:
    kind = _rows(found)
    if kind == "multi-label rows":
        return "danskin judges one decision per example: choose one class for each, or one column and 2 * y - 1"
    if kind.startswith("several"):
        return f"choose one column, such as {what}[:, 0]"
    return f"use {what}.argmax(1)" if kind == "one-hot rows" else f"use {what}.argmax(1) for the likeliest class"


def whole_number(value: Any, what: str, least: int | None = None) -> int:
    """A whole number, or a clear error.

    Args:
        value: what was handed in; numpy's integers are taken.
        what: its name in errors.
        least: the smallest that is allowed.
    """
    if isinstance(value, bool) or not hasattr(type(value), "__index__") or (isinstance(value, Tensor) and value.ndim):
        raise InputError(f"{what}: expected a whole number, got {value!r}; write it without a point, such as 10")
    try:
        number = int(value.__index__())
    except TypeError as error:  # a tensor of floats
        raise InputError(
            f"{what}: expected a whole number, got {value!r}; write it without a point, such as 10"
        ) from error
    if least is not None and number < least:
        raise InputError(f"{what}: expected at least {least}, got {number}; correct it")
    return number


def check_model(model: Any) -> None:
    """A model is something that can be called with inputs.

    Raises:
        InputError: a state dict, a path, a class in place of its instance, or anything else that cannot be called.
    """
    if callable(model) and not isinstance(model, type):
        return
    if isinstance(model, type):
        got, cure = f"the class {model.__name__}", f"make one: {model.__name__}(...)"
    elif isinstance(model, Mapping):
        tensors = sum(isinstance(v, Tensor) for v in model.values())
        got = f"a state dict of {tensors} tensors" if tensors else f"a dict with {', '.join(map(str, list(model)[:4]))}"
        cure = "build the network, call net.load_state_dict(...) with it, and pass net"
    elif isinstance(model, str | os.PathLike):
        got, cure = (
            f"the path {os.fspath(model)!r}",
            "open it first (danskin.foreign.open_model), or use the command line",
        )
    else:
        got, cure = type(model).__name__, "pass the network, or a function from inputs to logits"
    raise InputError(f"model: expected something to call with a batch of inputs, got {got}; {cure}")


@cache
def _plain_fields(cls: type) -> tuple[tuple[str, str, bool], ...]:
    """(name, "int", "float" or "bool", whether None is allowed) of the fields of a dataclass that are numbers."""
    out = []
    for f in fields(cls):
        names = (f.type if isinstance(f.type, str) else getattr(f.type, "__name__", "")).split(" | ")
        if names[0] in ("int", "float", "bool") and names[1:] in ([], ["None"]):
            out.append((f.name, names[0], len(names) > 1))
    return tuple(out)


def check_fields(value: Any) -> None:
    """The fields of a dataclass that are declared as whole numbers, numbers or bools hold such.

    Raises:
        InputError: one does not.
    """
    for name, kind, optional in _plain_fields(type(value)):  # type: ignore[arg-type]
        held, what = getattr(value, name), f"{type(value).__name__}.{name}"
        if held is None and optional:
            continue
        if kind == "int":
            whole_number(held, what)
        elif kind == "bool" and not isinstance(held, bool | np.bool_):
            raise InputError(f"{what}: expected True or False, got {held!r}; write one of them")
        elif kind == "float" and (isinstance(held, bool) or not isinstance(held, numbers.Real)):
            raise InputError(f"{what}: expected a number, got {held!r}; write it such as 0.5")
