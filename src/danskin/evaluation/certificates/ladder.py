"""From cheap bounds to dear ones, example by example: what is proved stops, what is broken or too dear stays below."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from danskin.evaluation.certificates.asked import has_lines
from danskin.evaluation.certificates.backward import Bounds
from danskin.evaluation.certificates.margins import Lipschitz, differences, of_intervals, of_lines, of_slopes
from danskin.evaluation.certificates.region import Region
from danskin.evaluation.certificates.slopes import STEPS
from danskin.evaluation.certificates.tried import Tried
from danskin.evaluation.certificates.work import cost_per_example, pass_costs
from danskin.lipschitz.network import Network
from danskin.lipschitz.operations import Sort, Spline
from danskin.minmax.intersection import order_of
from danskin.minmax.sets import Set

_AT_ONCE = 1e8  # multiplications an example below which "auto" takes the dearest method at once: some milliseconds
_HOPELESS = 20.0  # times the budget: "crown" is not begun where every neuron undecided would cost more
_TOGETHER = 1e10  # multiplications of the examples that are worked on together; about a second
_SEARCH = 3.0 * STEPS  # passes of a row in the search for slopes, a backward one counted as two


class Ladder:
    """The methods for one network, climbed by any number of batches.

    Args:
        network: which.
        ball: the kind of region.
        method: one method, which all right examples take; "auto": "lipschitz" (but for l_inf), "ibp", "crown-ibp",
            "crown" and "alpha-crown" in this order, each for the examples that the ones before have not proved. It ends
            at "ibp" for networks that sort more than pairs, which have no lines, and of sorting and splines but for
            l_inf: these are made to be proved by their Lipschitz constant, and lines cost much and added nothing.
        budget: multiplications that "auto" may spend on one example.
    """

    def __init__(self, network: Network, ball: Set, method: str, budget: float) -> None:
        self.network, self.cost, self.passes = network, cost_per_example(network), pass_costs(network)
        self.climbs = method == "auto" and self.cost > _AT_ONCE
        self.budget = budget if method == "auto" else math.inf
        names = [method]
        if method == "auto":
            names = ["ibp", "crown-ibp", "crown", "alpha-crown"] if self.climbs else ["alpha-crown"]
            names = names if _lines_pay(network, ball) else ["ibp"]
            names = names if order_of(ball) == math.inf else ["lipschitz", *names]
        self.steps = {name: Tried(name) for name in names}
        self.product = Lipschitz(network) if "lipschitz" in names else None

    def together(self, most: int) -> int:
        """How many examples to work on at a time: at most `most`, and few where each is dear."""
        dear = any(name.endswith("crown") for name in self.steps)
        return max(1, min(most, int(_TOGETHER / max(self.cost, 1.0)))) if dear and self.cost > _AT_ONCE else most

    def margins(self, region: Region, y: Tensor, logits: Tensor, right: Tensor, worth: Tensor, goal: Tensor) -> Tensor:
        """(n,): at most the worst margin over each region.

        Args:
            region: of the inputs, n examples.
            y: (n,) labels.
            logits: (n, ...) of the network at the clean examples, float64.
            right: (n,) bool; only these are worth more than intervals.
            worth: (n,) bool; only these are worth a dear method.
            goal: (n,) what a margin must exceed for a proof.
        """
        return _Climb(self, region, y, logits, right, worth, goal).margins()


def _lines_pay(network: Network, ball: Set) -> bool:
    made_to_be_lipschitz = any(isinstance(n.operation, Sort | Spline) for n in network.nodes)
    return all(has_lines(n) for n in network.nodes) and (order_of(ball) == math.inf or not made_to_be_lipschitz)


class _Climb:
    """One batch on its way up. Each way says how many it tried, were over the budget, and were broken by attacks."""

    def __init__(
        self, ladder: Ladder, region: Region, y: Tensor, logits: Tensor, right: Tensor, worth: Tensor, goal: Tensor
    ) -> None:
        self.ladder, self.region, self.logits = ladder, region, logits
        self.right, self.worth, self.goal = right, worth, goal
        self.rows = differences(y, tuple(logits.shape[1:]))
        self.product = torch.full((len(y),), -math.inf, dtype=torch.float64, device=y.device)
        self.least = self.product[:, None].expand(self.rows.shape[:2])  # (n, k), of all other methods
        self.plain: Bounds | None = None  # from intervals alone, of all examples
        self.tight: Bounds | None = None
        self.tightened = y.new_zeros(0)  # whose bounds these are

    def margins(self) -> Tensor:
        """Climb all the way."""
        ways = {
            "lipschitz": self._by_product, "ibp": self._by_intervals, "crown-ibp": self._by_lines,
            "crown": self._by_tight_lines, "alpha-crown": self._by_slopes,
        }  # fmt: skip
        for name, told in self.ladder.steps.items():
            start, before = time.perf_counter(), self._proved()
            tried, over, broken = ways[name]()
            proved, seconds = int((self._proved() & ~before).sum()), time.perf_counter() - start
            self.ladder.steps[name] = told + Tried(name, tried, proved, over, broken, seconds)
        return self._best()

    def _best(self) -> Tensor:
        return torch.maximum(self.product, self.least.amin(1))

    def _proved(self) -> Tensor:
        return self.right & (self._best() > self.goal)

    def _open(self) -> Tensor:
        """(n,) bool: right, and, where one climbs, not proved yet."""
        return self.right & ~self._proved() if self.ladder.climbs else self.right

    def _worth(self) -> tuple[Tensor, int]:
        """Numbers of the open examples that are worth a dear method, and how many are not."""
        open_ = self._open()
        worth = open_ & self.worth if self.ladder.climbs else open_
        return worth.nonzero().flatten(), int((open_ & ~worth).sum())

    def _raise(self, index: Tensor, found: Tensor) -> None:
        least = self.least.clone()
        least[index] = torch.maximum(least[index], found)
        self.least = least

    def _by_product(self) -> tuple[int, int, int]:
        assert self.ladder.product is not None
        self.product = self.ladder.product.margins(self.region, self.rows, self.logits)
        return int(self.right.sum()), 0, 0

    def _by_intervals(self) -> tuple[int, int, int]:
        self._intervals()
        return int(self.right.sum()), 0, 0

    def _intervals(self) -> Bounds:
        """What all other bounds begin with; margins of wrong examples end here."""
        if self.plain is None:
            self.plain = Bounds.of(self.ladder.network, self.region, tighten=False)
            self.least = torch.maximum(self.least, of_intervals(self.plain, self.rows))
        return self.plain

    def _by_lines(self) -> tuple[int, int, int]:
        plain = self._intervals()
        chosen = self._open().nonzero().flatten()
        if 2 * self.rows.shape[1] * self.ladder.passes[-1] > self.ladder.budget:
            return 0, len(chosen), 0
        if len(chosen):
            self._raise(chosen, of_lines(plain.rows(chosen), self.rows[chosen]))
        return len(chosen), 0, 0

    def _by_tight_lines(self) -> tuple[int, int, int]:
        self._intervals()
        chosen, broken = self._worth()
        if self.ladder.cost > _HOPELESS * self.ladder.budget:
            return 0, len(chosen), broken
        if not len(chosen):
            return 0, 0, broken
        region, self.tightened = self.region.rows(chosen), chosen
        self.tight = Bounds.of(self.ladder.network, region, tighten=True, budget=self.ladder.budget)
        self._raise(chosen, of_lines(self.tight, self.rows[chosen]))
        return len(chosen), int(self.tight.over.sum()), broken

    def _by_slopes(self) -> tuple[int, int, int]:
        if "crown" not in self.ladder.steps:
            self._by_tight_lines()
        chosen, broken = self._worth()
        if self.tight is None:
            return 0, len(chosen), broken
        rows = (self.least <= self.goal[:, None]).sum(1)[self.tightened]
        spent = self.tight.spent + _SEARCH * rows * self.ladder.passes[-1]
        within = torch.isin(self.tightened, chosen) & ~self.tight.over & (spent <= self.ladder.budget)
        left = self.tightened[within]
        if len(left):
            bounds = self.tight.rows(within.nonzero().flatten())
            self._raise(left, of_slopes(bounds, self.rows[left], self.least[left], self.goal[left]))
        return len(left), len(chosen) - len(left), broken
