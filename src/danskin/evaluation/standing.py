"""Is clean accuracy worth attacking? What it says of guessing, and of inputs on another scale than in training.

A network that is right on 98 % may be right on 35 % when its normalization is left out. The accuracy alone does not
tell (35 % may be honest); asking once more with rescaled inputs does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from danskin.evaluation.counted import Counted
from danskin.evaluation.masking import Flag
from danskin.losses import predict
from danskin.metrics import Share

#: Flags with which no number should be quoted: what was judged is not the model as it was meant, or a fault of ours.
NOT_TO_QUOTE = frozenset({"nothing_right", "near_chance", "scaled_otherwise", "random_weights", "certificate_broken"})

#: Flags that follow from the clean outcomes of all examples.
OF_OUTCOMES = frozenset({"nothing_right", "near_chance"})

_ENOUGH = 0.8  # of the examples right: nobody asks whether the scale is another
_SCREEN = 2  # wrong examples that are asked first
_CHANCE = 0.01 / 4  # of so many gains and so few losses, if scale did not matter; four scales are tried


def nothing_right(right: Tensor) -> Flag | None:
    """A warning where no example (n,) is right."""
    if bool(right.any()) or not len(right):
        return None
    text = (
        f"none of {len(right)} clean examples is classified correctly, so there is nothing to attack; check labels, "
        "the order of classes, and the normalisation of the inputs."
    )
    return Flag("nothing_right", "warning", text, {"examples": len(right)})


def near_chance(y: Tensor, right: Tensor) -> Flag | None:
    r"""A warning where answers that do not look at the input could do as well, or where nothing is right.

    Such answers have a mean accuracy over the K classes seen of 1/K, however often each class occurs: a constant
    answer is right on one class. The flag is raised where 1/K lies in the 95 % interval of accuracy (Wilson), or of
    the mean over classes, or above it. A run without an error, or of one class, cannot tell and is not flagged.

    Args:
        y: (n,) labels.
        right: (n,) bool, clean outcomes.
    """
    if flag := nothing_right(right):
        return flag
    classes, which = y.cpu().unique(return_inverse=True)
    k, n, hits = len(classes), len(right), right.cpu().double()
    if k < 2 or bool(right.all()):
        return None
    counts = torch.bincount(which, minlength=k).double()
    recall = torch.bincount(which, weights=hits, minlength=k) / counts
    mean, spread = float(recall.mean()), float((recall * (1 - recall) / counts).sum().sqrt()) / k
    low = Share.of(right).interval[0]
    if min(low, mean - 1.96 * spread) > 1 / k:
        return None
    text = (
        f"{int(hits.sum())} of {n} clean examples are classified correctly ({100 * mean:.1f} % in the mean over the "
        f"{k} classes seen), which cannot be told from guessing ({100 / k:.1f} %); do not quote this: check weights, "
        "labels, the order of classes, and the normalisation of the inputs."
    )
    numbers = {"right": int(hits.sum()), "examples": n, "classes": k, "mean_over_classes": mean, "chance": 1 / k}
    return Flag("near_chance", "warning", text, numbers)


def standing(y: Tensor, right: Tensor) -> tuple[Flag, ...]:
    """What clean outcomes alone say against quoting anything: `near_chance`, or nothing."""
    flag = near_chance(y, right)
    return () if flag is None else (flag,)


def _rescaled(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The usual ways in which inputs of a training run differ from values in a box."""
    low, high = float(x.min()), float(x.max())
    width = high - low
    if not width:
        return
    axes = [0, *range(2, x.ndim)] if x.ndim > 2 else [0, 1]
    mean, std = x.mean(axes, keepdim=True), x.std(axes, keepdim=True).clamp_min(1e-6 * width)
    yield "with mean 0 and standard deviation 1 (of these examples)", (x - mean) / std
    yield "in [-1, 1]", 2 * (x - low) / width - 1
    yield ("times 255", x * 255) if high <= 2 else ("divided by 255", x / 255)
    if x.ndim == 4 and x.shape[1] == 3:
        yield "with the channels in reverse (BGR)", x.flip(1)


def scaled_otherwise(asked: Counted, x: Tensor, y: Tensor, right: Tensor) -> Flag | None:
    """A warning where the model does far better on rescaled inputs: its normalization may be missing.

    Only where accuracy leaves doubt; two wrong examples first, and all where both come right. The flag
    needs more gains than losses than chance gives in one of a hundred, over four scales (sign test).

    Args:
        asked: the model.
        x: (n, ...) clean inputs.
        y: (n,) labels.
        right: (n,) bool, clean outcomes.
    """
    right = right.cpu()
    wrong = (~right).nonzero().squeeze(1)
    if float(right.double().mean()) >= _ENOUGH or len(wrong) < _SCREEN:
        return None
    few = wrong[:_SCREEN].to(x.device)
    best: tuple[str, Tensor] | None = None
    for how, points in _rescaled(x):
        try:
            if int((predict(asked.logits(points[few])) == y[few]).sum()) < len(few):
                continue
            now = (predict(asked.logits(points)) == y).cpu()
        except Exception:  # of any kind: a model may refuse values outside its box, which is an answer too
            continue
        if best is None or int(now.sum()) > int(best[1].sum()):
            best = how, now
    if best is None:
        return None
    how, now = best
    gains, losses = int((now & ~right).sum()), int((right & ~now).sum())
    total = gains + losses
    if sum(math.comb(total, j) for j in range(gains, total + 1)) > _CHANCE * 2**total:
        return None
    text = (
        f"{int(right.sum())} of {len(right)} clean examples are right as they are, {int(now.sum())} when inputs "
        f"are {how}: the model seems to have been trained on such inputs; put the scaling before it "
        "(danskin.models.Normalize), and do not quote this."
    )
    numbers = {"right": int(right.sum()), "rescaled": int(now.sum()), "examples": len(right), "inputs": how}
    return Flag("scaled_otherwise", "warning", text, numbers)
