"""ONNX files: converted to a differentiable module, or run by ONNX Runtime, which gives no gradients."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danskin.errors import CheckpointError, ConfigError, MissingError, ModelError
from danskin.foreign.opened import Batched, Opened, file_hash, ready, set_eval, warn
from danskin.foreign.words import first_line, near, needed

BACKENDS = ("auto", "torch", "onnxruntime")
_INSTALL = "pip install onnx onnx2pytorch onnxruntime"


class RuntimeNet(nn.Module):
    """A session of ONNX Runtime as a module without parameters; no gradient passes through it.

    Args:
        path: the file.
        name: of its input.
        device: where it runs; results come back on the device of the input.

    Raises:
        MissingError: ONNX Runtime is not installed.
        CheckpointError: it does not take this file.
    """

    def __init__(self, path: Path, name: str, device: torch.device) -> None:
        super().__init__()
        try:
            import onnxruntime
        except Exception as error:
            raise needed(str(path), "ONNX Runtime", _INSTALL, error) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        offered = onnxruntime.get_available_providers()
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        providers = [p for p in (*wanted, "CPUExecutionProvider") if p in offered]
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # the runtime's own kinds: unknown operators, broken graphs
            raise CheckpointError(
                f"{path}: expected a network that ONNX Runtime runs, got {first_line(error)}; export it again"
            ) from error
        self.input = name
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Logits, without a graph behind them."""
        (logits,) = self.session.run(None, {self.input: x.detach().to("cpu", torch.float32).numpy()})
        return torch.from_numpy(logits).to(x.device)


def open_onnx(path: Path, device: torch.device, classes: int | None, arguments: dict[str, Any]) -> Opened:
    """An ONNX network with one input and one output.

    Args:
        path: the file; weights may lie beside it.
        device: where it runs.
        classes: how many logits are expected.
        arguments: backend="torch" insists on gradients, "onnxruntime" does without; default "auto": gradients
            where the conversion works and agrees with ONNX Runtime.

    Raises:
        MissingError: a package is not installed.
        CheckpointError: the file does not read, or cannot be converted.
        ModelError: other inputs and outputs than one tensor each.
    """
    unknown = sorted(arguments.keys() - {"backend"})
    if unknown:
        raise ConfigError(f"{path}: expected no argument but backend, got {unknown[0]!r}; leave it out")
    backend = arguments.get("backend", "auto")
    if backend not in BACKENDS:
        raise ConfigError(f"backend: expected a known one, got {backend!r}; {near(str(backend), BACKENDS, '')}")
    proto, sidecars = _read(path)
    name, shape = _input(path, proto)
    size = shape[0] if shape else None
    notes = [f"exported for inputs of shape ({', '.join('any' if n is None else str(n) for n in shape)})"]
    if size is not None:
        notes.append(f"exported with a fixed batch size of {size}: batches are cut and filled up to {size}")
    net: nn.Module | None = None
    if backend != "onnxruntime":
        try:
            net, told = _converted(path, proto, name, shape, device)
            notes.append(told)
        except (MissingError, CheckpointError) as error:
            if backend == "torch" or not _has_runtime():
                raise
            notes.append(warn(f"no gradients: {error}"))
    differentiable = net is not None
    if net is None:
        net = RuntimeNet(path, name, device)
        notes.append("run by ONNX Runtime, without gradients: only attacks that need none can judge it")
    if size is not None:
        net = Batched(net, size, size)
    digest = file_hash(path, *sidecars)
    return ready(net, str(path), device, notes=notes, digest=digest, differentiable=differentiable, classes=classes)


def _read(path: Path) -> tuple[Any, list[Path]]:
    """The network, and the files beside it that hold weights."""
    try:
        import onnx
    except Exception as error:
        raise needed(str(path), "onnx", _INSTALL, error) from error
    try:
        proto = onnx.load(str(path), load_external_data=False)
        beside = {entry.value for t in proto.graph.initializer for entry in t.external_data if entry.key == "location"}
        proto = onnx.load(str(path))
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


def _converted(
    path: Path, proto: Any, name: str, shape: tuple[int | None, ...], device: torch.device
) -> tuple[nn.Module, str]:
    """The network as a torch module whose logits were compared with another runtime."""
    try:
        from onnx2pytorch import ConvertModel
    except Exception as error:  # a torchvision that does not fit torch raises RuntimeError
        raise needed(str(path), "onnx2pytorch", _INSTALL, error) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about buffers that are read-only or scalars
        try:
            net: nn.Module = ConvertModel(proto)
            set_eval(net)
            sizes = [n or (2 if k == 0 else 32) for k, n in enumerate(shape)]
            x = torch.rand(sizes, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                mine = net(x)
        except Exception as error:  # an operator that the converter lacks, and anything else
            raise CheckpointError(
                f"{path}: expected operators that onnx2pytorch converts, got {first_line(error)}; use "
                "backend=onnxruntime, or name the code: --model package.module:factory"
            ) from error
        other, by = _reference(path, proto, name, x)
    gap, scale = float((mine - other).abs().max()), float(other.abs().max())
    if not gap <= 1e-3 * scale + 1e-6:
        raise CheckpointError(
            f"{path}: expected the converted network to agree with {by}, got logits that differ by {gap:.3g}; use "
            "backend=onnxruntime"
        )
    return net, f"converted by onnx2pytorch; logits of random inputs differ from {by} by {gap:.1e}"


def _reference(path: Path, proto: Any, name: str, x: Tensor) -> tuple[Tensor, str]:
    """The logits another runtime gives: ONNX Runtime, or ONNX's own slow evaluator."""
    if _has_runtime():
        return RuntimeNet(path, name, torch.device("cpu"))(x), "ONNX Runtime"
    from onnx.reference import ReferenceEvaluator

    (logits,) = ReferenceEvaluator(proto).run(None, {name: x.numpy()})
    return torch.from_numpy(logits), "ONNX's reference evaluator"


def _has_runtime() -> bool:
    try:
        import onnxruntime  # noqa: F401
    except Exception:  # not installed, or broken
        return False
    return True
