"""What torch cannot do with somebody's model becomes a `ModelError` that says what to do about it."""

from __future__ import annotations

import dis
import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

import torch

from danskin.errors import DanskinError, ModelError

_TORCH = str(Path(torch.__file__).parent) + os.sep
_HERE = str(Path(__file__).parents[1]) + os.sep
#: Through these parts of torch a model is called, compiled or differentiated.
_PASSES = tuple(
    _TORCH + part.replace("/", os.sep)
    for part in ("nn/", "autograd/", "jit/", "fx/", "_dynamo/", "_inductor/", "_functorch/", "_compile.py")
)
#: What torch raises where Python's own operations raise it, too: it counts where torch speaks.
_SHARED = (TypeError, ValueError, IndexError, AssertionError)
_SPEAKS = re.compile(r"[Tt]ensor|[Dd]imension|torch\.|index out of range in self|size \d|invalid combination of arg")

#: What torch says, and what helps; the first that fits.
_CURES: tuple[tuple[str, str], ...] = (
    (
        r"leaf Variable.*in-place|modified by an inplace|in-?place operation|one of its base or another view",
        "write its forward without operations in place (x = x + 1, inplace=False)",
    ),
    (
        r"[Ii]nference tensor",
        "make or load its tensors outside of torch.inference_mode, or copy them outside (t.clone())",
    ),
    (
        r"numpy\(\) on Tensor that requires grad|does not require grad",
        "compute in torch from input to logits, without numpy, detach and no_grad, or use attacks without gradients "
        "(Square, HopSkipJump)",
    ),
    (
        r"meta tensor|meta device|device meta|on meta",
        "load its weights first: those on the meta device hold no numbers (net.to_empty(device='cpu') and "
        "net.load_state_dict(...))",
    ),
    (
        r"same device|cuda.*cpu|cpu.*cuda|cuda\.\w+Tensor.*torch\.\w+Tensor|device type",
        "bring model and inputs to one device: model.to(x.device)",
    ),
    (
        r"cudnn RNN backward|backward can only be called in training",
        "run it without cuDNN (with torch.backends.cudnn.flags(enabled=False)), whose recurrent layers have no "
        "gradient in eval mode",
    ),
    (
        r"derivative for .*backward|double[ _]backward|backward is not implemented|differentiated? twice",
        "it is differentiated twice here: take the module that torch.compile was given, operations with a second "
        "derivative, or ELLE, which needs none",
    ),
    (
        r"second time|already been freed",
        "let it keep no result of an earlier pass with its graph (self.kept = h.detach())",
    ),
    (
        r"vmap|functorch|batching rule",
        "it cannot compute with weights of its own for every example: use per_sample=False",
    ),
    (
        r"[Qq]uantized|qint8|quint8|FakeQuant",
        "take the floating-point model that it was made from: quantised operations have no gradient, and some no "
        "kernel here",
    ),
    (
        r"stateless API",
        "pass the module that TorchScript was made from: its weights can be shifted; or leave the shift of weights out",
    ),
    (r"can't allocate memory|out of memory", "pass fewer examples at a time (batch_size=...)"),
    (
        r"required \"?forward",
        "write its forward method, or pass the part that has one",
    ),
    (
        r"dtype|scalar type|not implemented for|Float and Double|Double and Float|c10::|should be the same|"
        r"Integral|[Cc]omplex",
        "bring model and inputs to one floating-point type: x.float(), or model.float() (model.double() for float64)",
    ),
    (
        r"shape|size|channels|dimension|Expected \d|[Ii]ndex|must match|broadcast|D input",
        "pass inputs of the shape that it was made for, or put the change of shape in front "
        "(nn.Sequential(nn.Flatten(), model), nn.Unflatten(1, (1, 28, 28)))",
    ),
)
_COMPILED = "pass the module that torch.compile was given: it has the same weights"
_ELSE = "call it on a batch of these inputs, and differentiate its output, to see where it stops"


@contextmanager
def answerable(model: Any) -> Iterator[None]:
    """Errors of torch from passes of the model leave as a `ModelError` with a cure, the original as its cause.

    What the model's own code raises by itself passes as it is, and so does what has nothing to do with the model, and
    `torch.OutOfMemoryError`, for which people wait in order to try smaller batches.

    Raises:
        ModelError: torch cannot do what the model asks of it.
    """
    try:
        yield
    except DanskinError:
        raise
    except Exception as error:
        if not _of_torch(error, model):
            raise
        raise ModelError(f"model: expected passes that torch can make, got {said(error)}; {cure(error)}") from error


def own_words(error: Exception) -> bool:
    """Whether a ``raise`` outside torch made the exception: somebody's own word, which passes unchanged."""
    frames = list(_frames(error.__traceback__))
    if not frames:
        return False
    code, at = frames[-1]
    return not code.co_filename.startswith(_TORCH) and dis.opname[code.co_code[at]] in ("RAISE_VARARGS", "RERAISE")


def said(error: BaseException) -> str:
    """The kind of an exception, and its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("The following operation failed in the TorchScript"):  # what it was comes last
        lines = lines[-1:]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def cure(error: BaseException) -> str:
    """What to do about an exception of torch."""
    text = str(error)
    found = next((cure for pattern, cure in _CURES if re.search(pattern, text)), None)
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return _COMPILED
    return found or _ELSE


def _of_torch(error: Exception, model: Any) -> bool:
    """Whether torch raised it, on a way through the model."""
    frames = list(_frames(error.__traceback__))
    if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, (RuntimeError, *_SHARED)) or not frames:
        return False
    if own_words(error):
        return False
    code, _ = frames[-1]
    in_torch = code.co_filename.startswith(_TORCH)
    if isinstance(error, _SHARED) and not in_torch and not _SPEAKS.search(str(error)):
        return False
    own = _code_of(model)
    return (
        code.co_filename.startswith(_HERE)  # what came out of the model, in our hands
        or any(c is own for c, _ in frames)
        or any(c.co_filename.startswith(_PASSES) for c, _ in frames)
    )


def _frames(trace: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    """(code, place of the instruction) from the outermost to the innermost."""
    while trace is not None:
        yield trace.tb_frame.f_code, trace.tb_lasti
        trace = trace.tb_next


def _code_of(model: Any) -> CodeType | None:
    """What runs when the callable is called, if it is written in Python."""
    while isinstance(model, functools.partial):
        model = model.func
    function: Callable[..., Any] = getattr(model, "__func__", model)
    code = getattr(function, "__code__", None) or getattr(type(model).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None
