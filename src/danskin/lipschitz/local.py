"""Lipschitz bounds near an input: activations have fewer slopes there. LECTURE row E6."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.lipschitz.bound import LipschitzBound, Norm
from danskin.lipschitz.chain import Chain, slopes_of
from danskin.lipschitz.covariance import Slopes, fast_multipliers, rescued, step
from danskin.lipschitz.intervals import Interval, interval
from danskin.lipschitz.network import Network
from danskin.lipschitz.operations import ELEMENTWISE, Input, Sum
from danskin.lipschitz.product import _factor, folded, joined

_SLACK = 1e-12  # of intervals, for the rounding of sums


@dataclass(frozen=True, eq=False)
class Near:
    r"""All x with \|x - center\| <= radius: a ball for norm 2, a box for "inf".

    Args:
        center: one input, without batch dimension.
        radius: > 0, in the units of the input.
        norm: 2 or "inf".
    """

    center: Tensor
    radius: float
    norm: Norm

    def __post_init__(self) -> None:
        if not (self.radius > 0 and math.isfinite(self.radius)):
            raise InputError(f"radius: expected a positive number, got {self.radius}; leave it out for all inputs")
        if not bool(torch.isfinite(self.center).all()):
            raise InputError("center: expected finite numbers, got NaN or infinity; correct the input")

    def __str__(self) -> str:
        return f"within {self.radius:g} (l_{self.norm}) of an input"

    def keep(self, x: Tensor) -> Tensor:
        """Points (n, ...) moved into the domain; one that is in it stays."""
        moved = x - self.center
        if self.norm == "inf":
            return self.center + moved.clamp(-self.radius, self.radius)
        length = moved.flatten(1).norm(dim=1).clamp_min(1e-300)
        shrink = (self.radius / length).clamp_max(1.0)
        return torch.where(
            (shrink < 1).view(-1, *[1] * (x.ndim - 1)),
            self.center + moved * shrink.view(-1, *[1] * (x.ndim - 1)) * (1 - 1e-12),
            x,
        )


def local_slopes(chain: Chain, near: Near) -> list[Slopes]:
    """The slopes that activations can have in the domain, from bounds of their inputs.

    An input of an activation stays within the smaller of an interval and radius sqrt(Z_kk), with the covariance Z of
    its differences (`danskin.lipschitz.covariance`): the certificate of the layers before bounds the next one's range.
    """
    x = near.center.double().flatten().to(chain.weights[0].device)
    stretch = near.radius * (math.sqrt(len(x)) if near.norm == "inf" else 1.0)
    h, center = None, x
    c: Tensor | None = None
    out: list[Slopes] = []
    for i, (w, b) in enumerate(zip(chain.weights[:-1], chain.biases[:-1], strict=True)):
        middle = w @ center + b
        z = w @ w.T if c is None else w @ c @ w.T
        around = stretch * z.diagonal().clamp_min(0).sqrt()
        if h is None:
            around = near.radius * (w.norm(dim=1) if near.norm == 2 else w.abs().sum(1))
            low, high = middle - around, middle + around
        else:
            other = w @ (0.5 * (h[0] + h[1])) + b, w.abs() @ (0.5 * (h[1] - h[0]))
            low = torch.maximum(other[0] - other[1], middle - around)
            high = torch.minimum(other[0] + other[1], middle + around)
        slack = _SLACK * (1 + low.abs() + high.abs())
        low, high = torch.minimum(low, middle) - slack, torch.maximum(high, middle) + slack
        slopes = Slopes.of(*chain.slopes(i, low, high))
        out.append(slopes)
        h, center = chain.range(i, low, high), chain.activate(i, middle[None])[0]
        if i + 1 < len(chain.activations):
            c = step(z, slopes, rescued(z, slopes, fast_multipliers(z, slopes)))
    return out


def local_product(network: Network, near: Near) -> LipschitzBound:
    """The product bound with the steepest slope that each activation can have in the domain."""
    start = time.perf_counter()
    slim = folded(network)  # shifts are dropped where they do not count; ranges need the network itself
    ranges = _ranges(network, near)
    steepest = {n.name: s for n, s in zip(network.nodes, ranges, strict=True)}
    constants: list[float] = []
    for node in slim.nodes:
        before = [constants[i] for i in node.inputs]
        if isinstance(node.operation, Input):
            constants.append(1.0)
        elif isinstance(node.operation, Sum):
            constants.append(joined(node.operation, before, near.norm))
        elif isinstance(node.operation, ELEMENTWISE):
            constants.append(before[0] * steepest[node.name])
        else:
            constants.append(before[0] * _factor(node.operation, slim.nodes[node.inputs[0]], near.norm))
    return LipschitzBound(
        constants[-1], "upper", "product", near.norm, near.norm, str(near), seconds=time.perf_counter() - start
    )


def _ranges(network: Network, near: Near) -> list[float]:
    """The steepest slope of each node that is an activation, 0 for others, from intervals of its input."""
    center = near.center.double()[None].to(network.device)
    box = center - near.radius, center + near.radius
    values = network.values(center)
    found: list[Interval] = []
    steepest: list[float] = []
    constants: list[float] = []
    for at, node in enumerate(network.nodes):
        inputs, before = [found[i] for i in node.inputs], [constants[i] for i in node.inputs]
        slope = 0.0
        if isinstance(node.operation, Input):
            constant = 1.0
        elif isinstance(node.operation, Sum):
            constant = joined(node.operation, before, near.norm)
        elif isinstance(node.operation, ELEMENTWISE):
            least, most = slopes_of(node.operation, *inputs[0])
            slope = float(torch.maximum(least.abs(), most.abs()).max())
            constant = slope * before[0]
        else:
            constant = before[0] * _factor(node.operation, network.nodes[node.inputs[0]], near.norm)
        low, high = interval(node.operation, inputs, box)
        reach = constant * near.radius  # no coordinate moves further than the whole
        low, high = torch.maximum(low, values[at] - reach), torch.minimum(high, values[at] + reach)
        slack = _SLACK * (1 + low.abs() + high.abs())
        found.append((torch.minimum(low, values[at]) - slack, torch.maximum(high, values[at]) + slack))
        constants.append(constant)
        steepest.append(slope)
    return steepest
