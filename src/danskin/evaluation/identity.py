"""Which model an outcome is of: its weights and buffers, and what it computes at inputs that anyone can make again."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from danskin.attacks.checks import DataBox
from danskin.attacks.guard import as_found
from danskin.callables import reach
from danskin.evaluation.fingerprint import model_hash, state_hash
from danskin.minmax import Streams
from danskin.minmax.data_box import box_for

#: "unknown": it cannot be told, so nothing may be taken over.
Relation = Literal["same", "other", "unknown"]

_PROBES = 8
_COLUMNS = 64  # of the outputs, evenly spaced, that are written down
_ALIKE = 1e-4  # of the largest output: rounding between batches, threads and versions stays below
_ELSEWHERE = 5e-3  # on accelerators, and between devices: TensorFloat-32, other algorithms
_SMALLEST = 1e-30  # probability; what is less is rounding


@dataclass(frozen=True)
class Identity:
    """What tells a model from others.

    Args:
        hash: of weights and all buffers (`model_hash`); None where none are reached.
        state: of the saved state alone (`state_hash`): what journals held before outputs were kept.
        outputs: (probes, columns) at the probes; of probabilities the logarithm.
        place: the device they were computed on.
        coarse: relative rounding of the model's own dtype.
        doubt: why outputs do not tell which model this is; empty where they do.
    """

    hash: str | None
    state: str | None
    outputs: tuple[tuple[float, ...], ...]
    place: str
    coarse: float
    doubt: str

    def to_dict(self) -> dict[str, Any]:
        """All but the hash, for a question or a verdict on disk; numbers that JSON does not know are texts."""
        rows = [[v if math.isfinite(v) else str(v) for v in row] for row in self.outputs]
        return {"state": self.state, "outputs": rows, "place": self.place, "coarse": self.coarse, "doubt": self.doubt}

    @staticmethod
    def from_dict(hash: str | None, computed: dict[str, Any]) -> Identity:
        """What `to_dict` wrote."""
        rows = tuple(tuple(float(v) for v in row) for row in computed["outputs"])
        return Identity(hash, **computed | {"outputs": rows})

    def relation(self, hash: str | None, computed: dict[str, Any] | None) -> Relation:
        """Whether a model that was written down is this one.

        Args:
            hash: of that model.
            computed: its `to_dict()`; None where it was written down before outputs were kept. Then the weights
                decide, where there are any.
        """
        if computed is None:
            if hash is None or self.doubt:
                return "unknown"
            return "same" if hash in (self.hash, self.state) else "other"
        if hash != self.hash:
            return "other"
        there = Identity.from_dict(hash, computed)
        if self.doubt or there.doubt:
            return "unknown"
        here, then = (torch.tensor(each.outputs, dtype=torch.float64) for each in (self, there))
        share = _ALIKE if self.place == there.place == "cpu" else _ELSEWHERE
        return "same" if _alike(here, then, max(share, 8 * self.coarse, 8 * there.coarse)) else "other"


def identify(model: Any, x: Tensor, box: DataBox) -> Identity:
    """The identity of a model, by two passes over 8 made-up inputs; the model is left as found.

    The passes are made by a copy that shares the weights, so that a model that counts does not count them. A model
    is in doubt whose two passes differ, that raises at made-up inputs, or that says too little: labels, votes, the
    same for all inputs.

    Args:
        model: inputs to logits; looked at in eval mode.
        x: (any number, ...) floating-point inputs; only their shape, dtype and device count.
        box: (low, high) of valid data; None for inputs in [-1, 1].
    """
    made = probes(x, box)
    with as_found(model, "eval", x.device, warn=False), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        asked = _twin(model)
        try:
            first, second = asked(made.clone()), asked(made.clone())
            rows, again, coarse = _numbers(first), _numbers(second), torch.finfo(first.dtype).eps
        except Exception as error:  # whatever somebody's model may raise
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            rows = again = torch.zeros(0, 0, dtype=torch.float64)
            doubt, coarse = f"it raises at made-up inputs ({reason})", 0.0
        else:
            doubt = _doubt(rows, again, max(_ALIKE, 8 * coarse))
    outputs = tuple(tuple(row) for row in rows.tolist())
    place = "cpu" if x.device.type == "cpu" else _name(x.device)
    return Identity(model_hash(model), state_hash(model), outputs, place, coarse, doubt)


def probes(x: Tensor, box: DataBox) -> Tensor:
    """(8, ...) inputs in the box, the same wherever they are made: four smooth ones, four of noise of growing size."""
    like = torch.empty(_PROBES, *x.shape[1:], dtype=torch.float64)
    low, high = box_for((-1, 1) if box is None else box, like) or (-1, 1)
    d, k = like[0].numel(), torch.arange(4, dtype=torch.float64)[:, None]
    smooth = 0.5 + 0.15 * k * (math.pi * (k + 1) * torch.arange(d, dtype=torch.float64) / max(d, 1) + k).cos()
    noise = Streams.of(0, torch.arange(4)).uniform(like[4:])
    size = torch.tensor([0.2, 0.5, 0.8, 1.0], dtype=torch.float64).view(4, *[1] * (like.ndim - 1))
    share = torch.cat([smooth.view_as(noise), 0.5 + size * (noise - 0.5)])
    start = torch.as_tensor(low, dtype=torch.float64).cpu()
    return (start + (torch.as_tensor(high, dtype=torch.float64).cpu() - start) * share).to(x)


def _twin(model: Any) -> Any:
    """A copy of a module that shares its weights; the model itself where there cannot be one."""
    if not isinstance(model, nn.Module):
        return model
    shared = [*model.parameters(), *(t for t in reach(model).tensors if t.is_floating_point())]
    try:
        return copy.deepcopy(model, {id(t): t for t in shared})
    except Exception:  # locks, files, compiled code
        return model


def _numbers(output: Any) -> Tensor:
    """(probes, columns) float64 on the CPU; the logarithm of probabilities, whose small ones say as much as large."""
    rows = output.detach().cpu().to(torch.float64).reshape(_PROBES, -1)
    if rows.shape[1] > 1 and bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < 1e-3).all()):
        rows = rows.clamp_min(_SMALLEST).log()
    return rows[:, torch.linspace(0, rows.shape[1] - 1, min(rows.shape[1], _COLUMNS)).round().long()]


def _doubt(rows: Tensor, again: Tensor, share: float) -> str:
    if not _alike(rows, again, share):
        return "it is random"
    finite = rows[rows.isfinite()]
    if len(finite.unique()) < max(0.75 * _PROBES, len(finite) / 2):
        return "its outputs take few values"
    return ""


def _alike(one: Tensor, other: Tensor, share: float) -> bool:
    """Equal up to a share of the largest, and infinite or NaN in the same places."""
    if one.shape != other.shape:
        return False
    finite = one.isfinite() & other.isfinite()
    if not torch.equal(one.nan_to_num(nan=0.5)[~finite], other.nan_to_num(nan=0.5)[~finite]):
        return False
    scale = one[finite].abs().max() if bool(finite.any()) else torch.zeros(())
    return bool(((one - other)[finite].abs() <= share * scale).all())


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
