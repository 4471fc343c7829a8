"""ONNX networks run by others than torch: for comparison, and where nothing else runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danskin.errors import CheckpointError
from danskin.foreign.onnx_input import InputForm
from danskin.foreign.opened import Batched
from danskin.foreign.words import first_line


class RuntimeNet(nn.Module):
    """A network without parameters; no gradient passes through it.

    Args:
        path: the file.
        proto: what it holds.
        name: of its input.
        form: how images become that.
        device: where ONNX Runtime runs; results come back on the device of the input. Where it is not installed,
            ONNX's own slow evaluator takes its place.

    Raises:
        CheckpointError: neither takes this file.
    """

    def __init__(self, path: Path, proto: Any, name: str, form: InputForm, device: torch.device) -> None:
        super().__init__()
        self.form, self.input = form, name
        self.training = False
        self.by = "ONNX Runtime" if has_runtime() else "ONNX's reference evaluator"
        try:
            self.session = _session(path, device) if has_runtime() else _evaluator(proto)
        except Exception as error:  # the runtime's own kinds: unknown operators, broken graphs
            raise CheckpointError(
                f"{path}: expected a network that {self.by} runs, got {first_line(error)}; export it again"
            ) from error

    def forward(self, x: Tensor) -> Tensor:
        """Logits, without a graph behind them."""
        images = self.form.arranged(x.detach().to("cpu", torch.float32)).contiguous()
        (logits,) = self.session.run(None, {self.input: images.numpy()})
        found = torch.from_numpy(logits).to(x.device)
        sizes = found.shape[1:] if found.ndim > 1 and len(found) == len(x) else found.shape
        one_row = sum(n != 1 for n in sizes) <= 1 and found.numel() % max(len(x), 1) == 0
        return found.reshape(len(x), -1) if one_row else found


def as_runtime(path: Path, proto: Any, name: str, form: InputForm, device: torch.device) -> tuple[nn.Module, str]:
    """The network run by ONNX Runtime, for any number of examples, and who runs it.

    Raises:
        CheckpointError: it does not run.
    """
    net = RuntimeNet(path, proto, name, form, device)
    sizes: tuple[int | None, ...] = (None, 1) if form.batch is None else (form.batch or 1,)
    for size in sizes:
        x = form.samples(size or 3).to(device)
        try:
            net(x)
        except Exception as error:
            why = error
            continue
        return (net if size is None else Batched(net, size, size)), net.by
    raise CheckpointError(
        f"{path}: expected a network that {net.by} runs, got {first_line(why)}; export it again"
    ) from why


def has_runtime() -> bool:
    """Whether ONNX Runtime is installed and works."""
    try:
        import onnxruntime  # noqa: F401
    except Exception:  # not installed, or broken
        return False
    return True


def _session(path: Path, device: torch.device) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    offered = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [p for p in (*wanted, "CPUExecutionProvider") if p in offered]
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


def _evaluator(proto: Any) -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(proto)
