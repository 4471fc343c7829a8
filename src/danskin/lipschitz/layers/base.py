"""What a layer with a certified Lipschitz constant is, and how a network of them becomes plain torch layers."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from danskin.callables import once
from danskin.errors import InputError, ModelError
from danskin.inputs import whole_number


class LipschitzLayer(nn.Module, ABC):
    """A layer whose l2 Lipschitz constant is known."""

    @property
    @abstractmethod
    def lipschitz(self) -> float:
        """The certified l2 Lipschitz constant of what `forward` computes in eval mode, in float64; never too small."""

    @abstractmethod
    def export(self) -> nn.Module:
        """A plain torch layer with the same outputs as in eval mode, and weights of its own."""


class Constrained(LipschitzLayer, ABC):
    """A layer that computes its weight from unconstrained parameters, at every call: none is kept that could be stale.

    Inside `danskin.callables.constant.constant_weights` (attacks set it) the weight is computed once.
    """

    @abstractmethod
    def make_weight(self) -> Tensor:
        """The weight from the parameters, differentiable, in float32 or float64."""

    @abstractmethod
    def norm(self, weight: Tensor) -> float:
        """At least the l2 norm of the map that has this weight, in float64."""

    @property
    def lipschitz(self) -> float:
        """`norm` of the weight of eval mode, as rounded to the dtype it is used in.

        Raises:
            ModelError: it is not finite.
        """
        return self.norm(finite(self.settled_weight(), self))

    def constrained_weight(self) -> Tensor:
        """The weight that `forward` uses, in the dtype of the parameters; mixed precision does not reach inside."""
        like = next(self.parameters())

        def make() -> Tensor:
            with torch.autocast(like.device.type, enabled=False):
                return self.make_weight().to(like.dtype)

        return once(self, make)

    def settled_weight(self) -> Tensor:
        """The weight of eval mode, outside autograd; the layer is left as it is."""
        training, self.training = self.training, False
        try:
            with torch.no_grad():
                return self.constrained_weight()
        finally:
            self.training = training


def finite(weight: Tensor, layer: nn.Module) -> Tensor:
    """The weight, of which a constant may be told."""
    if not bool(weight.isfinite().all()):
        raise ModelError(
            f"{type(layer).__name__}: expected finite weights, got NaN or infinity; look where training diverged"
        )
    return weight


def check_whole(layer: nn.Module, least: int, **given: object) -> None:
    """Settings are whole numbers of at least so much."""
    for name, value in given.items():
        whole_number(value, f"{type(layer).__name__}.{name}", least)


def place_of(dim: int, x: Tensor, layer: nn.Module) -> int:
    """The dimension of the channels, counted from the front."""
    if not -x.ndim <= dim < x.ndim:
        raise InputError(
            f"{type(layer).__name__}: expected inputs with a dimension {dim} of channels, got shape {tuple(x.shape)}; "
            "put the batch first, or set dim"
        )
    return dim % x.ndim


def fresh_bias(outputs: int, fan_in: int) -> nn.Parameter:
    """A bias as torch's own layers begin with: uniform in +- 1 / sqrt(fan_in)."""
    bias = nn.Parameter(torch.empty(outputs))
    bound = 1 / math.sqrt(fan_in)
    nn.init.uniform_(bias, -bound, bound)
    return bias


@torch.no_grad()
def fill_(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, weight: Tensor, bias: Tensor | None) -> None:
    """Copy weight and bias into a plain layer."""
    layer.weight.copy_(weight)
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)


def exact_enough(weight: Tensor) -> Tensor:
    """A parameter in float32 at least, in which decompositions are defined."""
    return weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight


def below_one(weight: Tensor, size: int) -> Tensor:
    """The weight a few roundings smaller, so that rounding does not lift its norm above 1.

    Entries that are each wrong by eps change the norm by at most eps times the Frobenius norm, sqrt(size) here.

    Args:
        weight: of norm 1 in exact arithmetic.
        size: of the smaller side of its matrix.
    """
    return weight * (1 - 4 * torch.finfo(weight.dtype).eps * math.sqrt(size))


def export(model: nn.Module) -> nn.Module:
    """A copy of a model with plain torch layers in place of those that compute their weights.

    Activations without a torch counterpart (`GroupSort`, `LinearSpline`) stay what they are. The copy has the same
    outputs in eval mode, costs what its plain layers cost, and can be saved, compiled and read like any other.

    >>> net = nn.Sequential(OrthogonalLinear(4, 4), MaxMin())  # doctest: +SKIP
    >>> export(net)[0]  # doctest: +SKIP
    Linear(in_features=4, out_features=4, bias=True)
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"export: expected a torch.nn.Module, got {type(model).__name__}; pass the network itself")
    if isinstance(model, LipschitzLayer):
        return model.export().train(model.training)
    memo: dict[int, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, LipschitzLayer):
            memo[id(module)] = module.export().train(module.training)
    return copy.deepcopy(model, memo)  # deepcopy puts what the memo holds wherever the layer stood
