"""ONNX files: translated to a differentiable torch module, or run by ONNX Runtime, which gives no gradients."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from danskin.errors import CheckpointError, ConfigError, MissingError, ModelError
from danskin.foreign.onnx_input import LAYOUTS, InputForm, shown
from danskin.foreign.onnx_runtime import as_runtime, has_runtime
from danskin.foreign.onnx_torch import as_torch
from danskin.foreign.opened import Opened, file_hash, ready, warn
from danskin.foreign.words import first_line, near, needed

BACKENDS = ("auto", "torch", "onnxruntime")
_INSTALL = "pip install onnx onnxruntime"


def open_onnx(path: Path, device: torch.device, classes: int | None, arguments: dict[str, Any]) -> Opened:
    """An ONNX network with one input and one output, which takes batches of images (N, C, H, W).

    Args:
        path: the file; weights may lie beside it.
        device: where it runs.
        classes: how many logits are expected.
        arguments: backend="torch" insists on gradients, "onnxruntime" does without; default "auto": gradients
            where the translation works and agrees with another runtime. layout="nchw" or "nhwc" says where the file
            wants the channels, if its declaration does not. input_shape=[C, H, W] of the images fills sizes that
            the file leaves free.

    Raises:
        MissingError: a package is not installed.
        ConfigError: unknown arguments, or an input_shape is needed.
        CheckpointError: the file does not read, or cannot be translated.
        ModelError: other inputs and outputs than one tensor each, or other images.
    """
    backend, layout = _choices(path, arguments)
    proto, sidecars = _read(path)
    name, declared = _input(path, proto)
    form = InputForm.of(path, declared, layout, arguments.get("input_shape"))
    notes = [f"exported for inputs of shape {shown(declared)}", *form.notes()]
    net, by = as_runtime(path, proto, name, form, torch.device("cpu") if backend != "onnxruntime" else device)
    differentiable = backend != "onnxruntime"
    if differentiable:
        try:
            net, told = as_torch(path, proto, form, net, by, device)
            notes += told
        except CheckpointError as error:
            if backend == "torch" or not has_runtime():
                raise
            differentiable = False
            notes.append(warn(f"no gradients: {error}"))
    if not differentiable:
        notes.append("run by ONNX Runtime, without gradients: only attacks that need none can judge it")
    digest = file_hash(path, *sidecars)
    if form.key:
        digest = hashlib.sha256((digest + form.key).encode()).hexdigest()
    return ready(net, str(path), device, notes=notes, digest=digest, differentiable=differentiable, classes=classes)


def _choices(path: Path, arguments: dict[str, Any]) -> tuple[str, str]:
    known = {"backend": BACKENDS, "layout": LAYOUTS}
    unknown = sorted(arguments.keys() - {*known, "input_shape"})
    if unknown:
        raise ConfigError(
            f"{path}: expected no argument but backend, layout and input_shape, got {unknown[0]!r}; leave it out"
        )
    chosen = []
    for key, options in known.items():
        value = arguments.get(key, "auto")
        if value not in options:
            raise ConfigError(f"{key}: expected a known one, got {value!r}; {near(str(value), options, '')}")
        chosen.append(value)
    return chosen[0], chosen[1]


def _read(path: Path) -> tuple[Any, list[Path]]:
    """The network, and the files beside it that hold weights."""
    try:
        import onnx
        import onnx.inliner
    except Exception as error:
        raise needed(str(path), "onnx", _INSTALL, error) from error
    try:
        proto = onnx.load(str(path), load_external_data=False)
        beside = {entry.value for t in proto.graph.initializer for entry in t.external_data if entry.key == "location"}
        proto = onnx.load(str(path))
        if proto.functions:
            proto = onnx.inliner.inline_local_functions(proto)
    except FileNotFoundError as error:
        raise MissingError(
            f"{path}: expected the weights beside it, got {first_line(error)}", "copy them too"
        ) from error
    except Exception as error:  # protobuf raises kinds of its own
        raise CheckpointError(
            f"{path}: expected an ONNX network, got a file that does not read ({first_line(error)}); export it again"
        ) from error
    return proto, [path.parent / name for name in sorted(beside)]


def _input(path: Path, proto: Any) -> tuple[str, tuple[int | None, ...]]:
    """Name and shape of the one input; None where a size is free."""
    import onnx

    held = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in held]
    outputs = [value.name for value in proto.graph.output]
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{path}: expected one input and one output, got inputs {[v.name for v in inputs]} and outputs {outputs}; "
            "cut it with onnx.utils.extract_model(old, new, [images], [logits])"
        )
    kind = inputs[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        got = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise ModelError(f"{path}: expected a network that takes float32, got {got}; export it in full precision")
    return inputs[0].name, tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
