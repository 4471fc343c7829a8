"""Linear bounds carried backward to the input (Fast-Lin, CROWN), batched over pairs of example and neuron.

A row is a linear function <a, value of a node>. Going backward, an affine operation turns a into W^T a and
adds <a, b>; an activation is replaced by its line below where a > 0 and its line above where a < 0. At the
input the least value over the region is known in closed form. All rows of a pass may belong to different
examples, so only neurons that are not decided yet are asked about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from danskin.evaluation.certificates.asked import asked_nodes, mixes_once, only_affine
from danskin.evaluation.certificates.intervals import Interval, interval
from danskin.evaluation.certificates.region import Region
from danskin.evaluation.certificates.relaxations import Lines, Relaxation, Style, relax
from danskin.evaluation.certificates.windows import Window
from danskin.evaluation.certificates.work import pass_costs
from danskin.lipschitz.network import Network
from danskin.lipschitz.operations import ACTIVATIONS, AFFINE, Conv, Relu, Scale, Sum, total

_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 26}  # numbers in the largest array of a backward pass; on CPUs a cache's worth
_WINDOWS = 16  # times as many rows where they are windows of images
_TABLE = 1 << 25  # numbers in a table of rows that all examples share
STYLES: tuple[Style, ...] = ("parallel", "adaptive")


@dataclass(frozen=True, eq=False)
class Bounds:
    """What is known of a network over the regions of a batch.

    Args:
        network: which.
        region: of the inputs.
        intervals: low and high (n, *shape) of the nodes.
        relaxations: of the activations, by style and node.
        spent: (n,) multiplications of the backward passes behind the intervals.
        over: (n,) bool, more passes were wanted than the budget holds; from there on intervals had to do.
    """

    network: Network
    region: Region
    spent: Tensor
    over: Tensor
    intervals: list[Interval] = field(default_factory=list)
    relaxations: dict[Style, dict[int, Relaxation]] = field(default_factory=lambda: {s: {} for s in STYLES})

    @staticmethod
    def of(network: Network, region: Region, tighten: bool, budget: float = math.inf) -> Bounds:
        """Bounds of all nodes, first to last.

        Args:
            network: which.
            region: of the inputs.
            tighten: bound the inputs of ReLU, sigmoid and tanh by backward passes too, not by intervals only.
            budget: multiplications for one example; its passes end before the node that would exceed it.

        Reference: the recursion of Weng et al., ICML 2018, and Zhang et al., NeurIPS 2018, theorem 3.2.
        """
        n, device = len(region.x), region.x.device
        spent, over = (torch.zeros(n, dtype=d, device=device) for d in (torch.float64, torch.bool))
        bounds, costs = Bounds(network, region, spent, over), pass_costs(network)
        asked = asked_nodes(network) if tighten else set()
        for at, node in enumerate(network.nodes):
            if isinstance(node.operation, ACTIVATIONS):
                for style in STYLES:
                    made = relax(node.operation, *bounds.intervals[node.inputs[0]], style)
                    bounds.relaxations[style][at] = made
            found = interval(node, [bounds.intervals[i] for i in node.inputs], region)
            bounds.intervals.append(bounds._tightened(at, found, costs[at], budget) if at in asked else found)
        return bounds

    def rows(self, index: Tensor) -> Bounds:
        """What is known of some examples."""
        intervals = [(low[index], high[index]) for low, high in self.intervals]
        relaxations = {s: {at: r.rows(index) for at, r in made.items()} for s, made in self.relaxations.items()}
        region, spent, over = self.region.rows(index), self.spent[index], self.over[index]
        return Bounds(self.network, region, spent, over, intervals, relaxations)

    def _tightened(self, at: int, found: Interval, price: float, budget: float) -> Interval:
        """The interval of a node, cut with what backward passes say of its undecided neurons."""
        if only_affine(self.network, at):
            if self.region.ball.order == math.inf and mixes_once(self.network, at):
                return found
            return _cut(found, self._affine_range(at), None)
        users = [n.operation for n in self.network.nodes if at in n.inputs]
        kinked = all(isinstance(u, Relu) for u in users)  # then a neuron on one side of 0 is exact already
        for style in STYLES:
            low, high = found
            wide = ((low < 0) & (high > 0) if kinked else low < high).flatten(1)
            work = 2 * price * wide.sum(1)
            self.over.logical_or_(self.spent + work > budget)
            self.spent.add_(work.masked_fill(self.over, 0.0))
            pairs = (wide & ~self.over[:, None]).nonzero()
            if len(pairs):
                found = _cut(found, self._range(at, pairs[:, 0], pairs[:, 1], style), pairs)
        return found

    def _affine_range(self, at: int) -> Interval:
        """Low and high (n, size) of a node with no activation before it: its rows are the same for all examples."""
        size = math.prod(self.network.nodes[at].shape)
        ranges = []
        for neurons in torch.arange(size, device=self.region.x.device).split(self.rows_per_pass(at)):
            a, constant = self._walk({at: self._one_hot(at, neurons)}, neurons, STYLES[0])
            low, high = self.region.common_range(a if a is not None else self._nothing(len(neurons)))
            ranges.append((low + constant, high + constant))
        return torch.cat([low for low, _ in ranges], 1), torch.cat([high for _, high in ranges], 1)

    def _nothing(self, rows: int) -> Tensor:
        return self.region.x.new_zeros((rows, *self.region.x.shape[1:]))

    def _range(self, at: int, example: Tensor, neuron: Tensor, style: Style) -> Interval:
        """Low and high (rows,) of single neurons of a node."""
        if len(self.network.nodes[at].shape) == 3:
            return self._image_range(at, example, neuron, style)
        seeds, place = neuron.unique(return_inverse=True)
        start, table, offset = self._table(at, seeds)
        low, high = [], []
        for rows in torch.arange(len(example), device=example.device).split(self.rows_per_pass(at)):
            a = self._one_hot(at, neuron[rows]) if table is None else table[place[rows]]
            b = 0.0 if offset is None else offset[place[rows]]
            below, above = self.least(start, torch.cat([a, -a]), example[rows].repeat(2), style).chunk(2)
            low.append(below + b)
            high.append(b - above)
        return torch.cat(low), torch.cat(high)

    def _image_range(self, at: int, example: Tensor, neuron: Tensor, style: Style) -> Interval:
        """The same for images, where a neuron sees only a window of the layers before."""
        channels, height, width = self.network.nodes[at].shape
        channel, spot = neuron // (height * width), neuron % (height * width)
        place = torch.stack([spot // width, spot % width], 1)
        low: list[Tensor] = []
        high: list[Tensor] = []
        for rows in torch.arange(len(example), device=example.device).split(_WINDOWS * self.rows_per_pass(at)):
            for sign, found in ((1.0, low), (-1.0, high)):
                window = Window.of_neurons(channel[rows], place[rows], channels, sign)
                found.append(sign * self._least_of_window(at, window, example[rows], style))
        return torch.cat(low), torch.cat(high)

    def _least_of_window(self, start: int, window: Window, example: Tensor, style: Style) -> Tensor:
        """`least` for rows on windows; from the first operation that has no rule for them on, whole images."""
        waiting, constant = {start: window}, window.a.new_zeros(len(example))
        for at in range(start, 0, -1):
            if at not in waiting:
                continue
            node = self.network.nodes[at]
            moved = self._window_before(at, waiting[at], example, style)
            if moved is None:
                whole = {i: w.dense(self.network.nodes[i].shape) for i, w in waiting.items()}
                a_input, rest = self._walk(whole, example, style)
                constant = constant + rest
                return constant if a_input is None else constant + self.region.least(a_input, example)
            del waiting[at]
            for before, (w, c) in zip(node.inputs, moved, strict=True):
                constant = constant + c
                waiting[before] = waiting[before].plus(w) if before in waiting else w
        window = waiting[0].cleaned(self.network.nodes[0].shape)
        return constant + self.region.cut(window, example).least(window.a, None)

    def _window_before(
        self, at: int, window: Window, example: Tensor, style: Style
    ) -> list[tuple[Window, Tensor | float]] | None:
        """The windows of a node's inputs, each with a constant; None where there is no rule or no gain."""
        node = self.network.nodes[at]
        operation, shape = node.operation, node.shape
        if len(shape) != 3 or window.a[0, 0].numel() >= shape[1] * shape[2]:
            return None
        if isinstance(operation, Sum):
            return [(window.times(factor * window.a, window.clean), 0.0) for factor in operation.factors]
        if isinstance(operation, Conv):
            window = window.cleaned(shape)
            return [(window.before(operation), operation.offset(window.a))]
        if isinstance(operation, Scale):
            window = window.cleaned(shape)
            scale, shift = (v.expand(shape)[None] for v in (operation.scale, operation.shift))
            constant = total(window.a * window.cut(shift, None))
            return [(window.times(window.a * window.cut(scale, None), True), constant)]
        lines = self.relaxations[style].get(at)
        if isinstance(lines, Lines):
            a, constant = lines.cut(window, example).pull(window.a, None)
            return [(window.times(a, True), constant)]
        return None

    def _one_hot(self, at: int, neuron: Tensor) -> Tensor:
        shape = self.network.nodes[at].shape
        a = torch.zeros((len(neuron), math.prod(shape)), dtype=torch.float64, device=neuron.device)
        return a.scatter_(1, neuron[:, None], 1.0).view(len(neuron), *shape)

    def _table(self, at: int, seeds: Tensor) -> tuple[int, Tensor | None, Tensor | None]:
        """Where passes start, and the rows and constants of `seeds` there, which all examples share.

        None where the table would be too large: then each row starts as one neuron of the node itself.
        """
        node = self.network.nodes[at]
        operation = node.operation
        if not isinstance(operation, AFFINE):
            return at, None, None
        before = node.inputs[0]
        if len(seeds) * math.prod(self.network.nodes[before].shape) > _TABLE:
            return at, None, None
        parts = [self._one_hot(at, some) for some in seeds.split(self.rows_per_pass(at))]
        table = torch.cat([operation.pullback(part) for part in parts])
        return before, table, torch.cat([operation.offset(part) for part in parts])

    def rows_per_pass(self, at: int) -> int:
        """How many rows a pass from a node should have."""
        largest = max(math.prod(n.shape) for n in self.network.nodes[: at + 1])
        return max(1, _CHUNK.get(self.region.x.device.type, 1 << 18) // largest)

    def least(self, start: int, a: Tensor, example: Tensor, style: Style, *, exact: bool = False) -> Tensor:
        """(rows,): at most the least <a, value of node `start`> over each row's region.

        Args:
            start: a node.
            a: (rows, *shape of the node).
            example: (rows,) which region.
            style: of the relaxation.
            exact: see `Region.least`.
        """
        a_input, constant = self._walk({start: a}, example, style)
        return constant if a_input is None else constant + self.region.least(a_input, example, exact=exact)

    def _walk(self, waiting: dict[int, Tensor], example: Tensor, style: Style) -> tuple[Tensor | None, Tensor]:
        """Coefficients of the input (None: it has no influence) and a constant, from those of nodes."""
        constant = self.region.x.new_zeros(len(example))
        for at in range(max(waiting), 0, -1):
            if at not in waiting:
                continue
            a, node = waiting.pop(at), self.network.nodes[at]
            operation = node.operation
            if isinstance(operation, Sum):
                for factor, before in zip(operation.factors, node.inputs, strict=True):
                    _collect(waiting, before, factor * a)
                continue
            if isinstance(operation, ACTIVATIONS):
                b, c = self.relaxations[style][at].pull(a, example)
            else:
                b, c = operation.pullback(a), operation.offset(a)  # type: ignore[union-attr]
            constant = constant + c
            _collect(waiting, node.inputs[0], b)
        return waiting.get(0), constant


def _collect(waiting: dict[int, Tensor], at: int, a: Tensor) -> None:
    waiting[at] = waiting[at] + a if at in waiting else a


def _cut(found: Interval, other: Interval, pairs: Tensor | None) -> Interval:
    """The intersection of two bounds of the same things; the second for all neurons, or for some pairs."""
    low, high = (v.flatten(1).clone() for v in found)
    spot = (slice(None), slice(None)) if pairs is None else (pairs[:, 0], pairs[:, 1])
    low[spot], high[spot] = torch.maximum(low[spot], other[0]), torch.minimum(high[spot], other[1])
    low, high = low.view(found[0].shape), high.view(found[1].shape)
    return low, torch.maximum(low, high)  # an empty interval is one point that was rounded twice
