"""Gradients of a payoff, and what becomes of partial derivatives that are not finite."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from danskin.errors import DanskinWarning, ModelError


def gradient_at(value: Tensor, y: Tensor, *, retain: bool = False) -> Tensor:
    """The gradient of the summed values at the leaf y.

    `retain` keeps the graph for more of several outputs, of which one may not depend on y: its gradient is then 0.

    Raises:
        ModelError: the values do not depend differentiably on y.
    """
    if not value.requires_grad:
        raise ModelError(
            "payoff: expected values that depend differentiably on the input, got values without a gradient; remove "
            "no_grad, detach, argmax or numpy from the model, or use an attack that needs no gradient"
        )
    (slope,) = torch.autograd.grad(value.sum(), y, retain_graph=retain, allow_unused=True)
    if slope is None and retain:
        return torch.zeros_like(y, requires_grad=False)
    if slope is None:
        raise ModelError(
            "payoff: expected values that depend on the input, got values that do not use it; check the model's forward"
        )
    return slope


def finite(slope: Tensor, value: Tensor) -> tuple[Tensor, bool | Tensor]:
    """(slope with partial derivatives that are NaN or infinite as 0, whether there were any at finite values).

    A search goes on along the others: one bad coordinate (a root or logarithm at 0, a norm at 0) would otherwise make
    the norm of the whole row NaN or infinite. Elsewhere than on a CPU the answer is a tensor, so that nobody waits.
    """
    if slope.device.type == "cpu" and bool(slope.sum().isfinite()):  # one cheap pass tells
        return slope, False
    bad, known = ~slope.isfinite(), value.detach().isfinite().view(-1, *[1] * (slope.ndim - 1))
    found = (bad & known).any()
    return slope.masked_fill(bad, 0), bool(found) if slope.device.type == "cpu" else found


def warn_of_bad_gradient() -> None:
    """Say that partial derivatives were NaN or infinite."""
    warnings.warn(
        "gradient: expected finite partial derivatives, got NaN or infinity in some coordinates; they count as 0. Keep "
        "the model away from roots, logarithms and norms at 0 (x.clamp_min(1e-6).sqrt())",
        DanskinWarning,
        stacklevel=2,
    )


def twice_differentiable() -> AbstractContextManager[None]:
    """A context in which attention is plain arithmetic: its fused kernels have no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)
