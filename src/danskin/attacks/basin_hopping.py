"""Basin hopping: short climbs from kicked points, by several chains per example that take parts from one another."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from danskin.attacks.attack import Attack
from danskin.attacks.patches import exchanged, kicked, share_between
from danskin.errors import InputError
from danskin.losses import LossName
from danskin.minmax import Maximizer, Maximum, Set, Streams
from danskin.minmax.conveyor import Belt, State, convey
from danskin.minmax.intersection import order_of
from danskin.minmax.maximize import sparse_signs
from danskin.minmax.rows import PerRow
from danskin.minmax.search import Payoff, mask
from danskin.minmax.sets import rowwise

_KICK = (0.005, 0.2)  # the share of an input that a kick covers, from and to
_SWAP = (0.06, 0.6)  # and that is taken from another chain
_FIRST = (0.25, 1.0)  # first step of a climb, in radii
_LAST = 0.01  # and its last
_MOMENTUM = 0.75
_SPARSE = 0.99  # share of the coordinates that an l1 step leaves alone


@dataclass(frozen=True)
class Copies:
    """Each example several times in a row; only to be cut.

    Args:
        base: a payoff over examples with ``rows(index)``.
        n: rows per example.
    """

    base: Any
    n: int

    def __call__(self, y: Tensor) -> Any:
        """The payoff of all rows."""
        return self.rows(torch.arange(len(y), device=y.device))(y)

    def rows(self, index: Tensor) -> Any:
        """The payoff of some of the rows."""
        return self.base.rows(index // self.n)


@dataclass(frozen=True)
class Hops(PerRow):
    """Basin hopping on a conveyor, `chains` rows per example side by side; see `BasinHopping`.

    A row's state: the number of its hop and of its step k within the climb; y and the point before; the best point
    `top` of this climb; the point `held` that the next hop starts from; the value at the start of the example.
    """

    radius: float | Tensor
    hops: int
    climb: int
    chains: int
    exchange: float
    least: int
    slack: float
    stop: bool
    width: int | None

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y."""
        if not hasattr(f, "rows"):
            raise InputError("BasinHopping: expected a payoff with rows(index), got a plain function; call the attack")
        copies = Copies(f, self.chains)
        return convey(self, copies, y0, Y, generator, width=self.width, stop=self.stop, fan=self.chains)

    def begin(self, y0: Tensor, Y: Set, streams: Streams | None, rows: Tensor) -> State:
        """The first chain at y0, the others at random points."""
        if streams is None:
            raise InputError("BasinHopping: expected streams, got None; pass Streams")
        first = torch.arange(len(y0), device=y0.device) % self.chains == 0
        y = torch.where(mask(first, y0), Y.project(y0), Y.sample(y0, streams))
        none, lowest = torch.zeros_like(rows), y.new_full((len(y),), -math.inf)
        radius = torch.as_tensor(self.radius, dtype=y.dtype, device=y.device).reshape(-1)
        radius = (radius[rows] if len(radius) > 1 else radius).expand(len(y))
        return {
            "hop": none, "k": none, "y": y, "before": y, "top": y, "top_value": lowest, "held": y, "held_value": lowest,
            "start": lowest, "radius": radius, "step": radius.clone(),
        }  # fmt: skip

    def advance(self, belt: Belt, state: State) -> tuple[State, Tensor]:
        """One look: a step of the climb, or its end and the next hop."""
        y, k = state["y"], state["k"]
        ends = k == self.climb
        gradient = not bool(ends.all())
        value, g = belt.evaluate(y, gradient=gradient)
        if bool((new := (state["hop"] == 0) & (k == 0)).any()):
            clean = value.view(-1, self.chains)[:, :1].expand(-1, self.chains).reshape(-1)
            state = state | {"start": torch.where(new, clean, state["start"])}
        better = ~(value <= state["top_value"])
        state = state | {
            "top": torch.where(mask(better, y), y, state["top"]),
            "top_value": torch.where(better, value, state["top_value"]),
        }
        ahead = self._step(belt.Y, state, g) if gradient else y
        state, before = state | {"k": k + 1}, torch.where(mask(ends, y), ahead, y)
        over = ends & (state["hop"] + 1 >= self.hops)
        if not bool(ends.any()):
            return state | {"y": ahead, "before": before}, over
        over |= ends & self._far(belt, state)
        return self._hop(belt, state | {"y": ahead, "before": before}, ends.nonzero().squeeze(1)), over

    def _step(self, Y: Set, state: State, g: Tensor) -> Tensor:
        """The next point of the climb: a step with momentum whose length falls geometrically to a hundredth."""
        y, k = state["y"], state["k"]
        d = sparse_signs(g, y, Y, _SPARSE) if order_of(Y) == 1 else Y.steepest(g)
        way = (k / max(self.climb - 1, 1)).clamp_max(1).to(y.dtype)
        length = state["step"] * (_LAST * state["radius"] / state["step"].clamp_min(1e-30)) ** way
        z = Y.project(torch.addcmul(y, d, rowwise(length, y)))
        a = rowwise(torch.where(k == 0, 1.0, _MOMENTUM).to(y.dtype), y)
        return Y.project(y + a * (z - y) + (1 - a) * (y - state["before"]))

    def _far(self, belt: Belt, state: State) -> Tensor:
        """(rows,) bool: after `least` hops the example still lacks much more than its hops have gained."""
        best = belt.value[belt.examples].repeat_interleave(self.chains)
        return (state["hop"] + 1 >= self.least) & (-best > self.slack * (best - state["start"]))

    def _hop(self, belt: Belt, state: State, at: Tensor) -> State:
        """Rows `at` take the best point of their climb if it is better than the one they hold, and are kicked."""
        streams = cast(Streams, belt.streams).rows(at).child(state["hop"][at])
        part = {key: value[at] for key, value in state.items()}
        wins = part["top_value"] > part["held_value"]
        held = torch.where(mask(wins, part["top"]), part["top"], part["held"])
        y, step = self._kick(belt.Y.rows(at), held, streams)
        part |= {
            "hop": part["hop"] + 1, "k": torch.zeros_like(part["k"]), "y": y, "before": y, "held": held,
            "held_value": torch.where(wins, part["top_value"], part["held_value"]),
            "top_value": torch.full_like(part["top_value"], -math.inf), "step": part["radius"] * step,
        }  # fmt: skip
        return {key: value.index_copy(0, at, part[key]) for key, value in state.items()}

    def _kick(self, Y: Set, held: Tensor, streams: Streams) -> tuple[Tensor, Tensor]:
        """(where the rows go on from, the first step of their climb in radii)."""
        u = streams.child(0).uniform(held.new_empty(len(held), 7))
        out, times = held, 1 + (3 * u[:, 0]).long()
        for i in range(3):
            ahead = kicked(out, Y, share_between(*_KICK, u[:, 1 + i]), streams.child(1 + i))
            out = torch.where(mask(times > i, out), ahead, out)
        if self.chains > 1:
            mixed = exchanged(held, self.chains, share_between(*_SWAP, u[:, 4]), streams.child(4))
            out = torch.where(mask(u[:, 5] < self.exchange, out), Y.project(mixed), out)
        return out, share_between(*_FIRST, u[:, 6])


