"""Lower bounds of the Lipschitz constant: two inputs, and how far apart the model sends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from danskin.lipschitz.bound import LipschitzBound, Norm
from danskin.lipschitz.network import Network
from danskin.lipschitz.product import check_norm, example_input
from danskin.lipschitz.reading import read
from danskin.minmax import L2, Linf, Streams
from danskin.minmax.sets import rowwise, vector_norm

_LENGTHS = (1.0, 1e2, 1e4, 1e5)  # of a pair, in those of the search: longer ones round less
_ROUNDED = 4e-15  # of values, relative to the largest number in the network
_CHUNK = 1 << 22  # numbers of inputs in a batch


def lipschitz_lower(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    norm: Norm = 2,
    steps: int = 20,
    length: float = 1e-4,
    seed: int = 0,
) -> LipschitzBound:
    r"""The largest quotient \|f(x + h v) - f(x)\| / \|h v\| over the given inputs, v by power iteration.

    At each x, v goes towards the maximiser of \|J v\| over \|v\| <= 1 with the Jacobian J: v becomes the steepest
    direction of J^T u, u the steepest dual direction of J v, where J v is a difference quotient and J^T u an exact
    vector-Jacobian product. The value is the quotient itself, evaluated in float64, so it is a lower bound of
    L whatever v is (up to rounding, about 1e-16 |f(x)| / length).

    Args:
        model: inputs (batch, ...) to outputs; read in eval mode and left as found.
        x: (batch, ...) where to look; the more points, the better.
        norm: 2 or "inf", of inputs and outputs alike.
        steps: of the power iteration.
        length: h, in the units of x.
        seed: of the first directions.

    Raises:
        ModelError: an operation has no rule; it is named.

    Lecture: E6.
    """
    start = time.perf_counter()
    network, norm = read(model, x), check_norm(norm)
    with torch.inference_mode(False):
        a, b, quotients = quotients_at(network, x.detach().double(), norm, steps, length, seed)
    at = int(quotients.argmax())
    return LipschitzBound(
        float(quotients[at]), "lower", "quotient", norm, norm,
        seconds=time.perf_counter() - start, witness=(a[at], b[at]),
    )  # fmt: skip


def quotients_at(
    network: Network, x: Tensor, norm: Norm, steps: int, length: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (n, ...), others near them, and their quotients (n,)."""
    ball = L2(1.0) if norm == 2 else Linf(1.0)
    x = x.clone()
    v = ball.steepest(Streams.of_content(seed, x).normal(x))
    for _ in range(steps):
        apart = network(x + length * v) - network(x)
        pulled = torch.func.vjp(network, x)[1](_dual(apart, norm))[0]
        v = torch.where(rowwise(vector_norm(pulled, 2), v) > 0, ball.steepest(pulled), v)
    other = x + length * v
    return x, other, quotient(network, x, other, norm)


