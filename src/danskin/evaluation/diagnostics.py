"""What should make one doubt a robustness verdict: faults of the model, and signs of masked gradients.

An attack that follows gradients says little about a model whose gradients are zero, wrong, random or shattered.
`diagnose` looks at the model itself with a few forward passes and cheap attacks, `flags_from_results` at what
attacks have already found. No flag is no proof of anything; a warning is a reason to look again before quoting a
number. References: Athalye, Carlini and Wagner, ICML 2018 (section 3.1: signs of obfuscated gradients); Carlini et
al., "On evaluating adversarial robustness", 2019; Croce and Hein, ICML 2020, and their code's warnings.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from danskin.attacks import FGSM, PGD
from danskin.attacks.attack import Ball
from danskin.attacks.checks import DataBox, check_box, check_inputs, check_integer_labels, check_radius
from danskin.attacks.guard import as_found, raw_module
from danskin.callables import reach
from danskin.errors import DanskinWarning, InputError, ModelError
from danskin.evaluation import probing
from danskin.evaluation.counted import CHUNK, Counted
from danskin.evaluation.masking import Diagnosis, Flag, flags_from_results
from danskin.evaluation.standing import nothing_right, scaled_otherwise
from danskin.inputs import check_model, in_box, whole_number
from danskin.losses import LossName, apart, check_labels, get_loss, largest, predict
from danskin.minmax import Cost, Streams
from danskin.minmax.reading import read_ball

__all__ = ["Diagnosis", "Flag", "diagnose", "examine", "flags_from_results"]

_DIFFERENCES = 32  # examples whose gradients are compared with differences
_REPEATED = 8  # examples that are asked several times
#: Work (forwards plus twice the backwards) per example: what a first look takes, and what attacks take at most.
_LOOK, _ATTACK = 15, 240


@dataclass(frozen=True)
class _Subject:
    """A model and the examples that it is asked about; it is looked at in eval mode."""

    model: Any
    x: Tensor
    y: Tensor
    ball: Ball
    box: DataBox
    seed: int
    losses: tuple[LossName, LossName]  # the usual one, and one that does not saturate
    asked: Counted = field(default_factory=lambda: Counted(None))  # the model, counting

    def first(self, n: int) -> _Subject:
        """The first n of its examples."""
        return replace(self, x=self.x[:n], y=self.y[:n])

    def pgd(self, steps: int, radius: float | None = None, **options: Any) -> PGD:
        """PGD on the usual loss."""
        ball = self.ball if radius is None else type(self.ball)(radius)
        return PGD(ball, steps=steps, box=self.box, loss=self.losses[0], **options)


def diagnose(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    box: DataBox = (0, 1),
    seed: int = 0,
    n: int = 100,
    surrogate: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Flag, ...]:
    """Look for faults of a model that make attacks on it look weaker than attacks can be.

    A first look is cheap (about 15 passes of an example, and attacks that leave it as soon as it is wrong); where it
    leaves doubt, more passes decide, in float64 where the model can be moved there. The model, its gradients and the
    random state are left as found.

    Args:
        model: inputs (batch, ...) to logits; looked at in eval mode.
        x: (m, ...) clean inputs; the first n are used.
        y: (m,) labels 0..C-1, or -1/+1 for one output.
        ball: the perturbation ball of the verdict.
        box: (low, high) of valid data, or None.
        seed: of noise and random starts.
        n: how many examples to look at; shares are of these, so with 100 a share moves in steps of 1 %.
        surrogate: another model for the same data; what breaks it is tried on `model` (a black-box attack).

    Returns:
        The flags in a fixed order: of the model itself first, then of attacks on it. None for a healthy model.

    Raises:
        InputError: wrong inputs, labels, radius or box.
        ModelError: the model did not return logits.
    """
    check_model(model)
    ball, seed = read_ball(ball), whole_number(seed, "seed")
    check_box(box)
    if whole_number(n, "n") < 1 or len(x) < 1:
        raise InputError(f"diagnose: expected at least one example, got n={n} of {len(x)}; pass some")
    return examine(model, x[:n], check_integer_labels(y, x)[:n], ball, box=box, seed=seed, surrogate=surrogate).flags


def examine(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    box: DataBox = (0, 1),
    seed: int = 0,
    surrogate: Callable[[Tensor], Tensor] | None = None,
    right: Tensor | None = None,
    work: int | None = None,
) -> Diagnosis:
    """`diagnose` with what it cost, within a budget.

    Args:
        model: see `diagnose`, as for all that is not said here.
        x: (n, ...) inputs.
        y: (n,) labels.
        ball: of the verdict.
        box: of valid data.
        seed: of noise and random starts.
        surrogate: another model.
        right: (n,) bool, clean outcomes where the caller knows them, and says what they mean; examples that are right
            are looked at first.
        work: forwards plus twice the backwards that may be spent while nothing is in doubt; None for no limit. What
            the model answers for two examples is looked at in any case, its gradients only where that is within it.
    """
    began = time.perf_counter()
    with torch.inference_mode(False):  # copies that autograd can save, also of tensors made under inference_mode
        y = check_integer_labels(y, x).clone()
        x = in_box(x.detach(), box).clone()
    check_inputs(x, box)
    check_radius(ball, x, box)
    if isinstance(ball.value, Tensor) and ball.value.numel() > 1:
        raise InputError(
            f"ball: expected one radius for all examples, got {ball.value.numel()}; pass the radius of the verdict"
        )
    k = len(x) if work is None else min(len(x), work // _LOOK)
    k, thorough = (k, True) if k >= 2 or k == len(x) else (2, False)
    known = right is not None
    if right is not None:
        order = (~right).to(x.device).argsort(stable=True)
        x, y, right = x[order], y[order], right[order.cpu()]
    asked = Counted(raw_module(model))
    logits = asked.logits(x[:k])
    single = logits.ndim == 1 or logits.shape[1] == 1
    losses: tuple[LossName, LossName] = ("logistic", "squared") if single else ("cross_entropy", "margin")
    check_labels(y[:k], logits, get_loss(losses[0]))
    subject = _Subject(asked.model, x, y, ball, box, seed, losses, asked)
    right = (predict(logits) == y[:k]).cpu() if right is None else right
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DanskinWarning)  # of attacks, about what is a flag here
        flags = [_train_mode(subject), _few_classes(logits), _probabilities(logits)]
        flags += [] if known else [nothing_right(right)]
        flags.append(scaled_otherwise(asked, x, y, right))
        noisy = _random(subject.first(k))
        flags += [noisy, _autograd_inside(subject)]
        flags += _gradients(subject.first(k), logits, bool(noisy)) if thorough else []
        rest = None if work is None else work - asked.cost.forwards - 2 * asked.cost.backwards
        many = 0 if any(f and f.name == "no_gradient" for f in flags) else _affordable(rest, ball, right)
        flags += _attacked(subject, right, many, surrogate) if many else []
    cost = replace(asked.cost, seconds=time.perf_counter() - began)
    return Diagnosis(tuple(flag for flag in flags if flag is not None), k, many, cost)


def _affordable(rest: int | None, ball: Ball, right: Tensor) -> int:
    """How many examples attacks are tried on: of fewer than eight they say nothing."""
    total = int(right.sum()) if float(torch.as_tensor(ball.value).max()) > 0 else 0
    if rest is None:
        return total
    many = min(total, rest // _ATTACK)
    return many if many >= _REPEATED else 0


# --- the model itself -----------------------------------------------------------------------------------


def _train_mode(subject: _Subject) -> Flag | None:
    modules = reach(subject.model).modules
    found = [type(m).__name__ for m in modules if isinstance(m, _NormBase | _DropoutNd) and m.training]
    if not found:
        return None
    kinds = ", ".join(sorted(set(found)))
    text = (
        f"{len(found)} layers ({kinds}) are in training mode, so predictions depend on the batch or on chance; what "
        "follows was measured in eval mode: call model.eval() before attacking it yourself."
    )
    return Flag("train_mode", "warning", text, {"layers": len(found), "kinds": sorted(set(found))})


def _few_classes(logits: Tensor) -> Flag | None:
    classes = logits.shape[1] if logits.ndim == 2 else 1
    if not 2 <= classes <= 3:
        return None
    which = "DLR loss is" if classes == 2 else "targeted DLR loss is"
    text = (
        f"with {classes} classes the {which} not defined; danskin takes the "
        f"{'plain margin' if classes == 2 else 'divisor z(1) - z(3)'} in its place: do not compare such numbers with "
        "those of code that fails or does something else here."
    )
    return Flag("few_classes", "note", text, {"classes": classes})


def _probabilities(logits: Tensor) -> Flag | None:
    if logits.ndim != 2 or logits.shape[1] < 2:
        return None
    tolerance = max(1e-5, 4 * torch.finfo(logits.dtype).eps)
    rows = logits.double()
    off = float((rows.sum(1) - 1).abs().max())
    if not (bool((rows >= 0).all()) and bool((rows <= 1 + tolerance).all()) and off <= tolerance):
        return None
    text = (
        f"all {len(rows)} outputs lie in [0, 1] and sum to 1 (within {off:.1g}): a softmax is part of the model, and "
        "its second softmax in the loss flattens gradients; remove it from the model."
    )
    return Flag("probabilities", "warning", text, {"examples": len(rows), "largest_deviation": off})


def _random(subject: _Subject, repeats: int = 4) -> Flag | None:
    """A few examples several times; where that differs, more of them."""
    few = subject.first(_REPEATED)
    changed, relative = _spread(draws := few.asked.draws(few.x, repeats))
    if changed == 0 and relative <= 1e-4:
        return None
    changed, relative = _spread(draws := subject.asked.draws(subject.x[:CHUNK], repeats))
    text = (
        f"{repeats} clean forward passes differ: predictions on {changed} of {len(draws[0])} examples, logits by up to "
        f"{relative:.2g} of the largest; a single success is then partly luck and single gradients are noise: average "
        "gradients over draws (EOT) and judge success over several draws."
    )
    numbers = {"changed": changed, "examples": len(draws[0]), "relative_difference": relative, "repeats": repeats}
    return Flag("random", "warning", text, numbers)


def _spread(draws: list[Tensor]) -> tuple[int, float]:
    """(examples whose prediction changes, largest difference relative to the largest logit)."""
    rows, guesses = torch.stack(draws).float(), torch.stack([predict(draw) for draw in draws])
    relative = apart(rows, rows[0]).amax() / largest(rows[0]).max().clamp_min(1e-30)
    return int((guesses != guesses[0]).any(0).sum()), float(relative)


class _Watch(TorchFunctionMode):
    """Notes calls of torch.autograd.grad, backward, and what is built on them (torch.func, functional.jacobian).

    A torch-function mode sees them however they were imported, needs no sys.settrace and patches nothing. Torch
    versions whose torch.autograd.backward (the function, not the method) ignores such modes hide that one call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward):
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


