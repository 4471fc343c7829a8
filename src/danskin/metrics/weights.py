"""The mean loss as a function of the weights: values, gradients, Hessian-vector products, at w or near by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from danskin.callables import reach, surely
from danskin.errors import InputError, ModelError
from danskin.inputs import check_model, class_numbers, not_floating, whole_number
from danskin.losses import Loss, LossName, check_labels, get_loss
from danskin.metrics.saliency import Model, finished, logits_of
from danskin.minmax.gradients import twice_differentiable

Weights = tuple[nn.Parameter, ...]


@dataclass(frozen=True, eq=False)
class MeanLoss:
    r"""L(w) = (1/n) sum_i loss(f(w, x_i), y_i), batch after batch. Vectors of weights are flat, shape (d,).

    Args:
        model: inputs to logits.
        x: (n, ...) inputs.
        y: (n,) labels.
        loss: per example.
        weights: those that count, d numbers in all.
        batch_size: examples in a pass; changes memory and rounding only.
    """

    model: Model
    x: Tensor
    y: Tensor
    loss: Loss
    weights: Weights
    batch_size: int

    def rows(self, index: Tensor) -> MeanLoss:
        """The same for some examples."""
        return MeanLoss(self.model, self.x[index], self.y[index], self.loss, self.weights, self.batch_size)

    @property
    def d(self) -> int:
        """How many weights there are."""
        return sum(w.numel() for w in self.weights)

    @property
    def here(self) -> Tensor:
        """(d,): the weights, a copy."""
        return self._flat([w.detach() for w in self.weights]).clone()

    def value(self) -> float:
        """L(w), summed in float64."""
        with torch.no_grad():
            return sum(float(part.sum(dtype=torch.float64)) for part in self._parts()) / len(self.x)

    def gradient(self) -> tuple[float, Tensor]:
        """(L(w), its gradient (d,))."""
        total, slope = 0.0, torch.zeros_like(self.here)
        for part in self._parts():
            total += float(part.detach().sum(dtype=torch.float64))
            slope += self._derivative(part.sum())
        return total / len(self.x), slope / len(self.x)

    def product(self, v: Tensor) -> Tensor:
        """(d,): the Hessian of L at w times v, by differentiating <gradient, v>; 0 where nothing is left to do so."""
        ways = self._split(v)
        out = torch.zeros_like(v)
        with twice_differentiable():
            for part in self._parts():
                slopes = torch.autograd.grad(part.sum(), self.weights, create_graph=True, allow_unused=True)
                along = sum((g * way).sum() for g, way in zip(slopes, ways, strict=True) if g is not None)
                if isinstance(along, Tensor) and along.requires_grad:
                    out += self._derivative(along)
        return out / len(self.x)

    @contextmanager
    def moved(self, shift: Tensor) -> Iterator[None]:
        """The weights are w + shift inside, and bit for bit w afterwards."""
        kept = [w.detach().clone() for w in self.weights]

        def put_back() -> None:
            with torch.no_grad():
                for w, was in zip(self.weights, kept, strict=True):
                    w.copy_(was)

        try:
            with torch.no_grad():
                for w, part in zip(self.weights, self._split(shift), strict=True):
                    w.add_(part)
            yield
        finally:
            surely(put_back)

    def _parts(self) -> Iterator[Tensor]:
        """(batch,) losses of one batch after the other."""
        for x, y in zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True):
            logits = logits_of(self.model, x)
            check_labels(y, logits, self.loss)
            part = self.loss.function(logits, y)
            if torch.is_grad_enabled() and not part.requires_grad:
                raise ModelError(
                    "model: expected a loss that depends differentiably on the weights, got one without a gradient; "
                    "remove no_grad, detach, argmax or numpy from the model"
                )
            yield part

    def _derivative(self, value: Tensor) -> Tensor:
        found = torch.autograd.grad(value, self.weights, allow_unused=True, materialize_grads=True)
        return self._flat(found)

    def _flat(self, parts: Any) -> Tensor:
        wide = torch.float64 if any(w.dtype == torch.float64 for w in self.weights) else torch.float32
        return torch.cat([part.reshape(-1).to(wide) for part in parts])

    def _split(self, v: Tensor) -> list[Tensor]:
        parts = v.split([w.numel() for w in self.weights])
        return [part.view(w.shape).to(w.dtype) for part, w in zip(parts, self.weights, strict=True)]


@contextmanager
def mean_loss(
    model: Model, x: Tensor, y: Tensor, loss: LossName = "cross_entropy", batch_size: int = 256
) -> Iterator[MeanLoss]:
    """The mean loss of a model as a finished thing: eval mode, gradients on; left as found afterwards.

    The weights are all parameters that require gradients.

    Raises:
        InputError: no examples, inputs that are not floating-point, labels that do not fit, a loss with targets, a
            model without parameters to train.
    """
    check_model(model)
    chosen = get_loss(loss)
    if chosen.targeted or loss in ("zero_one", "kl"):
        raise InputError(f"loss: expected one of labels with a gradient, got {loss!r}; use cross_entropy")
    if not x.is_floating_point():
        raise InputError(not_floating(x))
    if x.ndim < 2 or not len(x):
        raise InputError(f"x: expected a batch, shape (n, ...) with n >= 1, got {tuple(x.shape)}; pass some examples")
    batch_size = whole_number(batch_size, "batch_size", 1)
    model = _eager(model)
    labels = class_numbers(y, len(x)).to(x.device)
    with finished(model, x.device), torch.autocast(x.device.type, enabled=False):
        yield MeanLoss(model, x.detach(), labels, chosen, trainable(model), batch_size)


def trainable(model: Any) -> Weights:
    """The parameters behind a callable that require gradients, each once."""
    held = {id(p): p for root in reach(model).roots for p in root.parameters() if p.requires_grad}
    if not held:
        raise InputError("model: expected parameters to train, got none; check requires_grad")
    if any(p.is_inference() for p in held.values()):
        raise ModelError(
            "model: expected weights that autograd follows, got inference tensors; make or load the model outside of "
            "torch.inference_mode"
        )
    return tuple(held.values())


def _eager(model: Any) -> Any:
    """The module inside DistributedDataParallel and torch.compile: the same weights, and two derivatives."""
    while isinstance(model, nn.Module):
        inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        inner = getattr(inner, "_orig_mod", inner)
        if inner is model:
            break
        model = inner
    return model
