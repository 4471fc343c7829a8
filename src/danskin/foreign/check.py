"""Does an opened model behave? One small batch tells, before an hour of attacks does."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from danskin.attacks.checks import check_inputs, warn_if_probabilities
from danskin.attacks.guard import as_found
from danskin.errors import DanskinWarning, InputError, ModelError
from danskin.evaluation.dependence import gap_alone
from danskin.foreign.opened import Batched, Logits, Opened, logits_of, set_eval, warn
from danskin.foreign.words import first_line
from danskin.losses import usable
from danskin.models import Normalize

_SIZES = (1, 2, 4, 8, 10, 16, 32, 50, 64, 100, 128, 256)  # batch sizes that people trace models with
_HALF = (torch.float16, torch.bfloat16)


def check_model(opened: Opened, x: Tensor) -> Opened:
    """Run a few examples and settle what could not be known before.

    Args:
        opened: what `open_model` gave; its model is left as found, but for eval mode.
        x: (batch, ...) examples in [0, 1] on the model's device; the first four are used.

    Returns:
        the same with `differentiable` settled and notes added; its model unwraps outputs that hold `.logits`, and
        takes every batch size.

    Raises:
        InputError: x is no batch of inputs in [0, 1].
        ModelError: the model does not take such inputs, or returns something else than finite logits of shape
            (batch, classes).
    """
    check_inputs(x, (0, 1))
    if not len(x):
        raise InputError("x: expected at least one example to try the model on, got none; give some data")
    x, model, notes = x[:4].detach(), opened.model, []
    if set_eval(model):
        notes.append("put into eval mode")
    with as_found(model, "as_is", x.device, warn=False):
        model, output, told = _first_call(opened, model, x)
        notes += told
        if not isinstance(output, Tensor) and isinstance(logits_of(output), Tensor):
            model, output = Logits(model) if isinstance(model, nn.Module) else _unwrapped(model), logits_of(output)
            notes.append("logits taken out of the model's output")
        notes += _check_output(opened, model, output, x)
        notes += _check_rows(model, output, x)
        differentiable, told = _gradient(model, x) if opened.differentiable else (False, [])
    note = "; ".join(t for t in (opened.note, *notes, *told) if t)
    return replace(opened, model=model, differentiable=differentiable, note=note)


def _first_call(opened: Opened, model: Any, x: Tensor) -> tuple[Any, Any, list[str]]:
    """The output for x, and the model, cut to the batch size it was made for where there is only one."""
    try:
        with torch.no_grad():
            return model, model(x), []
    except Exception as error:  # whatever somebody else's code raises
        size = _only_size(model, x) if _scripted(model) else None
        if size is None:
            raise ModelError(
                f"{opened.name}: expected to take inputs of shape {tuple(x.shape)} and {x.dtype}, got "
                f"{_cause(error)}; {_hint(model, x, opened.note)}"
            ) from error
    fixed = Batched(model, size, size)
    with torch.no_grad():
        note = f"takes batches of {size} only: others are cut and filled up to {size}; export it with any batch size"
        return fixed, fixed(x), [note]


def _scripted(model: Any) -> bool:
    return isinstance(model, nn.Module) and any(isinstance(m, torch.jit.ScriptModule) for m in model.modules())


def _only_size(model: Any, x: Tensor) -> int | None:
    """The batch size with which a traced model works, where it was burned in."""
    for size in _SIZES:
        try:
            with torch.no_grad():
                model(x[:1].expand(size, *x.shape[1:]).contiguous())
        except Exception:  # not this one
            continue
        return size
    return None


def _cause(error: Exception) -> str:
    """What was raised; the last line says it where TorchScript puts a traceback first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200]}" if len(lines) > 3 else first_line(error)


def _hint(model: Any, x: Tensor, note: str) -> str:
    """The likely cause: precision, channels, size, device."""
    if not isinstance(model, nn.Module):
        return "see that the callable takes torch tensors in [0, 1], batch first"
    held = next((p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()), None)
    if held is not None and held.device != x.device:
        return f"the model is on {held.device} and the inputs on {x.device}: bring both to one device"
    if held is not None and held.dtype in _HALF:
        return (
            f"its weights are {held.dtype}: judge model.float(), which holds the same numbers, or let forward convert "
            "inputs and logits"
        )
    if held is not None and held.dtype != x.dtype and held.is_floating_point():
        return f"its weights are {held.dtype}: use model.to({x.dtype})"
    for name, layer in model.named_modules():
        wanted = _wanted(layer, x)
        if wanted:
            return f"its first layer{f' ({name})' if name else ''} expects {wanted}: give such data"
    return f"{note}: give such data" if "inputs of shape" in note else "see what forward expects"


