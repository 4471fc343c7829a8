"""An ONNX file as a torch module that takes any number of examples, compared with another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danskin.errors import CheckpointError
from danskin.foreign.onnx_graph import Unfit
from danskin.foreign.onnx_input import InputForm
from danskin.foreign.onnx_translate import translate
from danskin.foreign.opened import Batched
from danskin.foreign.words import first_line


class PerExample(nn.Module):
    """A network for one example, applied to each of a batch by `torch.func.vmap`.

    Args:
        net: takes (1, ...) and returns (1, classes).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Logits of all examples."""
        if not len(x):  # vmap takes none
            return self.net(x.new_zeros(1, *x.shape[1:]))[:0]
        if len(x) == 1:  # what it is, for whoever traces it
            return self.net(x)
        return torch.func.vmap(lambda row: self.net(row[None])[0])(x)


def as_torch(
    path: Path, proto: Any, form: InputForm, other: nn.Module, by: str, device: torch.device
) -> tuple[nn.Module, list[str]]:
    """The network as a torch module with gradients, and notes.

    Batch sizes are followed where the graph allows; else the network is applied to each example on its own, or, where
    it was exported for several, batches are cut and filled up. Each is tried on random inputs, and the first that
    agrees with the other runtime, for several examples and for one, is taken.

    Args:
        path: the file.
        proto: what it holds.
        form: its input.
        other: the same network by another runtime.
        by: its name.
        device: where it goes.

    Raises:
        CheckpointError: an operator has no rule, or the logits differ.
    """
    x = form.samples(max(form.batch or 0, 3)).to(device)
    wanted, alone = other(x), other(x[:1])
    failed: list[str] = []
    for batches, fixed, note in _ways(form):
        try:
            net: nn.Module = translate(proto, batches, fixed, form.arrange).to(device)
            if len(batches) == 1:
                net = PerExample(net) if batches == (1,) else Batched(net, batches[0], batches[0])
            gap = max(_gap(net, x, wanted), _gap(net, x[:1], alone))
        except Unfit as why:
            failed.append(str(why))
            if why.lacking:
                break
            continue
        scale = float(wanted.abs().max())
        if gap <= 1e-4 * scale + 1e-6:
            return net, [*note, f"translated to torch; logits of random inputs differ from {by} by {gap:.1e}"]
        failed.append(f"logits that differ by {gap:.3g} from those of {by}")
    raise CheckpointError(
        f"{path}: expected a network that can be translated to torch and agrees with {by}, got {failed[0]}; use "
        "backend=onnxruntime, which gives no gradients, or name the code: --model package.module:factory"
    )


def _ways(form: InputForm) -> list[tuple[tuple[int, ...], bool, list[str]]]:
    """(batch sizes, whether the file's numbers are meant for the first, notes), the best first."""
    n = form.batch
    if n is None:
        told = "says that it takes any batch size, but holds numbers for one example"
        return [
            ((3, 5, 6), False, []),
            ((1, 3, 5), True, [f"{told}: they were made to follow the batch"]),
            ((1,), True, [f"{told}: each example is taken on its own"]),
        ]
    told = f"exported with a fixed batch size of {n}" if n else "exported without a dimension for the batch"
    cut = "each example is taken on its own" if n < 2 else f"batches are cut and filled up to {n}"
    ways: list[tuple[tuple[int, ...], bool, list[str]]] = [((max(n, 1),), True, [f"{told}: {cut}"])]
    return [((n, n + 1, n + 3), True, [f"{told}: it was made to follow the batch"]), *ways] if n else ways


def _gap(net: nn.Module, x: Tensor, wanted: Tensor) -> float:
    """Largest difference of logits; NaN counts as infinite."""
    try:
        with torch.no_grad():
            mine = net(x)
    except Exception as error:  # an operator that torch lacks for such values
        raise Unfit(first_line(error)) from error
    if mine.shape != wanted.shape:
        return float("inf")
    gap = float((mine - wanted).abs().max()) if mine.numel() else 0.0
    return gap if gap == gap else float("inf")
