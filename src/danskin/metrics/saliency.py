r"""Saliency maps, how well they align with the image, and the distance to the decision they suggest.

The saliency of an input a is the gradient of a score of the model with respect to a (slide 12 of the lecture
prints the gradient with respect to the weights; its object is this one). Three scores are in use: the logit
of a label, the loss, and the lead of the winning class. LECTURE row C9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from danskin.callables import Found, alone, answerable, reach, surely
from danskin.errors import InputError, ModelError
from danskin.inputs import check_model, class_numbers, not_floating
from danskin.losses import LossName, check_labels, get_loss
from danskin.minmax.gradients import finite, gradient_at, warn_of_bad_gradient
from danskin.minmax.precision import at_least_float32
from danskin.minmax.search import mask, ordinary
from danskin.minmax.sets import vector_norm

Model = Callable[[Tensor], Tensor]
#: The class that the winner leads: "none" (its own logit), the second largest logit, or the class whose
#: linearised decision boundary is nearest.
Against = Literal["none", "runner_up", "nearest"]


@contextmanager
def finished(model: Any, device: torch.device) -> Iterator[None]:
    """The model as a finished thing: eval mode, gradients on; it and the random state are left as found."""
    modules = reach(model).modules
    devices = [device] if device.type == "cuda" else []
    dice = torch.random.fork_rng(devices)
    with torch.inference_mode(False), torch.enable_grad(), dice, alone(modules), answerable(model):
        found = Found(modules)
        try:
            for m in modules:
                if getattr(m, "training", False):
                    m.training = False
            yield
        finally:
            surely(found.restore)


def input_gradient(model: Model, x: Tensor, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(score, gradient of the score with respect to x), per example, in eval mode; the model is left as found.

    Args:
        model: inputs to logits.
        x: (batch, ...) floating point.
        score: logits to (batch,).

    Raises:
        InputError: x is not a batch of floating-point examples.
        ModelError: the score does not depend differentiably on x.
    """
    check_model(model)
    if not x.is_floating_point():
        raise InputError(not_floating(x))
    if x.ndim < 2:
        raise InputError(f"x: expected a batch, shape (batch, ...), got shape {tuple(x.shape)}; use x[None]")
    with finished(model, x.device):
        leaf = x.detach().clone().requires_grad_()
        value = score(logits_of(model, leaf))
        slope, bad = finite(gradient_at(value, leaf), value)
        if bool(bad):
            warn_of_bad_gradient()
        return value.detach(), slope


def logits_of(model: Model, x: Tensor) -> Tensor:
    """The model's outputs, at least in float32, one row per example."""
    logits = model(x)
    if not isinstance(logits, Tensor) or logits.ndim not in (1, 2) or len(logits) != len(x):
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(
            f"model: expected logits of shape ({len(x)}, classes), got {got}; return logits only, batch first"
        )
    if not logits.is_floating_point():
        raise ModelError(f"model: expected floating-point logits, got {logits.dtype}; return real scores")
    return at_least_float32(logits)


def loss_gradient(model: Model, x: Tensor, y: Tensor, loss: LossName = "cross_entropy") -> tuple[Tensor, Tensor]:
    """(loss, its gradient with respect to x), per example."""
    chosen = get_loss(loss)
    if chosen.targeted:
        raise InputError(f"loss: expected one without targets, got {loss!r}; use cross_entropy or margin")

    labels = ordinary(class_numbers(y, len(x)).to(x.device))

    def score(logits: Tensor) -> Tensor:
        check_labels(labels, logits, chosen)
        return chosen.function(logits, labels)

    return input_gradient(model, x, score)


def saliency(model: Model, x: Tensor, y: Tensor, of: Literal["logit", "loss", "margin"] = "logit") -> Tensor:
    """The saliency map of each example: the gradient of a score with respect to the input, shaped as x.

    Args:
        model: inputs to logits (batch, classes).
        x: (batch, ...) inputs.
        y: (batch,) labels 0..C-1: the classes whose evidence is wanted.
        of: "logit" (z_y), "loss" (cross-entropy at y) or "margin" (max over j != y of z_j, minus z_y).

    Reference: Simonyan, Vedaldi and Zisserman, 2014 (logit). Lecture: row C9.
    """
    if of not in ("logit", "loss", "margin"):
        raise InputError(f"of: expected 'logit', 'loss' or 'margin', got {of!r}; pick one")
    if of != "logit":
        return loss_gradient(model, x, y, "cross_entropy" if of == "loss" else "margin")[1]

    labels = ordinary(class_numbers(y, len(x)).to(x.device))

    def score(logits: Tensor) -> Tensor:
        check_labels(labels, logits, get_loss("margin"))
        return logits.gather(1, labels[:, None]).squeeze(1)

    return input_gradient(model, x, score)[1]