def _wanted(layer: nn.Module, x: Tensor) -> str:
    """What a first layer expects and x does not have; "" for layers that say nothing or fit."""
    kind = type(layer).__name__
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        text = f"{layer.in_channels} channels in dimension 1 ({kind}), not {x.shape[1]}"
        if x.shape[-1] == layer.in_channels:
            text += "; channels seem to be last: use x.movedim(-1, 1)"
        return (
            text if x.shape[1] != layer.in_channels else f"inputs of other height and width than {tuple(x.shape[2:])}"
        )
    if isinstance(layer, Normalize) and x.ndim > 1 and len(layer.mean) not in (1, x.shape[1]):
        return f"{len(layer.mean)} channels in dimension 1 (Normalize), not {x.shape[1]}"
    if isinstance(layer, nn.Linear):
        size = x[0].numel()
        if x.ndim > 2 and size == layer.in_features:
            return f"{layer.in_features} features (Linear), in one dimension: put nn.Flatten() in front"
        return f"{layer.in_features} features (Linear), not {size}"
    return ""


def _unwrapped(model: Any) -> Any:
    return lambda x: logits_of(model(x))


def _check_output(opened: Opened, model: Any, output: Any, x: Tensor) -> list[str]:
    """Finite logits of shape (batch, classes); notes on precision and probabilities."""
    name = opened.name
    if not isinstance(output, Tensor):
        inside = ""
        if isinstance(output, tuple | list):
            inside = (
                f" of {', '.join(str(tuple(o.shape)) if isinstance(o, Tensor) else type(o).__name__ for o in output)}"
            )
        elif isinstance(output, dict):
            inside = f" with {', '.join(map(repr, list(output)[:6]))}"
        raise ModelError(
            f"{name}: expected a tensor of logits, got a {type(output).__name__}{inside}; wrap the model in one whose "
            "forward returns the logits only"
        )
    if not output.is_floating_point():
        raise ModelError(
            f"{name}: expected floating-point logits, got {output.dtype}; return scores, not predicted labels"
        )
    if output.ndim != 2 or len(output) != len(x) or output.shape[1] < 2:
        one = output.numel() == len(x)
        raise ModelError(
            f"{name}: expected logits of shape ({len(x)}, classes), got {tuple(output.shape)}; "
            + (
                "for one score z of two classes return torch.stack([-z / 2, z / 2], 1)"
                if one
                else "return one row of class scores for each example"
            )
        )
    if opened.classes is not None and output.shape[1] != opened.classes:
        raise ModelError(
            f"{name}: expected {opened.classes} logits, one for each class of the data, got {output.shape[1]}; use the "
            "model's own data, or return the columns of these classes"
        )
    if not bool(usable(output).all()):
        raise ModelError(f"{name}: expected finite logits, got NaN or infinity{_spoiled(model)}; check the weights")
    notes = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_probabilities(output)
    for warning in caught:
        warnings.warn(warning.message, DanskinWarning, stacklevel=3)
        notes.append("returns probabilities, not logits: gradients saturate, and attacks look weaker than they are")
    if output.dtype in _HALF:
        notes.append(
            warn(f"{name}: logits in {output.dtype}: ties and vanishing gradients hide errors; use model.float()")
        )
    return notes


def _spoiled(model: Any) -> str:
    if isinstance(model, nn.Module):
        for name, value in model.state_dict().items():
            if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
                return f" (and in {name})"
    return ""


def _check_rows(model: Any, output: Tensor, x: Tensor) -> list[str]:
    """An example's logits do not depend on the batch it is in: attacks drop examples on the way."""
    if len(x) < 2:
        return []
    with torch.no_grad():
        try:
            alone = logits_of(model(x[:1]))
        except Exception as error:
            raise ModelError(
                f"model: expected to take any number of examples, got {first_line(error)} for a single one where it "
                f"took {len(x)}; attacks work on part of a batch"
            ) from error
    gap = gap_alone(output[:1], alone)
    if not gap:
        return []
    return [
        warn(
            f"model: expected logits that depend on the example only, got others by {gap:.3g} for the first one alone; "
            "the model is random, or mixes the examples of a batch: results will depend on the batch size"
        )
    ]


def _gradient(model: Any, x: Tensor) -> tuple[bool, list[str]]:
    """Whether a gradient reaches the input, and what is strange about it."""
    x = x.clone().requires_grad_()
    try:
        logits = model(x)
        (gradient,) = torch.autograd.grad(logits.float().logsumexp(1).sum(), x, allow_unused=True)
    except RuntimeError as error:
        return False, [warn(f"no gradient reaches the input ({first_line(error)}): only attacks that need none work")]
    if gradient is None:
        return False, [warn("no gradient reaches the input: only attacks that need none work")]
    if not bool(gradient.isfinite().all()):
        return True, [warn("the gradient at clean inputs holds NaN or infinity: attacks by gradient will fail there")]
    if not bool(gradient.any()):
        return True, [
            warn("the gradient is zero at the first inputs: it may be masked; also use attacks that need none")
        ]
    return True, []
