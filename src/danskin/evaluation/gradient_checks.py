"""Are gradients there, are they zero, are they the derivatives, do they lead up? What `diagnostics` asks of them."""

from __future__ import annotations

import torch
from torch import Tensor

from danskin.errors import ModelError
from danskin.evaluation import probing
from danskin.evaluation.masking import Flag
from danskin.evaluation.subject import Subject
from danskin.losses import get_loss, predict
from danskin.minmax import Streams

_DIFFERENCES = 32  # examples whose gradients are compared with differences


def gradients(subject: Subject, logits: Tensor, noisy: bool) -> list[Flag | None]:
    """Are there gradients, are they zero, are they the derivatives, and do they say something within the ball?

    All of it at points beside the examples, where a healthy model has a derivative (`probing.beside`).
    """
    x, y, asked, k = subject.x, subject.y, subject.asked, min(len(subject.x), _DIFFERENCES)
    streams = Streams.of_content(subject.seed, x)
    step = torch.full((len(x),), probing.steps(_precision(x, logits))[0] * probing.data_width(x, subject.box))
    step = step.to(x.device, torch.float64)
    base = probing.beside(x, step, subject.box, streams.child(0))
    try:
        score = probing.score_of(logits)
        usual, other = (get_loss(name).function for name in subject.losses)
        wanted = (usual, other) if score is other else (usual, other, score)
        _, found = asked.gradients(base, y, wanted)
    except ModelError:
        return [_no_gradient()]
    zero, slope = [~g.flatten(1).any(1).cpu() for g in found[:2]], found[-1]
    flags = [_zero_gradient((zero[0], zero[1]), predict(logits) == y)]
    if noisy:  # a random model has no derivative to compare with
        return flags
    head, streams = subject.first(k), streams.rows(torch.arange(k, device=x.device))
    fine = probing.slopes(
        asked, base[:k], y[:k], score, slope[:k], step[:k], [streams.child(1).sign(x[:k])], subject.box
    )
    if wrong := _wrong(head, logits[:k], fine.error):
        return [*flags, wrong]
    return [*flags, _shattered(head, logits[:k], base[:k], slope[:k], streams)]


def _no_gradient() -> Flag:
    text = (
        "the outputs do not depend differentiably on the input, so no attack by gradients can work, and probes "
        "by gradients were left out; use attacks without gradients, or replace the step that breaks the chain by a "
        "smooth one for the attack (BPDA)."
    )
    return Flag("no_gradient", "warning", text, {})


def _zero_gradient(slopes: tuple[Tensor, Tensor], right: Tensor) -> Flag | None:
    right = right.cpu()
    usual, margin = (int((s & right).sum()) for s in slopes)
    total = int(right.sum())
    if usual == 0 and margin == 0:
        return None
    cure = (
        "attack with the margin or DLR loss"
        if margin == 0
        else "the margin's is zero too: attack without gradients, or through a smooth replacement (BPDA)"
    )
    text = (
        f"of {total} correctly classified examples, {usual} have a gradient of the usual loss that is exactly zero, "
        f"and {margin} one of the margin; an attack that starts there does not move, and the example counts as robust: "
        f"{cure}."
    )
    return Flag("zero_gradient", "warning", text, {"right": total, "usual_loss": usual, "margin": margin})


def _precision(x: Tensor, logits: Tensor) -> str:
    """The coarser one of inputs and outputs."""
    return str(torch.finfo(max(x.dtype, logits.dtype, key=lambda t: torch.finfo(t).eps)).dtype)


def _wrong(subject: Subject, logits: Tensor, error: Tensor) -> Flag | None:
    """The doubtful examples are looked at with care; where that does not clear them, all."""
    doubt = error > 0.25
    if int(doubt.sum()) <= max(1, 0.1 * len(doubt)) and float(error.mean()) <= 0.3:
        return None
    asked, box, seed = subject.asked, subject.box, subject.seed
    few = doubt.nonzero().squeeze(1)[:4]
    wrong, _ = probing.not_the_derivative(asked, subject.x[few], subject.y[few], logits[few], box, seed)
    if not bool(wrong.any()):
        return None
    wrong, precision = probing.not_the_derivative(asked, subject.x, subject.y, logits, box, seed)
    count, k = int(wrong.sum()), len(wrong)
    if count <= max(1, 0.1 * k):
        return None
    text = (
        f"the gradient does not match finite differences of the margin on {count} of {k} examples (precision "
        f"{precision}): a rounding or thresholding step, or a gradient that was replaced, stands between them, so "
        "attacks follow the wrong slope; use attacks without gradients, or a better replacement (BPDA)."
    )
    return Flag("gradient_wrong", "warning", text, {"examples": k, "precision": precision, "fine": count})


def _shattered(subject: Subject, logits: Tensor, base: Tensor, slope: Tensor, streams: Streams) -> Flag | None:
    """One direction for each example; where these do not agree with the gradients as a whole, many."""
    x, y, asked, box, k = subject.x, subject.y, subject.asked, subject.box, len(subject.x)
    step = probing.coordinate_step(subject.ball, x)
    if not bool((step > 0).all()):
        return None
    found = probing.slopes(asked, base, y, probing.score_of(logits), slope, step, [streams.child(2).sign(x)], box)
    told, seen = found.told / found.size[:, None].clamp_min(1e-300), found.seen / found.size[:, None].clamp_min(1e-300)
    together = float((told * seen).sum() / (told.norm() * seen.norm()).clamp_min(1e-300))
    if together >= 0.5 or bool((seen == 0).all()):
        return None
    count = int(probing.misleads(asked, x, y, logits, subject.ball, box, subject.seed).sum())
    if count <= max(1, 0.25 * k):
        return None
    text = (
        f"the gradient does not foretell changes of the margin over half the radius on {count} of {k} examples: the "
        "loss is shattered or strongly curved within the ball, so single steps mislead; use many small steps, "
        "restarts, and attacks without gradients."
    )
    return Flag("gradient_shattered", "warning", text, {"examples": k, "fine": 0, "coarse": count})