def quotient(network: Network, a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """(n,): the distance of the outputs over that of the inputs; 0 where the inputs are equal."""
    order = 2 if norm == 2 else torch.inf
    moved = (network(a) - network(b)).flatten(1)
    far = vector_norm((a - b).flatten(1), order)
    return torch.where(far > 0, vector_norm(moved, order) / far, 0.0)


def _dual(apart: Tensor, norm: Norm) -> Tensor:
    """What the outputs are multiplied with: themselves, or the sign of the largest of each row."""
    if norm == 2:
        return apart
    flat = apart.flatten(1)
    at = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter_(1, at, flat.gather(1, at).sign()).view(apart.shape)


def search_lower(
    model: Callable[[Tensor], Tensor],
    input_shape: Sequence[int],
    *,
    norm: Norm = 2,
    x: Tensor | None = None,
    points: int = 512,
    rounds: int = 20,
    budget_s: float = 10.0,
    seed: int = 0,
) -> LipschitzBound:
    """The largest quotient that a search finds: many points, then steps from the best ones, hopping between pieces.

    The gradient of a Jacobian's norm is 0 almost everywhere for piecewise linear networks, so the search does not
    follow it: it draws points around the best so far, at distances from large to small. What rounding may have added to
    the quotient is taken off.

    Args:
        model: inputs (batch, *input_shape) to outputs.
        input_shape: of one example.
        norm: 2 or "inf".
        x: (batch, *input_shape) where to begin; default: normal and uniform points at several scales.
        points: in a round.
        rounds: after the first.
        budget_s: seconds after which no further round begins.
        seed: of all that is drawn.

    Lecture: E6.
    """
    network, start = read(model, example_input(model, input_shape)), time.perf_counter()
    return search(network, check_norm(norm), x, points, rounds, budget_s, seed, start)


def search(
    network: Network,
    norm: Norm,
    x: Tensor | None = None,
    points: int = 512,
    rounds: int = 20,
    budget_s: float = 10.0,
    seed: int = 0,
    start: float | None = None,
    keep: Callable[[Tensor], Tensor] | None = None,
    near: float = 1e-7,
) -> LipschitzBound:
    """`search_lower` of a network that is read already.

    Args:
        network: which.
        norm: 2 or "inf".
        x: where to begin.
        points: in a round.
        rounds: after the first.
        budget_s: seconds.
        seed: of all that is drawn.
        start: when the clock began.
        keep: projects points into the domain; None: all of space.
        near: the distance of two points of a quotient, relative to 1 + |x|.
    """
    start = time.perf_counter() if start is None else start
    random = torch.Generator().manual_seed(seed)
    shape, device = network.nodes[0].shape, network.device
    keep = keep or (lambda t: t)
    points = max(4, min(points, _CHUNK // max(1, max(torch.Size(n.shape).numel() for n in network.nodes))))

    def normal(n: int) -> Tensor:
        return torch.randn((n, *shape), generator=random, dtype=torch.float64).to(device)

    if x is None:
        scales = torch.tensor([0.03, 0.3, 1.0, 3.0, 10.0], dtype=torch.float64).to(device)
        spread = scales[torch.arange(points, device=device) % len(scales)]
        x = normal(points) * rowwise(spread, normal(1).expand(points, *shape))
        x = torch.cat([x, torch.rand((points // 4, *shape), generator=random, dtype=torch.float64).to(device)])
    best: tuple[Tensor, Tensor, Tensor] | None = None
    with torch.inference_mode(False), torch.no_grad():
        x = keep(x.detach().double().to(device))
        for round_ in range(rounds + 1):
            best = _best(best, _pairs(network, x, norm, near, seed + round_, keep), max(4, points // 16))
            if time.perf_counter() - start > budget_s:
                break
            size = 1 + best[0].flatten(1).abs().amax()
            width = size * 2.0 ** -(round_ % 10)
            parents = best[0][torch.arange(points, device=device) % len(best[0])]
            x = keep(parents + width * normal(points) / torch.Size(shape).numel() ** 0.5)
        assert best is not None  # there is a round 0
        a, b, value = _longest(network, best[0], best[1], norm, keep)
    return LipschitzBound(
        value, "lower", "search", norm, norm, seconds=time.perf_counter() - start, witness=(a, b)
    )  # fmt: skip


def _longest(
    network: Network, a: Tensor, b: Tensor, norm: Norm, keep: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, float]:
    """The best pair, moved apart as far as that helps, and its quotient less what rounding may have added."""
    a = a.repeat(len(_LENGTHS), *[1] * (a.ndim - 1))
    b = keep(torch.cat([b + (k - 1) * (b - a[: len(b)]) for k in _LENGTHS]))
    largest = torch.stack([v.flatten(1).abs().amax(1) for v in network.values(a)]).amax(0)
    far = (a - b).flatten(1).abs().amax(1).clamp_min(1e-300)
    values = quotient(network, a, b, norm) - _ROUNDED * largest / far
    at = int(values.argmax())
    return a[at], b[at], max(0.0, float(values[at]))


def _pairs(
    network: Network, x: Tensor, norm: Norm, near: float, seed: int, keep: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    length = near * float(1 + x.abs().amax())
    a, b, _ = quotients_at(network, x, norm, 8, length, seed)
    b = keep(b)
    return a, b, quotient(network, a, b, norm)


def _best(
    known: tuple[Tensor, Tensor, Tensor] | None, found: tuple[Tensor, Tensor, Tensor], most: int
) -> tuple[Tensor, Tensor, Tensor]:
    both = found if known is None else tuple(torch.cat(pair) for pair in zip(known, found, strict=True))
    order = both[2].argsort(descending=True)[:most]
    return both[0][order], both[1][order], both[2][order]
