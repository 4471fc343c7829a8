"""All bounds of one network side by side, in order: what `danskin lipschitz` prints. LECTURE row E6."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from danskin.errors import DanskinError, InputError, suggest
from danskin.lipschitz.bound import EVERYWHERE, LipschitzBound, Norm
from danskin.lipschitz.chain import Chain, chain_of
from danskin.lipschitz.covariance import Slopes, slopes_everywhere
from danskin.lipschitz.lipopt import ROWS, lipopt, rows_of
from danskin.lipschitz.lipsdp import OUTPUTS, eclipse_fast, lipsdp
from danskin.lipschitz.local import Near, local_product, local_slopes
from danskin.lipschitz.lower import search
from danskin.lipschitz.network import Network
from danskin.lipschitz.product import check_norm, example_input, product_of
from danskin.lipschitz.reading import read
from danskin.lipschitz.regions import exact_by_regions
from danskin.lipschitz.sdp import lipsdp_by_solver
from danskin.lipschitz.seqlip import EXACT, seqlip

#: Names of methods, and what each is.
METHODS = {
    "search": "lower bound with a witness: quotients near many points, the best of them refined",
    "regions": "exact, for tiny networks of ReLU, |x| or sorted pairs: branch and bound over linear regions",
    "lipsdp": "LipSDP-neuron to its optimum, solver-free",
    "lipsdp-solver": "LipSDP-neuron by cvxpy and clarabel (extra [sdp]), repaired; only by name",
    "lipsdp-layer": "LipSDP with one multiplier for each layer",
    "lipopt": "LiPopt's linear programme (l_inf, small networks)",
    "seqlip": "SeqLip: exact for narrow layers, else greedy, which is an estimate (l2)",
    "eclipse-fast": "LipSDP's certificate in closed form",
    "product": "product of the layers' norms",
}
_TIMES = {"eclipse-fast": 1, "lipsdp-layer": 3, "lipsdp": 3}  # in units of the first one, at least
_DEFAULT = tuple(name for name in METHODS if name != "lipsdp-solver")
_GREEDY = 128  # neurons of a layer up to which SeqLip is tried unasked: each step tries them all
_PER_CUBE = 5e-10  # seconds, about, of a certificate for each n^3 of its layers
_REGIONS = (8, 64)  # inputs and hidden neurons up to which regions are tried unasked


@dataclass(frozen=True, eq=False)
class Lipschitz:
    """Bounds of one network, from the largest lower one up.

    Args:
        bounds: ordered by value, lower bounds first.
        skipped: (method, why) of those that do not apply or found no time.
        input_shape: of one example.
        norm: of inputs and outputs.
        domain: where they hold.
        seconds: in all.
    """

    bounds: tuple[LipschitzBound, ...]
    skipped: tuple[tuple[str, str], ...]
    input_shape: tuple[int, ...]
    norm: Norm
    domain: str
    seconds: float

    @property
    def lower(self) -> LipschitzBound:
        """The best certified lower bound."""
        return max((b for b in self.bounds if b.kind == "lower"), key=lambda b: b.value)

    @property
    def upper(self) -> LipschitzBound:
        """The best certified upper bound."""
        return min((b for b in self.bounds if b.kind == "upper"), key=lambda b: b.value)

    @property
    def exact(self) -> bool:
        """Whether the best two agree to 1e-6."""
        return self.upper.value <= self.lower.value * (1 + 1e-6)

    def __getitem__(self, method: str) -> LipschitzBound:
        """The bound of a method, by the name that it prints."""
        for bound in self.bounds:
            if bound.method == method:
                return bound
        raise KeyError(method)

    def to_plain(self) -> dict[str, Any]:
        """As plain data, witness included."""
        rows = []
        for b in self.bounds:
            row = {"method": b.method, "kind": b.kind, "value": b.value, "seconds": b.seconds}
            row |= {"assumptions": list(b.assumptions)} if b.assumptions else {}
            rows.append(row | ({"witness": [w.tolist() for w in b.witness]} if b.witness else {}))
        return {
            "norm": self.norm,
            "domain": self.domain,
            "input_shape": list(self.input_shape),
            "lower": self.lower.value,
            "upper": self.upper.value,
            "bounds": rows,
            "skipped": [{"method": name, "why": why} for name, why in self.skipped],
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        norm = "l2" if self.norm == 2 else "l_inf"
        lines = [f"{norm} Lipschitz constant, {self.domain}: {self.lower.value:.6g} <= L <= {self.upper.value:.6g}"]
        lines += [f"  {b.kind:8s} {b.value:12.6g}  {b.method:24s} {b.seconds:8.2f} s" for b in self.bounds]
        return "\n".join([*lines, *(f"  skipped  {name}: {why}" for name, why in self.skipped)])


def lipschitz(
    model: Callable[[Tensor], Tensor],
    input_shape: Sequence[int],
    *,
    norm: Norm = 2,
    budget_s: float = 30.0,
    methods: Sequence[str] | None = None,
    at: Tensor | None = None,
    radius: float | None = None,
    x: Tensor | None = None,
    seed: int = 0,
) -> Lipschitz:
    r"""Bounds of the smallest L with \|f(x) - f(x')\| <= L \|x - x'\|, from below and above, as tight as time allows.

    For ReLU networks  search <= regions <= LipSDP-neuron <= LipSDP-layer, ECLipsE-Fast <= product  (SeqLip and LiPopt
    lie between regions and product). Methods but "search" and "product" need what `chain_of` writes out as matrices and
    elementwise activations (small convolutions, residual branches, sorted pairs); others say why they were skipped.

    Args:
        model: inputs (batch, *input_shape) to outputs; read in eval mode and left as found.
        input_shape: of one example.
        norm: 2 or "inf", of inputs and outputs alike.
        budget_s: seconds; a method that cannot be stopped (a linear or semidefinite programme) may run over it.
        methods: names of `METHODS`; default: all that apply but "lipsdp-solver".
        at: (*input_shape) with `radius`: bounds near this input instead of for all.
        radius: of the ball (norm 2) or box ("inf") around `at`.
        x: (batch, *input_shape) where the search for lower bounds begins, such as data.
        seed: of the search.

    Raises:
        ModelError: the product bound has no rule for an operation (dot-product attention has no Lipschitz constant at
            all); it is named.
        InputError: a wrong norm, budget or method.

    Lecture: E6.

    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> found = lipschitz(net, (2,), budget_s=5)
    >>> found.lower.value <= found.upper.value
    True
    """
    start, norm = time.perf_counter(), check_norm(norm)
    chosen = _DEFAULT if methods is None else tuple(methods)
    for name in chosen:
        if name not in METHODS:
            raise InputError(f"methods: expected names of {', '.join(METHODS)}, got {name!r}; {suggest(name, METHODS)}")
    if not budget_s > 0:
        raise InputError(f"budget_s: expected seconds above 0, got {budget_s}; give it some time")
    if (at is None) != (radius is None):
        raise InputError("at, radius: expected both or none, got one; a domain needs a center and a radius")
    network = read(model, example_input(model, input_shape))
    near = None
    if at is not None and radius is not None:
        if tuple(at.shape) != tuple(input_shape):
            raise InputError(f"at: expected the shape {tuple(input_shape)}, got {tuple(at.shape)}; give one input")
        near = Near(at.detach().double().to(network.device), float(radius), norm)
    return _Table(network, norm, near, start, budget_s, chosen, x, seed).made()


class _Table:
    def __init__(
        self, network: Network, norm: Norm, near: Near | None, start: float, budget_s: float,
        chosen: tuple[str, ...], x: Tensor | None, seed: int,
    ) -> None:  # fmt: skip
        self.network, self.norm, self.near, self.start = network, norm, near, start
        self.until, self.budget, self.chosen, self.x, self.seed = start + budget_s, budget_s, chosen, x, seed
        self.domain = EVERYWHERE if near is None else str(near)
        self.bounds: list[LipschitzBound] = []
        self.skipped: list[tuple[str, str]] = []

    @property
    def left(self) -> float:
        return max(0.0, self.until - time.perf_counter())

    def made(self) -> Lipschitz:
        product = product_of(self.network, self.norm) if self.near is None else local_product(self.network, self.near)
        self.bounds.append(product)
        self.bounds.append(self._search())
        rest = [name for name in self.chosen if name not in ("product", "search")]
        if rest:
            self._of_chain(rest)
        order = {"lower": 0, "estimate": 1, "upper": 1}
        ordered = sorted(self.bounds, key=lambda b: (order[b.kind], b.value, b.kind == "upper"))
        shape = self.network.nodes[0].shape
        seconds = time.perf_counter() - self.start
        named = tuple(replace(b, domain=self.domain) for b in ordered)
        return Lipschitz(named, tuple(self.skipped), shape, self.norm, self.domain, seconds)

    def _search(self) -> LipschitzBound:
        budget = min(5.0, 0.2 * self.budget)
        if self.near is None:
            return search(self.network, self.norm, self.x, budget_s=budget, seed=self.seed)
        random = torch.Generator().manual_seed(self.seed)
        shape = self.network.nodes[0].shape
        spread = self.near.radius * 2 * torch.randn((512, *shape), generator=random, dtype=torch.float64)
        flat = spread.flatten(1) if self.norm == "inf" else spread.flatten(1) / max(1, spread[0].numel()) ** 0.5
        begin = self.near.keep(self.near.center + flat.view(spread.shape).to(self.near.center.device))
        return search(
            self.network, self.norm, begin, budget_s=budget, seed=self.seed, keep=self.near.keep,
            near=1e-7 * min(1.0, self.near.radius),
        )  # fmt: skip

    def _of_chain(self, names: list[str]) -> None:
        try:
            chain = chain_of(self.network)
        except DanskinError as error:
            self.skipped.append((", ".join(names), str(error).removeprefix("model: ")))
            return
        slopes: list[Slopes] | None = None
        cheap_first = [n for n in reversed(METHODS) if n in names]
        cheap_first.sort(key=lambda n: n == "regions")  # it takes what time is left
        for name in cheap_first:
            why = self._why_not(name, chain)
            if why is None and self.left == 0 and name != "eclipse-fast":
                why = "no time was left"
            if why is not None:
                self.skipped.append((name, why))
                continue
            if slopes is None:  # near an input they cost as much as a certificate
                slopes = slopes_everywhere(chain) if self.near is None else local_slopes(chain, self.near)
            try:
                self.bounds += self._by(name, chain, slopes)
            except DanskinError as error:
                self.skipped.append((name, str(error)))

    def _why_not(self, name: str, chain: Chain) -> str | None:
        """Why a method does not apply; None where it does."""
        asked = self.chosen is not _DEFAULT
        if name == "eclipse-fast" and chain.branches:
            return "its closed form is for layers in turn, without branches around an activation"
        if name in _TIMES and not asked:
            outputs = chain.widths[-1] if self.norm == "inf" and name != "eclipse-fast" else 1
            seconds = (
                _PER_CUBE
                * _TIMES[name]
                * (outputs if outputs <= OUTPUTS else 1)
                * sum(n**3 for n in chain.widths[1:-1])
            )
            if seconds > max(self.left, 1.0):
                return (
                    f"layers of up to {max(chain.widths[1:-1])} numbers would take about {seconds:.0f} s; give more "
                    "time or ask for it by name"
                )
        if name == "regions":
            if any(chain.leaks(i) is None for i in range(len(chain.activations))):
                return "not all of its activations are ReLU, leaky ReLU, |x| or sorted pairs"
            if self.near is not None:
                return "it is for all inputs only"
            if not asked and (chain.widths[0] > _REGIONS[0] or chain.hidden > _REGIONS[1]):
                return f"more than {_REGIONS[0]} inputs or {_REGIONS[1]} hidden neurons; ask for it by name"
        if name in ("seqlip", "lipsdp-solver") and self.norm != 2:
            return "it is for l2 only"
        if name in ("seqlip", "lipsdp-solver") and self.near is not None:
            return "it is for all inputs only"
        if name == "seqlip" and not asked and max(chain.widths[1:-1], default=0) > _GREEDY:
            return f"a layer of more than {_GREEDY} neurons; ask for it by name"
        if name == "lipopt" and self.norm == 2:
            return "it is for l_inf only"
        if name == "lipopt":
            rows = rows_of(chain.widths[0] + chain.hidden, len(chain.activations) + 1)
            if rows > (ROWS if asked else ROWS // 4):
                return f"its linear programme would have {rows} rows"
        return None

    def _by(self, name: str, chain: Chain, slopes: list[Slopes]) -> list[LipschitzBound]:
        if name == "eclipse-fast":
            return [eclipse_fast(chain, self.norm, slopes)]
        if name in ("lipsdp", "lipsdp-layer"):
            per = "layer" if name == "lipsdp-layer" else "neuron"
            return [lipsdp(chain, norm=self.norm, per=per, budget_s=0.6 * self.left, slopes=slopes)]  # type: ignore[arg-type]
        if name == "lipsdp-solver":
            return [lipsdp_by_solver(chain)]
        if name == "seqlip":
            exact = max(chain.widths[1:-1], default=0) <= EXACT
            return [seqlip(chain, exact=exact)]
        if name == "lipopt":
            return [lipopt(chain, slopes=slopes)]
        known = max(b.value for b in self.bounds if b.kind == "lower")
        found = exact_by_regions(chain, norm=self.norm, budget_s=self.left, known=known)
        return [found.lower, found.upper] if found.lower.witness is not None else [found.upper]
