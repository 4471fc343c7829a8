"""Whether an example's outputs depend on the batch that it is in: attacks take examples out of theirs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from danskin.attacks.guard import as_found
from danskin.evaluation.counted import Counted
from danskin.evaluation.masking import Flag
from danskin.losses import apart, largest

_MOST = 8  # examples in the batch
_APART = {torch.bfloat16: 0.05, torch.float16: 0.05}  # of the largest output; more than rounding
_APART_ELSE = 1e-3


def gap_alone(together: Tensor, alone: Tensor) -> float:
    """The largest difference between outputs for the same examples, 0 where it may be rounding."""
    gap, scale = float(apart(alone, together).max()), max(1.0, float(largest(together).max()))
    return gap if gap > _APART.get(together.dtype, _APART_ELSE) * scale else 0.0


def alone_and_together(model: Any, x: Tensor, asked: Counted | None = None) -> tuple[Flag, ...]:
    """A warning if one of the first examples has other outputs alone than among 8, in eval mode; two or three passes.

    A model that says something else each time it is asked is random, not dependent on the batch, and gets no flag.

    Args:
        model: inputs to outputs; left as found.
        x: (n, ...) inputs; two or more, else there is nothing to compare.
        asked: counts the passes.
    """
    asked = asked or Counted(model)
    batch = x[:_MOST].detach()
    if len(batch) < 2:
        return ()
    with as_found(model, "eval", x.device, warn=False), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        together = asked.passes(batch)
        try:
            gap = gap_alone(together[:1], asked.passes(batch[:1]))
        except (RuntimeError, ValueError):  # BatchNorm in training mode refuses a single example
            return (_flag(None),)
        if not gap or gap_alone(together, asked.passes(batch)):
            return ()
    return (_flag(gap),)


def _flag(gap: float | None) -> Flag:
    what = "it fails for a single one" if gap is None else f"others by {gap:.3g} for the first one alone"
    text = (
        f"expected outputs that depend on the example only, got a model whose outputs depend on the batch ({what}): "
        "the verdict then depends on batch size and order; put networks inside it into eval mode, and let each example "
        "be scaled by itself."
    )
    return Flag("outputs_depend_on_batch", "warning", text, {"gap": gap})
