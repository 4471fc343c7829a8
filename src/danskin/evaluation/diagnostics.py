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
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from danskin.attacks.bounds import Ball
from danskin.attacks.checks import DataBox, check_box, check_inputs, check_integer_labels, check_radius
from danskin.attacks.guard import as_found, raw_module
from danskin.callables import reach
from danskin.errors import DanskinWarning, InputError
from danskin.evaluation.counted import CHUNK, Counted
from danskin.evaluation.gradient_checks import gradients
from danskin.evaluation.masking import Diagnosis, Flag, flags_from_results
from danskin.evaluation.standing import nothing_right, scaled_otherwise
from danskin.evaluation.subject import Subject
from danskin.evaluation.trials import attacked
from danskin.inputs import check_model, in_box, whole_number
from danskin.losses import LossName, apart, check_labels, get_loss, largest, predict
from danskin.minmax import Cost
from danskin.minmax.measured import largest_radius, of_one_radius, radius_of
from danskin.minmax.reading import read_ball
from danskin.minmax.rows import rows_of

__all__ = ["Diagnosis", "Flag", "diagnose", "examine", "flags_from_results"]

_REPEATED = 8  # examples that are asked several times
#: Work (forwards plus twice the backwards) per example: what a first look takes, and what attacks take at most.
_LOOK, _ATTACK = 15, 240
_FIXED = 10  # work, whatever the number of examples


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
    if torch.as_tensor(getattr(ball, "value", 0.0)).numel() > 1:
        count = torch.as_tensor(radius_of(ball)).numel()
        raise InputError(f"ball: expected one radius for all examples, got {count}; pass the radius of the verdict")
    k = len(x) if work is None else min(len(x), (work - _FIXED) // _LOOK)
    k, thorough = (k, True) if k >= 2 or k == len(x) else (2, False)
    known = right is not None
    if right is not None:
        order = (~right).to(x.device).argsort(stable=True)
        x, y, right, ball = x[order], y[order], right[order.cpu()], rows_of(ball, order)
    ball = of_one_radius(ball, torch.arange(len(x), device=x.device), x)
    asked = Counted(raw_module(model))
    logits = asked.logits(x[:k])
    single = logits.ndim == 1 or logits.shape[1] == 1
    losses: tuple[LossName, LossName] = ("logistic", "squared") if single else ("cross_entropy", "margin")
    check_labels(y[:k], logits, get_loss(losses[0]))
    subject = Subject(asked.model, x, y, ball, box, seed, losses, asked)
    right = (predict(logits) == y[:k]).cpu() if right is None else right
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DanskinWarning)  # of attacks, about what is a flag here
        flags = [_train_mode(subject), _few_classes(logits), _probabilities(logits)]
        flags += [] if known else [nothing_right(right)]
        flags.append(scaled_otherwise(asked, x, y, right))
        noisy = _random(subject.first(k), 4 if thorough else 2)
        flags += [noisy, _autograd_inside(subject)]
        flags += gradients(subject.first(k), logits, bool(noisy)) if thorough else []
        rest = None if work is None else work - asked.cost.forwards - 2 * asked.cost.backwards
        many = 0 if any(f and f.name == "no_gradient" for f in flags) else _affordable(rest, ball, right)
        flags += attacked(subject, right, many, surrogate) if many else []
    cost = replace(asked.cost, seconds=time.perf_counter() - began)
    return Diagnosis(tuple(flag for flag in flags if flag is not None), k, many, cost)


def _affordable(rest: int | None, ball: Ball, right: Tensor) -> int:
    """How many examples attacks are tried on: of fewer than eight they say nothing."""
    total = int(right.sum()) if largest_radius(ball) > 0 else 0
    if rest is None:
        return total
    many = min(total, rest // _ATTACK)
    return many if many >= _REPEATED else 0


# --- the model itself -----------------------------------------------------------------------------------


def _train_mode(subject: Subject) -> Flag | None:
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


def _random(subject: Subject, repeats: int) -> Flag | None:
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


def _autograd_inside(subject: Subject) -> Flag | None:
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
