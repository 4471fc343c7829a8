"""Certificates: lower bounds of robust accuracy, per example."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from danskin.attacks import checks
from danskin.attacks.bounds import Ball
from danskin.attacks.guard import as_found, home_of, raw_module
from danskin.errors import InputError, ModelError
from danskin.evaluation.certificates.ladder import Ladder
from danskin.evaluation.certificates.region import Region
from danskin.evaluation.certificates.tried import Tried, dearest
from danskin.evaluation.examples import Data, batches
from danskin.inputs import check_model, in_box
from danskin.lipschitz.kinks import spelled_out
from danskin.lipschitz.reading import read
from danskin.losses import check_labels, get_loss, predict
from danskin.metrics import Share
from danskin.minmax.intersection import order_of
from danskin.minmax.measured import grown, radius_of
from danskin.minmax.reading import read_ball

#: "lipschitz": the product bound; "ibp": intervals; "crown-ibp": one backward pass over intervals; "crown": backward
#: passes for all layers; "alpha-crown": and slopes optimised for the examples still open; "auto": one after the other,
#: each for what is not proved yet.
CertifyMethod = Literal["auto", "lipschitz", "ibp", "crown-ibp", "crown", "alpha-crown"]

BUDGET = 2e11  # multiplications "auto" may spend on one example: some ten seconds on one core
Progress = Callable[[dict[str, Any]], None]
_ROUNDING = 16.0  # of the model's own dtype, in units of eps (1 + largest |logit|)
_MISREAD = 1e-2  # relative difference of logits above which the model was not read as it computes


@dataclass(frozen=True, eq=False)
class Certified:
    """What is proved, per example.

    Args:
        margin: (n,) float64 at most the worst margin, min over the region and j != y of z_y - z_j; for a model
            with one output, of y z. Rounding is subtracted.
        correct: (n,) bool, the model is right at the clean example.
        certified: (n,) bool, correct and margin > 0: no attack within ball and box can succeed.
        method: the bounds that were used.
        seconds: wall time.
        steps: what each method was asked, and what it proved.
        budget: multiplications that could be spent on one example; infinite where a method was asked for by name.
    """

    margin: Tensor
    correct: Tensor
    certified: Tensor
    method: str
    seconds: float
    steps: tuple[Tried, ...] = ()
    budget: float = math.inf

    @property
    def share(self) -> Share:
        """Certified robust accuracy: a lower bound of robust accuracy."""
        return Share.of(self.certified)

    def __str__(self) -> str:
        told = "".join(f"\n  {step}" for step in self.steps) if len(self.steps) > 1 else ""
        return f"certified {self.share} by {self.method} in {self.seconds:.1f} s{told}"


def certify(
    model: Callable[[Tensor], Tensor],
    data: Data,
    ball: Ball | str,
    *,
    method: CertifyMethod = "auto",
    box: checks.DataBox = (0, 1),
    batch_size: int = 64,
    worth: Tensor | None = None,
    budget: float = BUDGET,
    progress: Progress = lambda event: None,
) -> Certified:
    r"""Lower bounds of  min over delta in ball and box, j != y  of  z_y(x + delta) - z_j(x + delta).

    The model (in eval mode, left as found) is read by `danskin.lipschitz.read`; an operation without a rule is
    refused by name. Bounds are computed in float64 for the model's weights in exact arithmetic. Then the larger
    of 16 eps (1 + max |z|) and four times the difference of the model's own logits to those in float64, at the
    clean example, is subtracted for rounding in the model's own evaluation (eps of the inputs' dtype), and the
    ball is enlarged by the rounding of x + delta (`Region.of`).

    "auto" climbs from cheap to dear, example by example: the next method sees only what the ones before have not
    proved. What is dear sees only examples that are `worth` it, and ends where an example exceeds the budget, which
    counts multiplications, not seconds: what is proved of an example depends on it alone.

    Args:
        model: inputs (batch, ...) in their natural units to logits (batch, classes), or one output per example
            with labels -1/+1.
        data: (x, y), or batches of such pairs (a DataLoader).
        ball: `Linf`, `L2` or `L1`, or a text such as "linf:8/255"; the radius may be a tensor with one number per
            example of the data.
        method: see `CertifyMethod`; what is dearer is tighter. For wrong examples only intervals are used.
        box: (low, high) of valid data, or None.
        batch_size: examples at a time, at most; changes nothing but memory and time.
        worth: (n,) bool, the examples that "auto" may try dear methods on; leave out those that an attack has broken.
        budget: multiplications that "auto" may spend on one example.
        progress: called with {"work": "certificates", "stage", "proved", "done", "total"} every few examples; "total"
            is None where the data does not say how many there are.

    Returns:
        `Certified`, on the CPU, in the order of the data.

    Raises:
        InputError: wrong inputs, labels, radius, box or method.
        ModelError: an operation without a rule, or a model that computes something else than was read.

    Reference: Gowal et al., ICCV 2019 (ibp); Weng et al., ICML 2018 and Zhang et al., NeurIPS 2018 (crown); Xu et
    al., ICLR 2021 (alpha-crown). Lecture: E6.

    >>> import torch
    >>> from danskin.minmax import Linf
    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> found = certify(net, (torch.tensor([[0.8, 0.2]]), torch.tensor([0])), Linf(0.2))
    >>> round(float(found.margin), 4), found.certified.tolist()
    (0.2, [True])
    """
    start = time.perf_counter()
    if method not in get_args(CertifyMethod):
        raise InputError(f"method: expected one of {', '.join(get_args(CertifyMethod))}, got {method!r}; pick one")
    if batch_size < 1:
        raise InputError(f"batch_size: expected 1 or more, got {batch_size}; correct it")
    if not budget > 0:
        raise InputError(f"budget: expected a positive number of multiplications, got {budget!r}; correct it")
    check_model(model)
    checks.check_box(box)
    asked: Ball = read_ball(ball)
    if order_of(asked) is None:
        raise InputError(
            f"certify: expected Linf, L2 or L1, whose dual norms bounds are made of, got {asked}; certify a ball that "
            "holds the set"
        )
    work = _Certifier(raw_module(model), asked, box, method, budget, worth)
    told = _Told(progress, _count(data))
    for x, y in _batches(data, batch_size, box):
        work.add(x, y, told)
    return work.result(time.perf_counter() - start)


def _batches(data: Data, batch_size: int, box: checks.DataBox) -> Iterable[tuple[Tensor, Tensor]]:
    """Slices of (x, y), or of each batch of an iterable; uint8 images in the units of the box."""
    for x, y in batches(data):
        for at in range(0, max(len(x), 1), batch_size):
            yield in_box(x[at : at + batch_size], box), y[at : at + batch_size]


def _count(data: Any) -> int | None:
    """How many examples there are, if that is known before all are seen."""
    try:
        if isinstance(data, tuple | list):
            one = len(data) == 2 and not isinstance(data[0], tuple | list)
            return sum(len(part[0]) for part in ([data] if one else data))
        return len(data.dataset)
    except (AttributeError, TypeError, IndexError):  # an iterator; what is wrong with the data is said elsewhere
        return None


class _Told:
    """Says how far it is."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self.progress, self.total = progress, total

    def __call__(self, done: int, proved: int) -> None:
        event = {"work": "certificates", "stage": f"{proved} proved", "proved": proved}
        self.progress(event | {"done": done, "total": self.total})


