"""Who is asked for logits, and when: the plain model or a quicker form of it, in which precision, how often."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from danskin.attacks import checks
from danskin.attacks.goal import Goal
from danskin.errors import DanskinWarning, ModelError
from danskin.losses import largest
from danskin.minmax import Set
from danskin.minmax.gradients import finite, gradient_at
from danskin.minmax.precision import at_least_float32

#: Precision of the passes that look for a perturbation. "model": as the model is. "bfloat16": autocast, each
#: success then confirmed without it.
Precision = Literal["model", "bfloat16"]

#: A decision is in doubt within this many eps of the search's arithmetic, relative to the largest logit.
_DOUBT = 2

#: (names of examples, inputs at which they are adversarial) -> None
Witness = Callable[[Tensor, Tensor], None]


@dataclass
class Tally:
    """What is known of all passes of a search together.

    Args:
        forwards: examples passed forward beside the calls that the maximiser counts.
        backwards: examples passed backward beside them.
        bad_gradient: (): whether a partial derivative was NaN or infinite, and counted as 0.
        writes: the model writes into its input, and gets a copy.
        tried: which forms of the model (plain or not) have been watched for that.
    """

    forwards: int = 0
    backwards: int = 0
    bad_gradient: bool | Tensor = False
    writes: bool = False
    tried: set[bool] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Heard:
    """Somebody who wants to hear of every success as soon as it is seen.

    Args:
        names: (batch,) numbers by which the rows are known there.
        tell: called with names and inputs.
    """

    names: Tensor
    tell: Witness

    def rows(self, index: Tensor) -> Heard:
        """The same for some rows."""
        return replace(self, names=self.names[index])


@dataclass(eq=False)
class Asking:
    """Asks a model about inputs.

    Args:
        model: inputs to logits; what searches.
        dtype: of the inputs as the user gave them.
        plain: the model whose word counts, where `model` is a quicker form of it (compiled, another memory format).
        precision: of the search, see `Precision`.
        draws: passes to average over, for models that are random; adversarial is then what errs in more than half.
        confirm: ask the plain model about every success the search sees, as a search must that stops there, and
            wherever a cheaper form of the model cannot tell (`look`).
        reach: for a maximiser that goes far beyond the ball, and asks itself (`confirmed`) about the points it would
            keep: elsewhere than in this ball around the clean inputs a cheaper form of the model is good enough.
        heard: who hears of successes.
        tally: shared by all `rows`.
    """

    model: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    plain: Callable[[Tensor], Tensor] | None = None
    precision: Precision = "model"
    draws: int = 1
    confirm: bool = False
    reach: Set | None = None
    heard: Heard | None = None
    tally: Tally = field(default_factory=Tally)
    checked: bool = field(default=False, repr=False)

    def cheap(self, device: str) -> bool:
        """Whether what the search sees is not the plain model in full precision."""
        return self.precision != "model" or self.plain is not None or torch.is_autocast_enabled(device)

    def logits(self, point: Tensor, goal: Goal, *, plain: bool = False) -> Tensor:
        """The logits in float32 or float64, checked on the first call.

        Args:
            point: inputs.
            goal: of these rows; its labels must fit the logits.
            plain: ask the plain model without autocast instead of the one that searches.
        """
        return at_least_float32(self._raw(point, goal, plain))

    def look(self, point: Tensor, clean: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """(logits, where they are adversarial).

        With `confirm`, rows at which a cheaper form of the model cannot tell the two sides of the decision apart have
        the plain model's logits; and with `reach` its gradients, for a search that works out where the boundary is.
        """
        raw = self._raw(point, goal)
        logits = at_least_float32(raw)
        hit = goal.adversarial(logits)
        if not (self.confirm and self.cheap(point.device.type)):
            return logits, self._tell(point, hit)
        seen = logits.detach()
        doubt = self._in_doubt(seen, raw.dtype, goal)
        doubt = doubt | hit if self.reach is None else doubt & self._within(point, clean)
        if not bool(doubt.any()):
            return logits, hit
        at, steep = doubt.nonzero().squeeze(1), point.requires_grad and self.reach is not None
        with torch.set_grad_enabled(steep):
            exact = self.rows(at).logits(point[at], goal.rows(at), plain=True).to(logits.dtype)
        if steep or not point.requires_grad:
            logits = logits.index_copy(0, at, exact)
        else:
            logits = logits + torch.zeros_like(seen).index_copy(0, at, (exact - seen[at]).nan_to_num())
        self.tally.forwards += len(at)
        self.tally.backwards += len(at) * steep
        hit = goal.adversarial(logits)
        self._tell(point, hit & doubt)
        return logits, hit

    def confirmed(self, point: Tensor, clean: Tensor, goal: Goal, hit: Tensor) -> Tensor:
        """Those of the rows `hit` at which, with `confirm`, the plain model errs as well; who listens hears of them.

        Beyond a `reach` the cheaper form is believed, and nobody hears of it: no point there counts.
        """
        if not (self.confirm and self.cheap(point.device.type) and bool(hit.any())):
            return self._tell(point, hit)
        near = hit & self._within(point, clean)
        at = near.nonzero().squeeze(1)
        if not len(at):
            return hit
        with torch.no_grad():
            part = goal.rows(at)
            exact = self.rows(at).logits(point.detach()[at], part, plain=True)
            sure = near.index_put((at,), part.adversarial(exact))
        self.tally.forwards += len(at)
        return self._tell(point, sure) | (hit & ~near)

    def averaged(self, point: Tensor, goal: Goal) -> tuple[Tensor, Tensor, Tensor]:
        """The mean value over draws, whether more than half of them are adversarial, and the mean gradient if asked."""
        slope, hits = torch.zeros_like(point, requires_grad=False), torch.zeros_like(goal.y)
        value = slope.new_zeros(len(point))
        for _ in range(self.draws):
            logits = self.logits(point, goal)
            each = goal.value(logits)
            hits += goal.adversarial(logits)
            value = value + each.detach() / self.draws
            if point.requires_grad:
                slope += self.gradient(each, point) / self.draws
        more = (self.draws - 1) * len(point)
        self.tally.forwards += more
        self.tally.backwards += more * point.requires_grad
        return value, 2 * hits > self.draws, slope

    def judge(self, point: Tensor, goal: Goal, draws: int = 1) -> tuple[Tensor, Tensor]:
        """(value, share of draws that are adversarial) at these inputs, by the plain model in full precision."""
        values = at_least_float32(point[:0]).new_zeros(len(point))
        hits = torch.zeros_like(values)
        with torch.no_grad():
            for _ in range(draws):
                logits = self.logits(point, goal, plain=True)
                values, hits = values + goal.value(logits) / draws, hits + goal.adversarial(logits).to(hits) / draws
        return values, hits

    def gradient(self, value: Tensor, point: Tensor, *, retain: bool = False) -> Tensor:
        """The gradient of the summed values at the inputs; what is NaN or infinite counts as 0, and is noted.

        `retain` keeps the graph for more.
        """
        slope, bad = finite(gradient_at(value, point, retain=retain), value)
        if bad is not False:
            self.tally.bad_gradient = bad | self.tally.bad_gradient
        return slope

    def rows(self, index: Tensor) -> Asking:
        """The same about some examples."""
        reach = None if self.reach is None else self.reach.rows(index)
        return replace(self, reach=reach, heard=None if self.heard is None else self.heard.rows(index))

    def _raw(self, point: Tensor, goal: Goal, plain: bool = False) -> Tensor:
        """The logits as the model gives them."""
        model = self.plain or self.model if plain else self.model
        low = self.precision == "bfloat16" and not plain
        if low or plain:
            with torch.autocast(point.device.type, torch.bfloat16, enabled=low):
                raw = self._passed(model, point, plain)
        else:
            raw = self._passed(model, point, plain)
        raw = checks.check_logits(raw, point.shape[0])
        if not self.checked:
            self.checked = True
            goal.check(at_least_float32(raw))
            checks.warn_if_probabilities(at_least_float32(raw))
        return raw

    def _passed(self, model: Callable[[Tensor], Tensor], point: Tensor, plain: bool) -> Any:
        """What the model returns for these inputs, which stay what they are.

        A model may write into its input, through torch (the version of the tensor then moves on) or past it, through
        numpy (seen by comparing, on the first pass). From then on it gets copies.
        """
        inputs = point.to(self.dtype)
        if inputs is not point:  # a copy already
            return model(inputs)
        if self.tally.writes:
            return model(point.clone())
        before = None if plain in self.tally.tried else point.detach().clone()
        version = point._version
        try:
            out = model(point)
        except RuntimeError as error:
            if before is None or "in-place" not in str(error):
                raise
            out = None  # torch refused to write into a leaf that wants a gradient
        self.tally.tried.add(plain)
        if out is not None and point._version == version and (before is None or _same(before, point)):
            return out
        if before is None:
            raise ModelError(
                "model: expected a forward that leaves its input as it is, got one that wrote into it after several "
                "passes that did not; work on a copy there (x = x.clone())"
            )
        warnings.warn(
            "model: expected a forward that leaves its input as it is, got one that writes into it; it gets "
            "copies from here on. Work on a copy there (x = x.clone(), or x * 2 instead of x *= 2)",
            DanskinWarning,
            stacklevel=2,
        )
        self.tally.writes = True
        with torch.no_grad():
            point.copy_(before)
        return model(point.clone())

    def _in_doubt(self, logits: Tensor, dtype: torch.dtype, goal: Goal) -> Tensor:
        """(batch,) bool: the lead of either side is within the rounding of the search's arithmetic."""
        fine = torch.finfo(dtype).eps
        if self.precision == "bfloat16":
            fine = max(fine, torch.finfo(torch.bfloat16).eps)
        return goal.lead(logits).abs() <= _DOUBT * fine * largest(logits)

    def _within(self, point: Tensor, clean: Tensor) -> Tensor:
        """(batch,) bool: the rows whose points are within `reach`; all, where there is none."""
        if self.reach is None:
            return torch.ones(len(point), dtype=torch.bool, device=point.device)
        return self.reach.violation(point.detach() - clean) <= 0

    def _tell(self, point: Tensor, hit: Tensor) -> Tensor:
        """The rows `hit`, of which who listens hears."""
        if self.heard is not None and bool(hit.any()):
            self.heard.tell(self.heard.names[hit], point.detach()[hit])
        return hit


def _same(before: Tensor, after: Tensor) -> bool:
    return torch.equal(before, after) or torch.equal(before.nan_to_num(), after.detach().nan_to_num())
