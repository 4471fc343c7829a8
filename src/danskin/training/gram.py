"""Inner products of the gradients of k batches, without holding k times the parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from danskin.attacks.parametrizations import fresh_cache
from danskin.errors import InputError
from danskin.training.objective import logits_at
from danskin.training.process import Together


def layerwise_gram(
    model: nn.Module, points: Tensor, loss: Callable[[Tensor], Tensor], processes: Together
) -> tuple[Tensor, Tensor]:
    r"""G_ij = <g_i, g_j>, g_j the gradient of the mean loss of batch j to the weights, layer by layer.

    One forward and one backward pass of all k batches together, in which each layer that has parameters takes its own
    k gradients from its k inputs and output gradients, adds their inner products, and drops them. Never more than the
    gradients of one layer are held (of all layers that share a parameter).

    Args:
        model: treats examples independently; only parameters that require gradients count.
        points: (k, batch, ...) inputs.
        loss: (k * batch, classes) logits to (k * batch,) losses.
        processes: over which gradients are averaged.

    Returns:
        (k * batch, classes) logits, and G (k, k), float64.

    Raises:
        InputError: the model has BatchNorm or dropout in training mode, or layers that do not keep the batch first.
    """
    check_alone("DDi.gram", model, "gram='stored'")
    k, n = points.shape[:2]
    units = [_Unit(name, module) for name, module in _outermost(model)]
    book = _Book(k, n, processes, Counter(), {}, torch.zeros(k, k, dtype=torch.float64, device=points.device))
    inputs = points.detach().flatten(0, 1).requires_grad_()
    hooks = [unit.module.register_forward_hook(unit.watch(book), with_kwargs=True) for unit in units]
    try:
        logits = logits_at(model, inputs)
    finally:
        for hook in hooks:  # before the way back, on which the layers run again
            hook.remove()
    torch.autograd.grad(loss(logits).sum() / n, inputs, allow_unused=True)
    book.close()
    return logits.detach(), book.gram


class _Book:
    """The inner products so far, and gradients that wait for other uses of the same parameter."""

    def __init__(
        self, k: int, n: int, processes: Together, uses: Counter[int], waiting: dict[int, Tensor], gram: Tensor
    ) -> None:
        self.k, self.n, self.processes, self.uses, self.waiting, self.gram = k, n, processes, uses, waiting, gram

    def add(self, key: int, gradients: Tensor) -> None:
        """The (k, ...) gradients of one use of a parameter."""
        held = self.waiting.pop(key, None)
        gradients = gradients if held is None else held + gradients
        self.uses[key] -= 1
        if self.uses[key] > 0:
            self.waiting[key] = gradients
        else:
            flat = self.processes.mean(gradients).flatten(1)
            self.gram += (flat @ flat.T).double()

    def close(self) -> None:
        """Parameters with a use that the loss does not depend on."""
        for key in list(self.waiting):
            self.uses[key] = 1
            self.add(key, torch.zeros_like(self.waiting[key]))


class _Unit:
    """A module with parameters of its own, and all inside it."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module = name or type(module).__name__, module
        self.keys = {n: id(p) for n, p in module.named_parameters(remove_duplicate=False) if p.requires_grad}

    def watch(self, book: _Book) -> Callable[..., None]:
        """A forward hook that lets the output's gradient be followed to the parameters."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            if not isinstance(out, Tensor) or not out.ndim or len(out) % (book.k * book.n):
                raise InputError(
                    f"DDi.gram: expected layers that return one tensor with the batch first, got "
                    f"{tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__} from {self.name}; "
                    "use gram='stored'"
                )
            if not out.requires_grad:
                return
            # those of the moment: the module may be shifted
            weights = {n: p.detach() for n, p in module.named_parameters() if n in self.keys}
            given = [a.detach() if isinstance(a, Tensor) else a for a in args]
            named = {n: a.detach() if isinstance(a, Tensor) else a for n, a in kwargs.items()}
            book.uses.update(self.keys[n] for n in weights)
            kind = out.device.type
            cast = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
            out.register_hook(lambda grad: self._back(book, weights, given, named, cast, grad))

        return hook

    def _back(
        self, book: _Book, weights: dict[str, Tensor], args: list[Any], kwargs: dict[str, Any], cast: Any, grad: Tensor
    ) -> None:
        def part(value: Any, j: int) -> Any:
            split = isinstance(value, Tensor) and value.ndim and len(value) % (book.k * book.n) == 0
            return value.chunk(book.k)[j] if split else value

        rows = [w.new_empty(book.k, *w.shape) for w in weights.values()]
        with torch.enable_grad(), cast:
            for j in range(book.k):
                leaves = {n: w.detach().requires_grad_() for n, w in weights.items()}
                mine = tuple(part(a, j) for a in args)
                named = {n: part(a, j) for n, a in kwargs.items()}
                with fresh_cache():
                    out = torch.func.functional_call(self.module, leaves, mine, named)
                gradients = torch.autograd.grad(
                    out, list(leaves.values()), part(grad, j), allow_unused=True, materialize_grads=True
                )
                for row, gradient in zip(rows, gradients, strict=True):
                    row[j] = gradient
        for n in weights:
            book.add(self.keys[n], rows.pop(0))
        args.clear()


def _outermost(model: nn.Module, name: str = "") -> list[tuple[str, nn.Module]]:
    """The modules that have parameters of their own and are inside no other such module."""
    if any(True for _ in model.parameters(recurse=False)):
        return [(name, model)]
    return [
        unit for child, module in model.named_children() for unit in _outermost(module, f"{name}.{child}".strip("."))
    ]


def check_alone(where: str, model: nn.Module, instead: str) -> None:
    """Refuse a model in which examples depend on each other, or on chance.

    Raises:
        InputError: BatchNorm on the statistics of the batch, or dropout, in training mode.
    """
    for name, module in model.named_modules():
        norm = isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
        drop = module.training and isinstance(module, _DropoutNd) and module.p > 0
        held = getattr(module, "dropout", None)  # of attention and recurrent layers
        inside = module.training and isinstance(held, float) and held > 0
        if norm or drop or inside:
            raise InputError(
                f"{where}: expected a model that treats each example alike and alone, got {type(module).__name__} in "
                f"training mode ({name or 'the model'}); use {instead}, GroupNorm, or put the layer into eval mode"
            )