class _Certifier:
    """Certifies batch by batch; the model is read once."""

    def __init__(
        self,
        model: Any,
        ball: Ball,
        box: checks.DataBox,
        method: CertifyMethod,
        budget: float,
        worth: Tensor | None,
    ) -> None:
        self.model, self.ball, self.box, self.method = model, ball, box, method
        self.budget = budget if method == "auto" else math.inf
        self.worth = worth
        self.seen = 0
        self.ladders: dict[tuple[int, ...], Ladder] = {}
        self.margins: list[Tensor] = [torch.zeros(0, dtype=torch.float64)]
        self.right: list[Tensor] = [torch.zeros(0, dtype=torch.bool)]

    def add(self, x: Tensor, y: Tensor, told: _Told) -> None:
        """Certify more examples."""
        if isinstance(self.model, torch.nn.Module) and any(True for _ in self.model.parameters()):
            x = x.to(home_of(self.model))
        checks.check_inputs(x, self.box)
        y, ball, worth = y.to(x.device), self._ball_of(len(x)), self._worth_of(len(x)).to(x.device)
        checks.check_radius(ball, x, self.box)
        self.seen += len(x)
        if not len(x):
            return
        if x.device.type == "mps":
            raise InputError("data: expected inputs on a device with float64, got mps; move model and data to the CPU")
        with as_found(self.model, "eval", x.device), torch.no_grad():
            ladder = self._ladder(x)
            for rows in torch.arange(len(x), device=x.device).split(ladder.together(len(x))):
                self._some(ladder, x[rows], y[rows], ball.rows(rows), worth[rows])
                right, margins = torch.cat(self.right), torch.cat(self.margins)
                told(len(right), int((right & (margins > 0)).sum()))

    def _ball_of(self, n: int) -> Ball:
        """The ball for the next n examples: its part of a radius per example."""
        value = radius_of(self.ball)
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) == 1:
            return self.ball
        part = value[self.seen : self.seen + n]
        if len(part) < n:
            raise InputError(
                f"radius: expected one number, or one for each example of the data, got {len(value)} for more than "
                f"that; use a tensor with as many numbers as examples"
            )
        return grown(self.ball, part)

    def _worth_of(self, n: int) -> Tensor:
        """(n,) bool: which of the next n examples dear methods may be tried on."""
        if self.worth is None:
            return torch.ones(n, dtype=torch.bool)
        part = self.worth[self.seen : self.seen + n]
        if part.dtype != torch.bool or part.shape != (n,):
            raise InputError(
                f"worth: expected a bool for each example of the data, got {self.worth.dtype} of shape "
                f"{tuple(self.worth.shape)}; pass for example verdict.outcomes"
            )
        return part

    def _ladder(self, x: Tensor) -> Ladder:
        shape = tuple(x.shape[1:])
        if shape not in self.ladders:
            self.ladders[shape] = Ladder(spelled_out(read(self.model, x)), self.ball, self.method, self.budget)
        return self.ladders[shape]

    def _some(self, ladder: Ladder, x: Tensor, y: Tensor, ball: Ball, worth: Tensor) -> None:
        logits = checks.check_logits(self.model(x.detach()), len(x))
        if logits.ndim > 2:
            raise ModelError(f"model: expected logits (batch, classes), got shape {tuple(logits.shape)}; flatten")
        check_labels(y, logits, get_loss("zero_one"))
        if not bool((logits > -torch.inf).all()):
            raise ModelError(
                "model: expected finite logits to certify, got -inf (classes that are not there); return the columns "
                "of the other classes"
            )
        exact = ladder.network(x.detach().double())
        own = logits.reshape(exact.shape).double()
        size, apart = 1 + exact.flatten(1).abs().amax(1), (own - exact).flatten(1).abs().amax(1)
        if not bool((apart <= _MISREAD * size).all()):
            raise ModelError(
                f"model: expected the logits of the operations that were read, got others (they differ by up to "
                f"{float(apart.max()):.3g}); the model does something that tracing does not see: keep it free of "
                "randomness and of Python that depends on values, and its weights finite"
            )
        slack = torch.maximum(_ROUNDING * torch.finfo(x.dtype).eps * size, 4 * apart)
        right = predict(logits) == y
        margin = ladder.margins(Region.of(x, ball, self.box), y, exact, right, worth, slack)
        self.margins.append((margin - slack).cpu())
        self.right.append(right.cpu())

    def result(self, seconds: float) -> Certified:
        """All that was added."""
        value = radius_of(self.ball)
        if isinstance(value, Tensor) and value.ndim and len(value) not in (1, self.seen):
            raise InputError(
                f"radius: expected one number, or one for each of {self.seen} examples, got {len(value)}; use a "
                f"tensor of shape ({self.seen},)"
            )
        if self.worth is not None and len(self.worth) != self.seen:
            raise InputError(
                f"worth: expected a bool for each of {self.seen} examples, got {len(self.worth)}; pass for example "
                "verdict.outcomes"
            )
        margin, right = torch.cat(self.margins), torch.cat(self.right)
        steps: dict[str, Tried] = {}
        for ladder in self.ladders.values():
            for name, step in ladder.steps.items():
                steps[name] = steps.get(name, Tried(name)) + step
        names = dearest(list(steps.values())) or self.method
        certified = right & (margin > 0)
        return Certified(margin, right, certified, names, seconds, tuple(steps.values()), self.budget)
