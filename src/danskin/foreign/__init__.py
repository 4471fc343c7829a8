"""Open any classifier, safely: code that the user named is run, files never are.

`open_model("mynets:resnet", weights=..., device=...)` gives an `Opened`; `check_model(opened, x)` tries it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from danskin.errors import ConfigError
from danskin.foreign.check import check_model
from danskin.foreign.factory import model_from_code
from danskin.foreign.front import normalized
from danskin.foreign.opened import Opened, ready, warn
from danskin.foreign.untrained import random_weights, watched
from danskin.foreign.weights import load_weights, missing_file, read_weights, written_by_danskin
from danskin.foreign.words import near
from danskin.models import MODELS, build

__all__ = ["Opened", "check_model", "is_onnx", "open_model"]

_WHOLE = (".pt2", ".ts", ".onnx")
_FILES = (*_WHOLE, ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".h5", ".keras", ".tflite", ".pkl", ".joblib")


def open_model(
    spec: str,
    *,
    weights: Path | None = None,
    device: torch.device,
    classes: int | None = None,
    arguments: dict[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Opened:
    """Open a classifier by what it is called.

    Args:
        spec: one of
            `package.module:factory`, a callable that returns a model, or a module instance;
            a name of `danskin list models`;
            a file of torch.export (.pt2), TorchScript (.ts, .pt) or ONNX (.onnx);
            `hf:folder` or `hf:organisation/model`; `timm:name`.
        weights: a file for models that come as code: safetensors, or a torch file of tensors only.
        device: where the model goes.
        classes: number of classes of the data; the number of logits is checked against it.
        arguments: keywords for the factory, the model, or the way of opening it. A danskin model needs input_shape.
        mean: per channel, of the inputs in [0, 1]: with std, (x - mean) / std becomes the first layer, whatever kind
            of model it is.
        std: likewise.

    Returns:
        the model in eval mode, its hash and notes; `check_model` runs it.

    Raises:
        MissingError: a file, module or package is not there; says how to get it.
        ConfigError: a spec or an argument that cannot be meant.
        CheckpointError: a file that does not read, does not fit, or would run code.
        ModelError: the factory raised, or made something else than a model.
    """
    if spec.startswith("timm:") and mean is not None and std is not None:  # they replace its own
        return _open(spec, weights, device, classes, {"mean": list(mean), "std": list(std)} | (arguments or {}))
    return normalized(_open(spec, weights, device, classes, dict(arguments or {})), mean, std, device)


def _open(
    spec: str, weights: Path | None, device: torch.device, classes: int | None, arguments: dict[str, Any]
) -> Opened:
    kind, _, name = spec.partition(":")
    if kind in ("hf", "timm") and not name:
        raise ConfigError(f"model: expected a name after {spec}, got none; for example hf:folder or timm:resnet18")
    if kind == "timm":
        from danskin.foreign.hub import open_timm

        return open_timm(name, device, weights, classes, arguments)
    if kind == "hf":
        from danskin.foreign.hub import open_transformers

        _alone(spec, weights, {})
        return open_transformers(name, device, classes, arguments)
    path = Path(spec).expanduser()
    if path.is_file() or path.suffix.lower() in _FILES:
        missing_file(path, "a model")
        return _open_file(path, device, weights, classes, arguments)
    if path.is_dir():
        raise ConfigError(f"model: expected a model, got the folder {spec!r}; {_for_folder(path)}")
    if spec in MODELS:
        return _open_danskin(spec, device, weights, classes, arguments)
    if ":" in spec:
        model, random = watched(lambda: model_from_code(spec, arguments))
        notes = [] if weights is None else load_weights(weights, model)
        flags = random_weights(random) if weights is None else ()
        return ready(model, spec, device, notes=notes, classes=classes, flags=flags)
    raise ConfigError(
        f"model: expected package.module:factory, a file, hf:NAME, timm:NAME or a name of `danskin list models`, got "
        f"{spec!r}; " + (f"name the factory, too: {spec}:make" if _is_module(spec) else near(spec, MODELS, ""))
    )


def _open_danskin(
    name: str, device: torch.device, weights: Path | None, classes: int | None, arguments: dict[str, Any]
) -> Opened:
    shape, classes = arguments.pop("input_shape", None), arguments.pop("classes", classes)
    if shape is None or classes is None:
        lacking = "input_shape" if shape is None else "classes"
        raise ConfigError(f"{name}: expected {lacking}, got none; for example input_shape=[3, 32, 32] and classes=10")
    model = build(name, input_shape=tuple(shape), classes=classes, **arguments)
    if weights is None:
        notes = [warn(f"{name}: random weights; give --weights FILE")]
    else:
        notes = load_weights(weights, model)
    flags = random_weights() if weights is None else ()
    return ready(model, name, device, notes=notes, classes=classes, flags=flags)


def _open_file(
    path: Path, device: torch.device, weights: Path | None, classes: int | None, arguments: dict[str, Any]
) -> Opened:
    kind = _kind(path)
    if kind == "weights":
        if path.suffix == ".safetensors" and written_by_danskin(path):
            raise ConfigError(f"{path}: expected a model, got a run's weights; danskin evaluate {path}")
        read_weights(path)  # says more where it is broken or holds objects
        raise ConfigError(
            f"{path}: expected a whole model, got weights, which do not say what network they are of; write --model "
            f"package.module:factory --weights {path}"
        )
    _alone(str(path), weights, {} if kind == "onnx" else arguments)
    if kind == "onnx":
        from danskin.foreign.onnx_file import open_onnx

        return open_onnx(path, device, classes, arguments)
    from danskin.foreign.graphs import open_exported, open_script

    return (open_exported if kind == "exported" else open_script)(path, device, classes)


def _kind(path: Path) -> str:
    """What a file is, by its content; names lie."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {part for name in archive.namelist() for part in (name, name.partition("/")[2])}
        if "constants.pkl" in names:
            return "script"
        if names & {"models/model.json", "serialized_exported_program.json", "archive_format"}:
            return "exported"
    ending = path.suffix.lower()
    if is_onnx(str(path)):
        return "onnx"
    if ending in (".pt2", ".ts"):
        return "exported" if ending == ".pt2" else "script"
    if ending in (".safetensors", ".pt", ".pth", ".ckpt", ".bin"):
        return "weights"
    raise ConfigError(
        f"{path}: expected a file of torch.export, TorchScript, ONNX or weights, got {ending or 'no ending'}; "
        "convert it to ONNX, or write a factory and --model package.module:factory"
    )


def is_onnx(spec: str) -> bool:
    """Whether a model's name is that of an ONNX file."""
    return Path(spec).suffix.lower() == ".onnx"


def _alone(spec: str, weights: Path | None, arguments: dict[str, Any]) -> None:
    if weights is not None:
        raise ConfigError(
            f"{spec}: expected no other weights, got --weights {weights}; it holds its own: leave them out"
        )
    if arguments:
        raise ConfigError(f"{spec}: expected no arguments, got {', '.join(sorted(arguments))}; leave them out")


def _is_module(spec: str) -> bool:
    here = Path(*spec.split("."))
    return here.with_suffix(".py").is_file() or (here / "__init__.py").is_file()


def _for_folder(path: Path) -> str:
    if (path / "config.yaml").is_file():
        return f"a run of danskin: danskin evaluate {path}"
    if (path / "config.json").is_file():
        return f"did you mean 'hf:{path}'?"
    if (path / "__init__.py").is_file():
        return f"did you mean '{'.'.join(path.parts)}:factory'?"
    return "name a file in it"
