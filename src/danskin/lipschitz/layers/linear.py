"""Linear layers of norm at most 1: spectral normalisation, orthogonal, almost orthogonal. LECTURE rows E6 and F3."""

from __future__ import annotations

import math
from abc import ABC
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.lipschitz.layers.base import Constrained, below_one, check_whole, exact_enough, fill_, fresh_bias
from danskin.lipschitz.layers.gram import gram_norm
from danskin.lipschitz.layers.orthogonalize import Method, check_method, initial, orthogonal
from danskin.lipschitz.layers.power import Matrix, advance_, estimate, unit
from danskin.lipschitz.norms import matrix_norm

Mode = Literal["power", "exact", "bound"]


def check_mode(mode: str, owner: str) -> None:
    """It is one of `Mode`."""
    if mode not in get_args(Mode):
        raise InputError(f"{owner}: expected mode {', '.join(get_args(Mode))}, got {mode!r}; pick one")


class ConstrainedLinear(Constrained, ABC):
    """W x + b on the last dimension, with a constrained W (out_features, in_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        check_whole(self, 1, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = fresh_bias(out_features, in_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """W x + b, (..., in_features) to (..., out_features)."""
        return F.linear(x, self.constrained_weight(), self.bias)

    def norm(self, weight: Tensor) -> float:
        """The largest singular value, by a decomposition in float64."""
        return matrix_norm(weight)

    def export(self) -> nn.Linear:
        """`nn.Linear` with the weight in use."""
        weight = self.settled_weight()
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None).to(weight)
        fill_(layer, weight, self.bias)
        return layer

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class SpectralLinear(ConstrainedLinear):
    r"""W / sigma, with sigma the spectral norm of W, or a bound of it.

    Args:
        in_features: inputs.
        out_features: outputs.
        bias: whether there is one.
        mode: "power": one step of power iteration a training step (Miyato): cheapest; sigma is too small, so the
            norm exceeds 1 a little, and `lipschitz` says by how much. "exact": singular value decomposition. "bound":
            Gram iteration in float64, an upper bound within a fraction of a percent.
        iterations: of the power method a training step; nothing is updated in eval mode.

    Reference: Miyato et al., ICLR 2018, algorithm 1 ("power"); Delattre et al., ICML 2023 ("bound"). Lecture: F3, E6.
    """

    u: Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, mode: Mode = "power", iterations: int = 1
    ) -> None:
        super().__init__(in_features, out_features, bias)
        check_mode(mode, "SpectralLinear")
        check_whole(self, 1, iterations=iterations)
        self.mode, self.iterations = mode, iterations
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if mode == "power":
            with torch.no_grad():
                self.register_buffer("u", unit(torch.randn(out_features)))
                advance_(self.u, self.weight, Matrix(), 15)

    def make_weight(self) -> Tensor:
        """W / sigma."""
        weight = exact_enough(self.weight)
        if self.mode == "power":
            if self.training:
                advance_(self.u, weight, Matrix(), self.iterations)
            sigma = estimate(self.u, weight, Matrix())
        elif self.mode == "exact":
            sigma = torch.linalg.matrix_norm(weight, 2)
        else:
            sigma = gram_norm(weight.double()).to(weight.dtype)
        unit = weight / sigma.clamp_min(torch.finfo(weight.dtype).tiny)
        return unit if self.mode == "power" else below_one(unit, min(weight.shape))


class OrthogonalLinear(ConstrainedLinear):
    """W with orthonormal rows, or columns where there are more outputs than inputs: gradients keep their norm.

    Args:
        in_features: inputs.
        out_features: outputs.
        bias: whether there is one.
        method: "bjorck": the nearest orthogonal matrix by iteration, norm <= 1 at every iterate; "householder":
            a product of reflections; "cayley": of a skew matrix, one linear solve. Both are exact up to rounding.
        iterations: of Björck; 0 leaves the weight as it is but for its scale, of norm <= 1 all the same.

    Reference: Anil, Lucas and Grosse, ICML 2019; Mhammedi et al., ICML 2017; Trockman and Kolter, ICLR 2021.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        method: Method = "bjorck",
        iterations: int = 12,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        check_method(method, "OrthogonalLinear")
        check_whole(self, 0, iterations=iterations)
        self.method, self.iterations = method, iterations
        with torch.no_grad():
            self.weight.copy_(initial(tuple(self.weight.shape), method))

    def make_weight(self) -> Tensor:
        """The orthogonal matrix of the raw one."""
        return orthogonal(exact_enough(self.weight), self.method, self.iterations)


class AOLLinear(ConstrainedLinear):
    r"""W D with D_j = (sum_i |W^T W|_ij)^(-1/2): norm at most 1 in one shot, nearly orthogonal after training.

    Args:
        in_features: inputs.
        out_features: outputs.
        bias: whether there is one.

    Reference: Prach and Lampert, "Almost-orthogonal layers", ECCV 2022, theorem 1.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        nn.init.orthogonal_(self.weight)

    def make_weight(self) -> Tensor:
        """W D."""
        weight = exact_enough(self.weight)
        sums = (weight.mT @ weight).abs().sum(0)
        scaled = weight * sums.clamp_min(torch.finfo(weight.dtype).tiny).rsqrt()
        return below_one(scaled, min(weight.shape))
