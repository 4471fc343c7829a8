"""A critic's scores and slopes, one for each example."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from danskin.errors import InputError, ModelError
from danskin.lipschitz.layers import LipschitzLayer

Critic = Callable[[Tensor], Tensor]


def scores(critic: Critic, x: Tensor) -> Tensor:
    """One score for each example, (n,).

    Raises:
        ModelError: the critic returns something else than (n,) or (n, 1): a patch critic's scores must be averaged in
            it, as a mean over patches here would change what a slope is.
    """
    s = critic(x)
    if s.shape == (len(x), 1):
        return s[:, 0]
    if s.shape != (len(x),):
        raise ModelError(
            f"critic: expected one score per example, shape ({len(x)},) or ({len(x)}, 1), got {tuple(s.shape)}; "
            "end it with a linear layer to 1, or average the scores of patches inside"
        )
    return s


def input_gradients(critic: Critic, x: Tensor, *, differentiable: bool = True) -> Tensor:
    """The gradient of each example's score with respect to that example, shaped as x.

    Through `torch.autograd.grad`, so that no parameter's `.grad` is touched and no graph is kept alive by one
    (`backward(create_graph=True)` does both). With BatchNorm in training mode the rows are not the examples' own.

    Args:
        critic: to one score per example.
        x: (n, ...) points; detached here.
        differentiable: keep the graph, so that a penalty on the result can be minimised over the weights.

    Raises:
        ModelError: the scores do not depend on the inputs.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = scores(critic, x).sum()
    try:
        (gradient,) = torch.autograd.grad(total, x, create_graph=differentiable)
    except RuntimeError as error:
        raise ModelError(
            "critic: expected scores that depend on the inputs by differentiable operations, got none to "
            f"differentiate ({str(error).splitlines()[0]}); see that it neither detaches nor rounds them"
        ) from error
    return gradient


def dual(p: float) -> float:
    """The q with 1/p + 1/q = 1.

    >>> dual(2), dual(1), dual(math.inf), dual(4)
    (2.0, inf, 1.0, 1.3333333333333333)
    """
    if p == math.inf:
        return 1.0
    return math.inf if p == 1 else p / (p - 1)


def row_norms(gradient: Tensor, q: float = 2.0) -> Tensor:
    r"""The norm of each row over all its other dimensions, (n,), with gradient 0 where the row is 0.

    The root in :math:`(\sum |g|^q)^{1/q}` has an infinite slope at 0, which double backward turns into NaN for every
    weight (pytorch issue 2534); here a row of zeros is taken out before the root and put back as 0 behind it.

    Args:
        gradient: (n, ...).
        q: at least 1; inf for the largest absolute entry.

    Raises:
        InputError: q below 1.
    """
    if not q >= 1:
        raise InputError(f"row_norms: expected a norm with q >= 1, got {q}; use 1, 2 or inf")
    flat = gradient.flatten(1)
    if q == 1:
        return flat.abs().sum(1)
    if q == math.inf:
        return flat.abs().amax(1)
    if q == 2:
        return torch.linalg.vector_norm(flat, dim=1)  # torch takes the gradient 0 at 0
    size = flat.detach().abs().amax(1)
    zero = size == 0
    size = torch.where(zero, 1.0, size)
    scaled = flat / size[:, None]
    total = scaled.abs().pow(q).sum(1)
    root = torch.where(zero, 1.0, total).pow(1 / q)
    return torch.where(zero, 0.0, root * size)


def both_scores(critic: Critic, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of real and of generated examples: in one pass where the critic surely looks at each by itself."""
    if len(real) == len(fake) and _surely_per_example(critic):
        first, second = scores(critic, torch.cat([real, fake])).split(len(real))
        return first, second
    return scores(critic, real), scores(critic, fake)


_PER_EXAMPLE = frozenset({
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Flatten, nn.Unflatten, nn.LayerNorm, nn.GroupNorm, nn.Identity),
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Sigmoid),
})  # fmt: skip


def _surely_per_example(critic: object) -> bool:
    """Only layers that are known to treat each example by itself, one after the other; no class of anybody's own."""
    if type(critic) is nn.Sequential:
        return all(_surely_per_example(layer) for layer in critic)
    return type(critic) in _PER_EXAMPLE or isinstance(critic, LipschitzLayer)


def mixes_examples(critic: object) -> list[str]:
    """Names of the layers that normalise over the batch, so that no example has a slope of its own."""
    if not isinstance(critic, nn.Module):
        return []
    kinds = (nn.modules.batchnorm._BatchNorm,)
    return [name or type(m).__name__ for name, m in critic.named_modules() if isinstance(m, kinds)]
