"""Cheap attacks that `diagnostics` tries: one step against many, noise against gradients, the whole box as ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from danskin.attacks import FGSM
from danskin.attacks.guard import raw_module
from danskin.evaluation import probing
from danskin.evaluation.counted import CHUNK
from danskin.evaluation.masking import Flag, flags_from_results
from danskin.evaluation.subject import Subject
from danskin.losses import predict
from danskin.minmax import Streams
from danskin.minmax.data_box import box_width
from danskin.minmax.intersection import order_of
from danskin.minmax.measured import radius_of
from danskin.minmax.rows import rows_of


def attacked(
    subject: Subject, right: Tensor, many: int, surrogate: Callable[[Tensor], Tensor] | None
) -> list[Flag | None]:
    """Fast attacks in the verdict's ball on so many of the examples that are right, then a growing ball."""
    asked, y = subject.asked, subject.y
    at = right.nonzero().squeeze(1)[:many].to(y.device)
    subject = replace(subject, x=subject.x[at], y=y[at], ball=rows_of(subject.ball, at))
    clean = torch.ones(len(at), dtype=torch.bool)
    one = FGSM(subject.ball, box=subject.box, loss=subject.losses[0])
    tried = {"fgsm": one, "pgd-10": subject.pgd(10, stop=True), "pgd-40": subject.pgd(40, stop=True)}
    flags = {name: asked.right(subject.x, subject.y, a, subject.seed, clean) for name, a in tried.items()}
    left = torch.stack(list(flags.values())).all(0)  # blind attacks matter where those with gradients fail
    flags["random noise"] = _under_noise(subject, left)
    if surrogate is not None:
        attack, other = subject.pgd(40, keep="value"), raw_module(surrogate)
        chunks = zip(subject.x.split(CHUNK), subject.y.split(CHUNK), strict=True)
        moved = torch.cat([attack(other, x, y, seed=subject.seed).x for x, y in chunks])
        flags["transfer"] = (predict(asked.logits(moved)) == subject.y).cpu()
    return [*flags_from_results(flags), _radius_sweep(subject, clean)]


def _under_noise(subject: Subject, left: Tensor) -> Tensor:
    """(n,) bool: those of `left` that no noise breaks, and all others, which are not asked about."""
    at, out = left.nonzero().squeeze(1).to(subject.x.device), torch.ones_like(left)
    if len(at):
        x, y = subject.x[at], subject.y[at]
        points = probing.noise(subject.ball, subject.box, x, Streams.of_content(subject.seed, x))
        out[at.cpu()] = torch.stack([predict(subject.asked.logits(p)) == y for p in points]).all(0).cpu()
    return out


def _radius_sweep(subject: Subject, clean: Tensor) -> Flag | None:
    """PGD in a ball that holds the whole box; what resists it sees the radius double until nothing is left.

    Only of examples for which another answer is known to be in reach: the model gives it to one of the others.
    """
    if order_of(subject.ball) is None:  # how large a set must be to hold the box is known of balls
        return None
    width = box_width(subject.box, subject.x)
    most = probing.whole_box(subject.ball, width)
    far = _within_reach(subject, most)
    total, few = int((clean & far).sum()), max(1, 0.05 * int((clean & far).sum()))
    left = _left(subject, most, clean & far)
    if int(left.sum()) <= few:
        return None
    radius, curve = float(radius_of(subject.ball)), {}
    left = clean & far
    while True:
        radius = min(radius, most)
        left = _left(subject, radius, left)
        curve[f"{radius:.4g}"] = int(left.sum())
        if int(left.sum()) <= 0.02 * total or radius >= most:
            break
        radius *= 2
    if int(left.sum()) <= few:
        return None
    limit = "the whole box" if width is not None else "a thousand times the radius"
    text = (
        f"at radius {radius:.4g}, {limit}, {int(left.sum())} of {total} examples still resist PGD-20, "
        "though some other class can be reached there; the attack fails, not the adversary: suspect masked gradients, "
        "and attack with other losses and without gradients."
    )
    return Flag("large_radius", "warning", text, {"right": total, "left_by_radius": curve})


def _left(subject: Subject, radius: float, among: Tensor) -> Tensor:
    attack = subject.pgd(20, radius, stop=True)
    return subject.asked.right(subject.x, subject.y, attack, subject.seed, among)


def _within_reach(subject: Subject, radius: float) -> Tensor:
    """(n,) bool: another example, which the model takes for another class, lies in the ball of this radius."""
    x, y = subject.x, subject.y  # all of them right
    near = torch.zeros(len(x), dtype=torch.bool)
    for i in range(len(x)):
        others = x[y != y[i]]
        near[i] = bool((subject.ball.norm(others - x[i]) <= radius * (1 + 1e-6)).any()) if len(others) else False
    return near
