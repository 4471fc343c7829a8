"""Lower bounds of the Lipschitz constant: two inputs, and how far apart the model sends them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from danskin.lipschitz.bound import LipschitzBound
from danskin.lipschitz.reading import read
from danskin.minmax import L2, Streams
from danskin.minmax.sets import rowwise, vector_norm


def lipschitz_lower(
    model: Callable[[Tensor], Tensor], x: Tensor, *, steps: int = 20, length: float = 1e-4, seed: int = 0
) -> LipschitzBound:
    r"""The largest quotient \|f(x + h v) - f(x)\|_2 / \|h v\|_2 over the given inputs, v by power iteration.

    At each x, v goes towards the first right singular vector of the Jacobian J: v <- J^T J v / |J^T J v|, where
    J v is a difference quotient. The value is the quotient itself, evaluated in float64, so it is a lower bound of
    L whatever v is (up to rounding, about 1e-16 |f(x)| / length).

    Args:
        model: inputs (batch, ...) to outputs; read in eval mode and left as found.
        x: (batch, ...) where to look; the more points, the better.
        steps: of the power iteration.
        length: h, in the units of x.
        seed: of the first directions.

    Raises:
        ModelError: an operation has no rule; it is named.

    Lecture: E6.
    """
    network, ball = read(model, x), L2(1.0)
    x = x.detach().double()
    v = ball.steepest(Streams.of_content(seed, x).normal(x))
    with torch.inference_mode(False):
        x, v = x.clone(), v.clone()
        for _ in range(steps):
            apart = network(x + length * v) - network(x)
            pulled = torch.func.vjp(network, x)[1](apart)[0]
            largest = vector_norm(pulled, 2)
            v = torch.where(rowwise(largest, v) > 0, ball.steepest(pulled), v)
        other = x + length * v
        moved = vector_norm((network(other) - network(x)).reshape(len(x), -1), 2)
        quotients = moved / vector_norm(other - x, 2)
        at = int(quotients.argmax())
    return LipschitzBound(float(quotients[at]), "lower", "quotient", (), (x[at], other[at]))
