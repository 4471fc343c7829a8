"""What should make one doubt a robustness verdict: faults of the model, and signs of masked gradients.

An attack that follows gradients says little about a model whose gradients are zero, wrong, random or shattered.
`diagnose` looks at the model itself with a few forward passes and cheap attacks, `flags_from_results` at what
attacks have already found. No flag is no proof of anything; a warning is a reason to look again before quoting a
number. References: Athalye, Carlini and Wagner, ICML 2018 (section 3.1: signs of obfuscated gradients); Carlini et
al., "On evaluating adversarial robustness", 2019; Croce and Hein, ICML 2020, and their code's warnings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from danskin.attacks import FGSM, PGD, Attack
from danskin.attacks.attack import Ball
from danskin.attacks.checks import DataBox, check_box, check_inputs, check_integer_labels, check_logits, check_radius
from danskin.attacks.guard import as_found, raw_module
from danskin.attacks.outcomes import outcomes
from danskin.callables import reach
from danskin.errors import DanskinWarning, InputError, ModelError
from danskin.evaluation import probing
from danskin.evaluation.masking import Flag, flags_from_results
from danskin.inputs import check_model, in_box, whole_number
from danskin.losses import LossName, apart, check_labels, get_loss, largest, predict
from danskin.minmax import Streams
from danskin.minmax.reading import read_ball

__all__ = ["Flag", "diagnose", "flags_from_results"]

_CHUNK = 64  # examples per forward pass


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

    def logits(self, x: Tensor) -> Tensor:
        """Without gradient."""
        return _logits(self.model, x)

    def right(self, attack: Attack | None = None, among: Tensor | None = None) -> Tensor:
        """(n,) bool on the CPU: right, without attack or under it."""
        return outcomes(self.model, self.x, self.y, attack, batch_size=_CHUNK, seed=self.seed, among=among).correct

    def pgd(self, steps: int, radius: float | None = None, **options: Any) -> PGD:
        """PGD on the usual loss."""
        ball = self.ball if radius is None else type(self.ball)(radius)
        return PGD(ball, steps=steps, box=self.box, loss=self.losses[0], **options)


def _logits(model: Any, x: Tensor) -> Tensor:
    """In eval mode, without gradient, in chunks."""
    with as_found(model, "eval", x.device), torch.no_grad():
        return torch.cat([check_logits(model(part), len(part)) for part in x.split(_CHUNK)])


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

    For n = 100 about 160 forward and 90 backward passes of these examples (measured on three networks of others).
    The model, its gradients and the random state are left as found.

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
    with torch.inference_mode(False):  # copies that autograd can save, also of tensors made under inference_mode
        y = check_integer_labels(y, x)[:n].clone()
        x = in_box(x[:n].detach(), box).clone()
    check_inputs(x, box)
    check_radius(ball, x, box)
    if isinstance(ball.value, Tensor) and ball.value.numel() > 1:
        raise InputError(
            f"ball: expected one radius for all examples, got {ball.value.numel()}; pass the radius of the verdict"
        )
    logits = _logits(raw_module(model), x)
    single = logits.ndim == 1 or logits.shape[1] == 1
    losses: tuple[LossName, LossName] = ("logistic", "squared") if single else ("cross_entropy", "margin")
    check_labels(y, logits, get_loss(losses[0]))
    subject = _Subject(raw_module(model), x, y, ball, box, seed, losses)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DanskinWarning)  # of attacks, about what is a flag here
        flags = [_train_mode(subject), _few_classes(logits), _probabilities(logits), _wrong_everywhere(subject, logits)]
        noisy = _random(subject, logits)
        flags += [noisy, _autograd_inside(subject)]
        slopes = _slopes(subject)
        if slopes is None:
            flags.append(_no_gradient())
        else:
            flags.append(_zero_gradient(slopes, predict(logits) == y))
            # a random model has no derivative to compare with
            flags += [] if noisy else _finite_differences(subject, logits)
            flags += _attacked(subject, surrogate)
    return tuple(flag for flag in flags if flag is not None)


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


def _wrong_everywhere(subject: _Subject, logits: Tensor) -> Flag | None:
    if bool((predict(logits) == subject.y).any()):
        return None
    text = (
        f"none of {len(logits)} clean examples is classified correctly, so there is nothing to attack; check labels, "
        "the order of classes, and the normalisation of the inputs."
    )
    return Flag("nothing_right", "warning", text, {"examples": len(logits)})


def _random(subject: _Subject, logits: Tensor, repeats: int = 4) -> Flag | None:
    with as_found(subject.model, "eval", subject.x.device), torch.no_grad():
        draws = torch.stack([subject.model(subject.x[:_CHUNK]) for _ in range(repeats)])
    first = draws[0].float()
    difference = apart(draws.float(), first).amax() / largest(first).max().clamp_min(1e-30)
    guesses = torch.stack([predict(d) for d in draws])
    changed = int((guesses != guesses[0]).any(0).sum())
    relative = float(difference)
    if changed == 0 and relative <= 1e-4:
        return None
    text = (
        f"{repeats} clean forward passes differ: predictions on {changed} of {len(first)} examples, logits by up to "
        f"{relative:.2g} of the largest; a single success is then partly luck and single gradients are noise: average "
        "gradients over draws (EOT) and judge success over several draws."
    )
    numbers = {"changed": changed, "examples": len(first), "relative_difference": relative, "repeats": repeats}
    return Flag("random", "warning", text, numbers)


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
    if not watch.seen:
        return None
    text = (
        f"the forward pass itself takes {len(watch.seen)} gradients (it optimises at test time), so the function that "
        "an attack differentiates may not be the one that decides; make sure gradients flow through that "
        "optimisation, and attack with BPDA and without gradients, too."
    )
    return Flag("autograd_inside", "warning", text, {"calls": len(watch.seen), "kinds": sorted(set(watch.seen))})


# --- gradients ------------------------------------------------------------------------------------------


def _slopes(subject: _Subject) -> tuple[Tensor, Tensor] | None:
    """Where the gradients of the usual loss and of the margin are exactly zero, (n,) bool each; None without any."""
    flat: list[list[Tensor]] = [[], []]
    for x, y in zip(subject.x.split(_CHUNK), subject.y.split(_CHUNK), strict=True):
        for found, name in zip(flat, subject.losses, strict=True):
            try:
                slope = probing.gradient(subject.model, x, y, get_loss(name).function)
            except ModelError:
                return None
            found.append(~slope.flatten(1).any(1))
    return torch.cat(flat[0]).cpu(), torch.cat(flat[1]).cpu()


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


def _finite_differences(subject: _Subject, logits: Tensor) -> list[Flag]:
    """Is the gradient the derivative, and does it say something at the scale of the ball?"""
    k = min(len(subject.x), 32)
    step = probing.coordinate_step(subject.ball, subject.x[:k])
    found = probing.agreement(subject.model, subject.x[:k], subject.y[:k], logits, step, subject.box, subject.seed)
    share = f"on {{}} of {k} examples (precision {found.precision})"
    numbers = {"examples": k, "precision": found.precision, "fine": found.fine, "coarse": found.coarse}
    if found.fine > max(1, 0.1 * k):
        text = (
            f"the gradient does not match finite differences of the margin {share.format(found.fine)}: a rounding or "
            "thresholding step, or a gradient that was replaced, stands between them, so attacks follow the wrong "
            "slope; use attacks without gradients, or a better replacement (BPDA)."
        )
        return [Flag("gradient_wrong", "warning", text, numbers)]
    if found.coarse > max(1, 0.25 * k):
        text = (
            f"the gradient does not foretell changes of the margin over half the radius {share.format(found.coarse)}: "
            "the loss is shattered or strongly curved within the ball, so single steps mislead; use many small steps, "
            "restarts, and attacks without gradients."
        )
        return [Flag("gradient_shattered", "warning", text, numbers)]
    return []


# --- attacks on it --------------------------------------------------------------------------------------


def _attacked(subject: _Subject, surrogate: Callable[[Tensor], Tensor] | None) -> list[Flag | None]:
    """Fast attacks in the verdict's ball, then a growing one."""
    clean = subject.right()
    if not bool(clean.any()) or not float(subject.ball.value) > 0:
        return []
    one = FGSM(subject.ball, box=subject.box, loss=subject.losses[0])
    flags = {"fgsm": subject.right(one, clean), "pgd-10": subject.right(subject.pgd(10), clean)}
    flags["pgd-40"] = subject.right(subject.pgd(40), clean)
    streams = Streams.of_content(subject.seed, subject.x)
    noise = probing.noise(subject.ball, subject.box, subject.x, streams)
    flags["random noise"] = clean & torch.stack([(predict(subject.logits(p)) == subject.y).cpu() for p in noise]).all(0)
    if surrogate is not None:
        attack, raw = subject.pgd(40, keep="value"), raw_module(surrogate)
        chunks = zip(subject.x.split(_CHUNK), subject.y.split(_CHUNK), strict=True)
        moved = torch.cat([attack(raw, x, y, seed=subject.seed).x for x, y in chunks])
        flags["transfer"] = clean & (predict(subject.logits(moved)) == subject.y).cpu()
    return [*flags_from_results(flags), _radius_sweep(subject, clean)]


def _radius_sweep(subject: _Subject, clean: Tensor) -> Flag | None:
    """The radius doubles until nothing is left, or the ball holds the whole box."""
    width = None if subject.box is None else subject.box[1] - subject.box[0]
    most = probing.whole_box(subject.ball, subject.x, width)
    radius, left, total = float(subject.ball.value), clean, int(clean.sum())
    curve: dict[str, int] = {}
    while True:
        radius = min(radius, most)
        left = subject.right(subject.pgd(20, radius, stop=True), left)
        curve[f"{radius:.4g}"] = int(left.sum())
        if int(left.sum()) <= 0.02 * total or radius >= most:
            break
        radius *= 2
    if int(left.sum()) <= max(1, 0.05 * total):
        return None
    limit = "the whole box" if width is not None else "a thousand times the radius"
    text = (
        f"at radius {radius:.4g}, {limit}, {int(left.sum())} of {total} examples still resist PGD-20, "
        "though some other class can be reached there; the attack fails, not the adversary: suspect masked gradients, "
        "and attack with other losses and without gradients."
    )
    return Flag("large_radius", "warning", text, {"right": total, "left_by_radius": curve})