@dataclass(frozen=True)
class BasinHopping(Attack):
    r"""Short climbs along gradients from kicked points, again and again: for examples on which all else stays short.

    Each example has several chains. A hop of a chain: take its point; with probability `exchange` put a random square
    of another chain's point into it, else put one to three random squares at extreme values; climb from there; keep
    the end if it is better than where the hop began. A climb takes steepest steps with momentum whose length falls
    geometrically, from a quarter of the radius or more, to a hundredth. The first chain starts at the clean input, the
    others at random points. Inputs that are no images have random sets of coordinates instead of squares.

    Where gradients are masked a climb ends in one of very many basins. Good parts of an image are found by chains one
    by one, and come together by exchange.

    Args:
        ball: `Linf`, `L2` or `L1`.
        hops: climbs of each chain, >= 1.
        climb: gradients of a climb, >= 1; one look more at its end.
        chains: per example, >= 1.
        exchange: share of hops that take a part from another chain, in [0, 1].
        least: after so many hops the examples leave that are far from the boundary.
        slack: far is who lacks more than this multiple of what its hops have gained over the clean input; inf: nobody.
        stop: leave an example as soon as it is adversarial.
        width: rows in the batch at a time; at least one example with its chains.

    Far and near are told by the sign of the loss: with "margin" and "dlr" it is 0 at the boundary; with losses that
    are positive anywhere nobody leaves.

    Reference: Wales and Doye, J. Phys. Chem. A 1997 (basin hopping); the exchange is the crossover of memetic
    algorithms. Lecture: rows C6 and C8. Our own; measured in bench/results/deep.md.
    """

    moves: ClassVar[str] = "kicks and exchanges between chains, projected ascent after each"

    hops: int = 300
    climb: int = 20
    chains: int = 8
    exchange: float = 0.4
    least: int = 30
    slack: float = 0.5
    stop: bool = False
    width: int | None = None
    loss: LossName = field(default="margin", kw_only=True)

    def maximizer(self) -> Maximizer:
        """All chains of all examples.

        Raises:
            InputError: a hyperparameter out of range.
        """
        for name in ("hops", "climb", "chains", "least"):
            if getattr(self, name) < 1:
                raise InputError(f"BasinHopping.{name}: expected at least 1, got {getattr(self, name)}; leave it out")
        if not 0 <= self.exchange <= 1:
            raise InputError(f"BasinHopping.exchange: expected a share in [0, 1], got {self.exchange}; leave it out")
        if not self.slack >= 0:
            raise InputError(f"BasinHopping.slack: expected a number >= 0, got {self.slack}; inf spares nobody")
        return Hops(
            self.radius, self.hops, self.climb, self.chains, self.exchange, self.least, self.slack, self.stop,
            self.width,
        )  # fmt: skip
