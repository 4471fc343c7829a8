"""The neural network distance: the adversary is a network with one hidden layer and bounded weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from danskin.critics.ipm import Witness
from danskin.critics.samples import Samples, samples
from danskin.errors import InputError
from danskin.minmax import Ascent, Box, Set, Spectral, Streams, Template

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "abs": torch.abs, "tanh": torch.tanh}


@dataclass(frozen=True)
class NetworkDistance:
    r"""sup of E_mu d - E_nu d over d(z) = X2 sigma(X1 z + c), \|X1\|_2 <= 1, \|X2\|_2 <= 1.

    X2 is in closed form: with D = E_mu sigma(X1 z + c) - E_nu sigma(X1 z + c) the best row is D / \|D\|_2, which earns
    \|D\|_2. X1 and c are found by projected ascent (`danskin.minmax.Ascent` on `Spectral`) from several starts; the
    problem is not concave, so `value` is what was found: a lower bound of the supremum, and of W1, as all sigma here
    are 1-Lipschitz. A width starts from the best of half of it, a search with bias from one without, so that neither
    doubling the width nor a bias lowers the value.

    Without bias and with relu or abs the class is 1-homogeneous, and blind: delta_1 and (delta_0 + delta_2) / 2 are 0
    apart. It is a pseudometric; with bias the distance of these two is 1/2.

    Args:
        width: rows of X1, >= 1.
        activation: "relu", "abs" or "tanh".
        bias: whether there is c. Its entries are at most the largest l2 norm of a point: beyond that relu and abs
            are linear on the samples, and nothing is gained.
        steps: of the ascent from each start.
        restarts: random starts, >= 1.
        seed: of the starts.

    Reference: Lecture, eq. 11; Arora et al., ICML 2017 (neural net distance). Lecture: E5.

    >>> x, y = torch.tensor([[1.0]]), torch.tensor([[0.0], [2.0]])
    >>> [round(float(NetworkDistance(2, bias=bias).value(x, y)), 3) for bias in (False, True)]
    [0.0, 0.5]
    """

    template: ClassVar[Template] = Template("-", "a network", "weights of spectral norm <= 1", "E_mu d - E_nu d")
    moves: ClassVar[str] = "projected ascent on the first layer, the second in closed form"

    width: int = 16
    activation: Literal["relu", "abs", "tanh"] = "relu"
    bias: bool = True
    steps: int = 100
    restarts: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "steps", "restarts"):
            held = getattr(self, name)
            if isinstance(held, bool) or not isinstance(held, int) or held < 1:
                raise InputError(f"NetworkDistance.{name}: expected a whole number >= 1, got {held!r}; correct it")
        if self.activation not in _ACTIVATIONS:
            raise InputError(
                f"NetworkDistance.activation: expected one of {', '.join(_ACTIVATIONS)}, got {self.activation!r}; all "
                "of them are 1-Lipschitz, so that the distance is at most W1"
            )

    def value(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        """What the best network found earns; differentiable in points and weights, the network held (Danskin)."""
        s = samples(x, y, a, b)
        apart = self._apart(s, self._layer(s)[None])[0]
        squared = apart.square().sum()
        return torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)

    def witness(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Witness:
        """The best network found, 1-Lipschitz; the zero function where nothing is earned."""
        s = samples(x, y, a, b)
        layer = self._layer(s)
        apart = self._apart(s, layer[None])[0].detach()
        size = torch.linalg.vector_norm(apart)
        last = apart / size if float(size) > 0 else torch.zeros_like(apart)
        return lambda z: self._hidden(z.to(layer).reshape(len(z), -1), layer[None])[0] @ last

    def lower_bound(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> float:
        """The value with an allowance for rounding."""
        s = samples(x, y, a, b)
        return max(float(self.value(x, y, a, b).detach()) * (1 - 1e-12) - 1e-13 * _radius(s), 0.0)

    def _hidden(self, z: Tensor, layer: Tensor) -> Tensor:
        """(networks, n, width): sigma(X1 z + c), for layers (networks, width, d + 1) with c as last column."""
        return _ACTIVATIONS[self.activation](torch.baddbmm(layer[:, None, :, -1], z.expand(len(layer), -1, -1),
                                                           layer[:, :, :-1].mT))  # fmt: skip

    def _apart(self, s: Samples, layer: Tensor) -> Tensor:
        """(networks, width): D."""
        return torch.einsum("n,knh->kh", s.signed, self._hidden(s.points, layer))

    def _layer(self, s: Samples) -> Tensor:
        """(width, d + 1): the best first layer found."""
        s = Samples(s.x.detach(), s.y.detach(), s.a.detach(), s.b.detach())
        plain = best = s.x.new_zeros(0, s.x.shape[1] + 1)
        for width in _widths(self.width):
            plain = self._searched(s, width, 0.0, [plain])
            best = self._searched(s, width, _radius(s), [plain, best]) if self.bias else plain
        size = torch.linalg.matrix_norm(best[:, :-1], 2).clamp_min(1)  # rounding of the projection
        return torch.cat([best[:, :-1] / size, best[:, -1:]], 1)

    def _searched(self, s: Samples, width: int, radius: float, known: list[Tensor]) -> Tensor:
        """The best layer of a width with |c| <= radius, at least as good as those known (which may be narrower)."""
        d, Y = s.x.shape[1], _FirstLayer(radius)
        streams = Streams.of(self.seed, torch.arange(self.restarts, device=s.x.device)).child(width)
        given = s.x.new_zeros(1 + len(known), width, d + 1)
        given[0, 0, :-1] = torch.nn.functional.normalize(s.gap(s.x, s.y), dim=0)
        given[0, 0, -1] = radius  # linear on the samples: what tells their means apart
        for start, layer in zip(given[1:], known, strict=True):
            start[: len(layer)] = layer
        starts = torch.cat([given, self._starts(s, streams, width, radius)])
        search = Ascent(self.steps, 0.2, schedule="cosine", keep="value")
        found = search(lambda layer: self._apart(s, layer).square().sum(1), starts, Y)
        assert found.value is not None
        return Y.project(found.y[found.value.argmax()][None])[0]

    def _starts(self, s: Samples, streams: Streams, width: int, radius: float) -> Tensor:
        """(restarts, width, d + 1): random X1 of norm 1, and kinks that run through random points of the samples."""
        drawn = streams.normal(s.x.new_empty(len(streams.key), width, s.x.shape[1]))
        first = drawn / torch.linalg.matrix_norm(drawn, 2).clamp_min(1e-30)[:, None, None]
        if not radius:
            return torch.cat([first, first.new_zeros(*first.shape[:2], 1)], 2)
        at = (streams.child(1).uniform(first[:, :, 0].contiguous()) * len(s.points)).long().clamp(max=len(s.points) - 1)
        shift = -(first * s.points[at]).sum(2, keepdim=True)
        return torch.cat([first, shift], 2)


def _radius(s: Samples) -> float:
    return float(torch.linalg.vector_norm(s.points.detach(), dim=1).amax())


def _widths(width: int) -> list[int]:
    """1, ..., width / 4, width / 2, width (rounded down)."""
    found = []
    while width:
        found.append(width)
        width //= 2
    return found[::-1]


@dataclass(frozen=True)
class _FirstLayer:
    """{(X1, c): spectral norm of X1 at most 1, |c_i| <= bias}, as (batch, width, d + 1); in its norm bias counts 1."""

    bias: float

    @property
    def value(self) -> float:
        return 1.0

    def _each(self, y: Tensor, matrix: Callable[[Tensor], Tensor], shift: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([matrix(y[:, :, :-1]), shift(y[:, :, -1:])], 2)

    @property
    def _parts(self) -> tuple[Spectral, Box]:
        return Spectral(1.0), Box(-self.bias, self.bias)

    def project(self, y: Tensor) -> Tensor:
        X, c = self._parts
        return self._each(y, X.project, c.project)

    def lmo(self, g: Tensor) -> Tensor:
        X, c = self._parts
        return self._each(g, X.lmo, c.lmo)

    def steepest(self, g: Tensor) -> Tensor:
        X, _ = self._parts
        return self._each(g, X.steepest, lambda t: self.bias * t.sign())

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        X, c = self._parts
        return self._each(
            like, lambda t: X.sample(t, generator.child(0)), lambda t: c.sample(t.contiguous(), generator.child(1))
        )

    def violation(self, y: Tensor) -> Tensor:
        X, c = self._parts
        return torch.maximum(X.violation(y[:, :, :-1]), c.violation(y[:, :, -1:]))

    def norm(self, y: Tensor) -> Tensor:
        size = y[:, :, -1].abs().amax(1)
        return torch.maximum(Spectral(1.0).norm(y[:, :, :-1]), size / self.bias if self.bias else size)

    def dual_norm(self, g: Tensor) -> Tensor:
        return Spectral(1.0).dual_norm(g[:, :, :-1]) + self.bias * g[:, :, -1].abs().sum(1)

    def rows(self, index: Tensor) -> Set:
        return self
