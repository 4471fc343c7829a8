"""`danskin lipschitz`: from words to a model, its input's shape, and the table of bounds. Lecture: row E6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.data import Dataset, load, to_float
from danskin.errors import ConfigError, InputError, MissingError
from danskin.foreign import is_onnx, open_model
from danskin.lipschitz import Lipschitz, lipschitz
from danskin.models import MODELS
from danskin.run.asking import _arguments, _numbers
from danskin.run.source import open_source


@dataclass(frozen=True, eq=False)
class Found:
    """A model that was opened.

    Args:
        name: what it is called.
        model: in eval mode.
        input_shape: of one example.
        data: whose test examples may be named; None without.
    """

    name: str
    model: Any
    input_shape: tuple[int, ...]
    data: Dataset | None


def opened(
    spec: str,
    only: str | None,
    weights: Path | None,
    arguments: list[str],
    statistics: tuple[str | None, str | None],
    shape: str | None,
    data: str | None,
    device: torch.device,
) -> list[Found]:
    """The models that `spec` names: of a run folder or danskin's weights file, or any that `evaluate --model` opens.

    Raises:
        ConfigError: words that do not go together, or no input shape.
    """
    path = Path(spec).expanduser()
    if path.is_dir() or path.suffix == ".safetensors":
        if weights is not None or arguments or shape or data or any(statistics):
            raise ConfigError(
                "lipschitz: expected --weights, --arg, --shape, --data, --mean and --std only for models that are no "
                "run, got one; a run brings its own"
            )
        config, split, models = open_source(path, [], device)
        del config
        if only is not None and only not in models:
            raise ConfigError(f"--model: expected one of {', '.join(models)}, got {only!r}; leave it out for all")
        shape_of = tuple(split.data.image_shape)
        return [Found(k, m, shape_of, split.data) for k, m in models.items() if only in (None, k)]
    if only is not None:
        raise ConfigError(f"--model: expected it only with a run of several models, got {only!r}; leave it out")
    found = load(data) if data is not None else None
    size = _shape(shape) if shape is not None else None if found is None else tuple(found.image_shape)
    if size is None:
        raise ConfigError(
            f"lipschitz: expected a run folder, or the shape of one input beside a model, got {spec!r} alone, which is "
            "no folder; check the path, or give --shape 3,32,32 or --data with a name of `danskin list data`"
        )
    keywords = _arguments(arguments)
    if spec in MODELS:
        classes = {"classes": len(found.classes)} if found is not None else {}
        keywords = {"input_shape": size} | classes | keywords
    elif is_onnx(spec):
        keywords = {"input_shape": size} | keywords
    mean, std = (_numbers(flag, text) for flag, text in zip(("--mean", "--std"), statistics, strict=True))
    model = open_model(spec, weights=weights, device=device, arguments=keywords, mean=mean, std=std)
    return [Found(model.name, model.model, size, found)]


def _shape(text: str) -> tuple[int, ...]:
    try:
        size = tuple(int(word) for word in text.strip("()[] ").split(","))
    except ValueError:
        size = ()
    if not size or min(size) < 1:
        raise ConfigError(f"--shape: expected numbers such as 3,32,32, got {text!r}; leave out the batch dimension")
    return size


def center_of(found: Found, at: str | None) -> Tensor | None:
    """The input that `--at` names: the number of a test example, or a .npy file.

    Raises:
        ConfigError: a number without data, or another shape.
        MissingError: no such file.
    """
    if at is None:
        return None
    if at.isdigit():
        if found.data is None:
            raise ConfigError(f"--at: expected a file.npy, as there are no data, got {at}; or give --data")
        if int(at) >= len(found.data.x_test):
            raise ConfigError(f"--at: expected a number below {len(found.data.x_test)}, got {at}; count from 0")
        return to_float(found.data.x_test[int(at) : int(at) + 1])[0]
    path = Path(at).expanduser()
    if not path.is_file():
        raise MissingError(f"--at: expected the number of a test example or a file.npy, got {at!r}", "ls *.npy")
    try:
        x = torch.from_numpy(np.load(path, allow_pickle=False)).double()
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"--at: expected an array in {path}, got what numpy cannot read: {error}") from error
    if tuple(x.shape) != found.input_shape:
        raise ConfigError(
            f"--at: expected an input of shape {found.input_shape}, got {tuple(x.shape)}; correct the file"
        )
    return x


def measured(
    found: Found,
    norm: str,
    budget: float,
    methods: Sequence[str] | None,
    at: str | None,
    radius: float | None,
    seed: int,
) -> Lipschitz:
    """The table of one model; the search begins at test examples where there are data, too."""
    x = None
    if found.data is not None and at is None:
        x = to_float(found.data.x_test[:256]).double()
    center = center_of(found, at)
    return lipschitz(
        found.model, found.input_shape, norm=norm, budget_s=budget, methods=methods or None,  # type: ignore[arg-type]
        at=center, radius=radius, x=x, seed=seed,
    )  # fmt: skip