def _nearest(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""(min over j != i of (z_i - z_j) / \|grad (z_i - z_j)\|_2, the gradient there), i the predicted class.

    (batch,) and (batch, ...); inf and 0 where no lead has a gradient. Holds two gradients whatever the number of
    classes.
    """
    with finished(model, x.device):
        leaf = x.detach().clone().requires_grad_()
        logits = logits_of(model, leaf)
        if logits.ndim < 2 or logits.shape[1] < 2:
            raise InputError(
                f"model: expected at least two classes, got outputs of shape {tuple(logits.shape)}; for one output "
                "use against='none'"
            )
        winner = logits.detach().argmax(1)
        leads = logits.gather(1, winner[:, None]) - logits
        least, nearest = leads.new_full((len(x),), torch.inf), torch.zeros_like(leaf, requires_grad=False)
        if not leads.requires_grad:
            gradient_at(leads, leaf)  # says what is wrong
        for k, lead in enumerate(leads.unbind(1)):
            slope = finite(gradient_at(lead, leaf, retain=True), lead)[0]
            distance = lead.detach() / vector_norm(slope, 2)  # inf or NaN where it has no gradient
            nearer = (distance < least) & (winner != k)
            least = torch.where(nearer, distance, least)
            nearest = torch.where(mask(nearer, slope), slope, nearest)
    return least, nearest


def linearized_robustness(model: Model, x: Tensor) -> Tensor:
    r"""(batch,): min over j != i of (z_i - z_j) / \|grad (z_i - z_j)\|_2, i the predicted class.

    The l2 distance to the decision boundary if the logits were linear around x; exact for linear models. Inf
    where no lead has a gradient. Costs a backward pass per class.

    Reference: Etmann et al., ICML 2019 (its name and definition as recalled; the paper's text was out of reach).
    """
    return _nearest(model, x)[0]


def winning_gradient(model: Model, x: Tensor, against: Against = "runner_up") -> Tensor:
    """The gradient of the predicted class's score with respect to x: the map that alignment is about.

    Args:
        model: inputs to logits (batch, classes), or, with against="none" only, to one output (its gradient).
        x: (batch, ...) inputs.
        against: "none" for the winning logit z_i; "runner_up" for z_i - z_j with j the second largest logit;
            "nearest" for z_i - z_j with the j of `linearized_robustness` (a backward pass per class).
    """
    if against not in get_args(Against):
        raise InputError(f"against: expected one of {', '.join(get_args(Against))}, got {against!r}; pick one")
    if against == "nearest":
        return _nearest(model, x)[1]

    def score(logits: Tensor) -> Tensor:
        if logits.ndim == 2 and logits.shape[1] > 1:
            top = logits.topk(2, dim=1).values
            return top[:, 0] - (top[:, 1] if against == "runner_up" else 0)
        if against == "runner_up":
            raise InputError("against: expected 'none' for a model with one output, got 'runner_up'; change it")
        return logits.reshape(-1)

    return input_gradient(model, x, score)[1]


def alignment(x: Tensor, gradient: Tensor, *, center: bool = False) -> Tensor:
    r"""(batch,): \|<x, g>\| / \|g\|_2, the length of the image's component along its saliency map.

    For a linear classifier without bias and g = grad (z_i - z_j), this is the distance to the decision
    boundary. Divided by \|x\|_2 it is the absolute cosine. NaN where g is exactly 0.

    Args:
        x: (batch, ...) images.
        gradient: shaped as x: `winning_gradient`, or any saliency map.
        center: take the mean of each image (and channel, where there are any) off first; the brightness of an
            image is no structure, but an image far from black aligns with every map of one sign.

    Reference: Etmann, Lunz, Maass and Schoenlieb, "On the connection between adversarial robustness and
    saliency map interpretability", ICML 2019: with the winning logit's gradient their alignment, with that of
    the winner's lead their binarised one (definitions as recalled, not re-checked against the paper).
    Lecture: row C9.

    >>> alignment(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]]))
    tensor([4.])
    """
    if x.shape != gradient.shape:
        raise InputError(
            f"gradient: expected the shape of x, {tuple(x.shape)}, got {tuple(gradient.shape)}; pass maps of the same "
            "examples"
        )
    image = x
    if center:
        dims = tuple(range(2, x.ndim)) if x.ndim > 2 else (1,)
        image = x - x.mean(dims, keepdim=True)
    largest = vector_norm(gradient, torch.inf)
    unit = gradient / mask(torch.where(largest > 0, largest, torch.nan), gradient)  # no square underflows
    return (image * unit).flatten(1).sum(1, dtype=torch.float64).abs().to(x.dtype) / vector_norm(unit, 2)