def _autograd_inside(subject: _Subject) -> Flag | None:
    model = getattr(subject.model, "_orig_mod", subject.model)  # of torch.compile: the mode would recompile it
    watch = _Watch()
    with as_found(model, "eval", subject.x.device), watch:
        model(subject.x[:2].clone())
    subject.asked.add(Cost(len(subject.x[:2]), 0, 1))
    if not watch.seen:
        return None
    text = (
        f"the forward pass itself takes {len(watch.seen)} gradients (it optimises at test time), so the function that "
        "an attack differentiates may not be the one that decides; make sure gradients flow through that "
        "optimisation, and attack with BPDA and without gradients, too."
    )
    return Flag("autograd_inside", "warning", text, {"calls": len(watch.seen), "kinds": sorted(set(watch.seen))})


# --- gradients ------------------------------------------------------------------------------------------


def _gradients(subject: _Subject, logits: Tensor, noisy: bool) -> list[Flag | None]:
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
    if wrong := _wrong(head, logits[:k], fine.error > 0.25):
        return [*flags, wrong]
    return [*flags, _shattered(head, logits[:k], base[:k], slope[:k], streams)]


def _no_gradient() -> Flag:
    text = (
        "the outputs do not depend differentiably on the input, so no attack by gradients can work; use attacks "
        "without gradients, or replace the step that breaks the chain by a smooth one for the attack (BPDA)."
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


def _wrong(subject: _Subject, logits: Tensor, doubt: Tensor) -> Flag | None:
    """The doubtful examples are looked at with care; where that does not clear them, all."""
    if int(doubt.sum()) <= max(1, 0.1 * len(doubt)):
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


def _shattered(subject: _Subject, logits: Tensor, base: Tensor, slope: Tensor, streams: Streams) -> Flag | None:
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


# --- attacks on it --------------------------------------------------------------------------------------


def _attacked(
    subject: _Subject, right: Tensor, many: int, surrogate: Callable[[Tensor], Tensor] | None
) -> list[Flag | None]:
    """Fast attacks in the verdict's ball on so many of the examples that are right, then a growing ball."""
    asked, y = subject.asked, subject.y
    at = right.nonzero().squeeze(1)[:many].to(y.device)
    subject = replace(subject, x=subject.x[at], y=y[at])
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


def _under_noise(subject: _Subject, left: Tensor) -> Tensor:
    """(n,) bool: those of `left` that no noise breaks, and all others, which are not asked about."""
    at, out = left.nonzero().squeeze(1).to(subject.x.device), torch.ones_like(left)
    if len(at):
        x, y = subject.x[at], subject.y[at]
        points = probing.noise(subject.ball, subject.box, x, Streams.of_content(subject.seed, x))
        out[at.cpu()] = torch.stack([predict(subject.asked.logits(p)) == y for p in points]).all(0).cpu()
    return out


def _radius_sweep(subject: _Subject, clean: Tensor) -> Flag | None:
    """PGD in a ball that holds the whole box; what resists it sees the radius double until nothing is left.

    Only of examples for which another answer is known to be in reach: the model gives it to one of the others.
    """
    width = None if subject.box is None else probing.data_width(subject.x, subject.box)
    most = probing.whole_box(subject.ball, subject.x, width)
    far = _within_reach(subject, most)
    total, few = int((clean & far).sum()), max(1, 0.05 * int((clean & far).sum()))
    left = _left(subject, most, clean & far)
    if int(left.sum()) <= few:
        return None
    radius, curve = float(subject.ball.value), {}
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


def _left(subject: _Subject, radius: float, among: Tensor) -> Tensor:
    attack = subject.pgd(20, radius, stop=True)
    return subject.asked.right(subject.x, subject.y, attack, subject.seed, among)


def _within_reach(subject: _Subject, radius: float) -> Tensor:
    """(n,) bool: another example, which the model takes for another class, lies in the ball of this radius."""
    x, y = subject.x, subject.y  # all of them right
    near = torch.zeros(len(x), dtype=torch.bool)
    for i in range(len(x)):
        others = x[y != y[i]]
        near[i] = (
            bool((type(subject.ball)(1.0).norm(others - x[i]) <= radius * (1 + 1e-6)).any()) if len(others) else False
        )
    return near
