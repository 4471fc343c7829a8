"""The adversary's payoff as a function of the input shift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from danskin.attacks import checks
from danskin.attacks.grid import Grid
from danskin.losses import Loss, check_labels, margin, predict
from danskin.minmax import Set
from danskin.minmax.maximize import gradient_at
from danskin.minmax.precision import at_least_float32

#: Precision of the passes that look for a perturbation. "model": as the model is. "bfloat16": autocast, each
#: success then confirmed without it.
Precision = Literal["model", "bfloat16"]

#: A decision is in doubt within this many eps of the search's arithmetic, relative to the largest logit.
_DOUBT = 2

#: (names of examples, inputs at which they are adversarial) -> None
Witness = Callable[[Tensor, Tensor], None]


@dataclass(eq=False)
class ShiftPayoff:
    """delta -> (loss of the model at x + delta per example, whether it is adversarial there).

    Arithmetic on x and delta is float32 or float64; the model sees x + delta in the dtype of the inputs. With
    `among_inputs`, what is called delta here is x + delta itself, from a search that keeps to ball and box there.

    Args:
        model: inputs to logits.
        x: (batch, ...) clean inputs, float32 or float64.
        y: (batch,) labels.
        targets: (batch,) wanted labels, or None for untargeted.
        loss: what the adversary raises (or lowers towards the targets).
        box: where x + delta stays, or None.
        dtype: dtype of the inputs as the user gave them.
        precision: see `Precision`.
        toward: (batch,) classes the loss is raised towards while any wrong prediction counts; for targeted losses
            of untargeted attacks.
        plain: the model whose word counts, where `model` is a quicker form of it (compiled, another memory format).
        confirm: ask the plain model about every success the search sees, as a search must that stops there, and
            wherever a cheaper form of the model cannot tell (`look`).
        reach: for a maximiser that goes far beyond the ball, and asks itself (`confirmed`) about the points it would
            keep: elsewhere than in this ball a cheaper form of the model is good enough.
        names: (batch,) numbers that `witness` knows the rows by.
        witness: called with the names and inputs of every success as soon as it is seen.
        grid: where given, inputs are moved to its nearest point in the ball before the model sees them.
        draws: passes to average over, for models that are random; adversarial is then what errs in more than half.
        reference: (batch, classes) log-probabilities at the clean inputs, for a loss relative to them.
        among_inputs: see above.
        extra: examples passed forward beside the calls that the maximiser counts; shared by all `rows`.
    """

    model: Callable[[Tensor], Tensor]
    x: Tensor
    y: Tensor
    targets: Tensor | None
    loss: Loss
    box: checks.DataBox
    dtype: torch.dtype
    precision: Precision = "model"
    toward: Tensor | None = None
    plain: Callable[[Tensor], Tensor] | None = None
    confirm: bool = False
    reach: Set | None = None
    names: Tensor | None = None
    witness: Witness | None = None
    grid: Grid | None = None
    draws: int = 1
    reference: Tensor | None = None
    among_inputs: bool = False
    extra: Tally = field(default_factory=lambda: Tally())
    checked: bool = field(default=False, repr=False)

    def shifted(self, delta: Tensor) -> Tensor:
        """X + delta, kept in the box against rounding; on the grid if there is one."""
        if self.among_inputs:
            return delta
        return shifted(self.x, delta, self.box, self.grid)

    def inputs(self, delta: Tensor) -> Tensor:
        """X + delta in the dtype of the inputs, detached; rounded towards x where it is narrower."""
        return cast_towards(self.x, self.shifted(delta), self.dtype)

    def logits(self, point: Tensor, *, plain: bool = False) -> Tensor:
        """The model's logits in float32 or float64, checked on the first call.

        Args:
            point: inputs.
            plain: ask the plain model without autocast instead of the one that searches.
        """
        return at_least_float32(self._raw(point, plain))

    def _raw(self, point: Tensor, plain: bool = False) -> Tensor:
        """The model's logits as it gives them."""
        model = self.plain or self.model if plain else self.model
        low = self.precision == "bfloat16" and not plain
        if low or plain:
            with torch.autocast(point.device.type, torch.bfloat16, enabled=low):
                raw = model(point.to(self.dtype))
        else:
            raw = model(point.to(self.dtype))
        raw = checks.check_logits(raw, point.shape[0])
        if not self.checked:
            self.checked = True
            logits = at_least_float32(raw)
            check_labels(self.y, logits, self.loss)
            if self.targets is not None:
                check_labels(self.targets, logits, self.loss, "targets")
            checks.warn_if_probabilities(logits)
        return raw

    def look(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """(logits, where they are adversarial).

        With `confirm`, rows at which a cheaper form of the model cannot tell the two sides of the decision apart have
        the plain model's logits; and with `reach` its gradients, for a search that works out where the boundary is.
        """
        raw = self._raw(point)
        logits = at_least_float32(raw)
        hit = self.adversarial(logits)
        if not (self.confirm and self.cheap):
            return logits, self._heard(point, hit)
        seen, fine = logits.detach(), torch.finfo(raw.dtype).eps
        if self.precision == "bfloat16":
            fine = max(fine, torch.finfo(torch.bfloat16).eps)
        doubt = self.lead(seen).abs() <= _DOUBT * fine * seen.abs().reshape(len(seen), -1).amax(1)
        doubt = doubt | hit if self.reach is None else doubt & self._within(point)
        if not bool(doubt.any()):
            return logits, hit
        at, steep = doubt.nonzero().squeeze(1), point.requires_grad and self.reach is not None
        with torch.set_grad_enabled(steep):
            exact = self.rows(at).logits(point[at], plain=True).to(logits.dtype)
        if steep or not point.requires_grad:
            logits = logits.index_copy(0, at, exact)
        else:
            logits = logits + torch.zeros_like(seen).index_copy(0, at, (exact - seen[at]).nan_to_num())
        self.extra.forwards += len(at)
        self.extra.backwards += len(at) * steep
        hit = self.adversarial(logits)
        self._heard(point, hit & doubt)
        return logits, hit

    def lead(self, logits: Tensor) -> Tensor:
        """(batch,) by how much the outcome the adversary wants is ahead: > 0 where it is there.

        max_{j != y} z_j - z_y, with a target t z_t - max_{j != t} z_j; one output h stands for two classes, with
        lead -y h or t h.
        """
        if logits.ndim == 1 or logits.shape[1] == 1:
            score = logits.reshape(-1)
            return -score * self.y if self.targets is None else score * self.targets
        return margin(logits, self.y) if self.targets is None else -margin(logits, self.targets)

    def value(self, logits: Tensor) -> Tensor:
        """What the adversary raises, per example."""
        if self.loss.relative:
            return self.loss.function(logits, self.reference)
        if self.loss.targeted:
            aim = self.targets if self.toward is None else self.toward
            if aim is None:  # an attack that aims by itself, judged: the best of all aims
                aim = logits.detach().scatter(1, self.y[:, None], -torch.inf).argmax(1)
            return self.loss.function(logits, self.y, aim)
        if self.targets is not None:
            return -self.loss.function(logits, self.targets)
        return self.loss.function(logits, self.y)

    def from_clean(self) -> ShiftPayoff:
        """The same with the log-probabilities at the clean inputs as its reference: one forward pass, no gradient."""
        with torch.no_grad():
            reference = self.logits(self.x).log_softmax(1)
        self.extra.forwards += len(self.x)
        return replace(self, reference=reference)

    def adversarial(self, logits: Tensor) -> Tensor:
        """(batch,) bool: the prediction is wrong, or is the target."""
        guess = predict(logits.detach())
        return guess != self.y if self.targets is None else guess == self.targets

    @property
    def cheap(self) -> bool:
        """Whether what the search sees is not the plain model in full precision."""
        return self.precision != "model" or self.plain is not None or torch.is_autocast_enabled(self.x.device.type)

    def _heard(self, point: Tensor, hit: Tensor) -> Tensor:
        """The rows `hit`, of which the witness hears."""
        if self.witness is not None and self.names is not None and bool(hit.any()):
            self.witness(self.names[hit], point.detach()[hit])
        return hit

    def confirmed(self, point: Tensor, hit: Tensor) -> Tensor:
        """Those of the rows `hit` at which, with `confirm`, the plain model errs as well; the witness hears of them.

        Beyond a `reach` the cheaper form is believed, and the witness hears nothing: no point there counts.
        """
        if not (self.confirm and self.cheap and bool(hit.any())):
            return self._heard(point, hit)
        near = hit & self._within(point)
        at = near.nonzero().squeeze(1)
        if not len(at):
            return hit
        with torch.no_grad():
            part = self.rows(at)
            sure = near.index_put((at,), part.adversarial(part.logits(point.detach()[at], plain=True)))
        self.extra.forwards += len(at)
        return self._heard(point, sure) | (hit & ~near)

    def _within(self, point: Tensor) -> Tensor:
        """(batch,) bool: the rows whose points are within `reach`; all, where there is none."""
        if self.reach is None:
            return torch.ones(len(point), dtype=torch.bool, device=point.device)
        return self.reach.violation(point.detach() - self.x) <= 0

    def judge(self, point: Tensor, draws: int = 1) -> tuple[Tensor, Tensor]:
        """(value, share of draws that are adversarial) at these inputs, by the plain model in full precision."""
        values, hits = self.x.new_zeros(len(self.x)), self.x.new_zeros(len(self.x))
        with torch.no_grad():
            for _ in range(draws):
                logits = self.logits(point, plain=True)
                values, hits = values + self.value(logits) / draws, hits + self.adversarial(logits).to(hits) / draws
        return values, hits

    def __call__(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """(value, adversarial) at x + delta."""
        point = self.shifted(delta)
        if self.draws > 1:
            return self._averaged(point)[:2]
        logits, hit = self.look(point)
        return self.value(logits), hit

    def with_gradient(self, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(value, adversarial, gradient) at x + delta, differentiated at the shifted point itself.

        There the clamp to the box is not part of the graph: it changes rounding only.
        """
        point = self.shifted(delta.detach()).requires_grad_()
        if self.draws > 1:
            return self._averaged(point)
        logits, hit = self.look(point)
        value = self.value(logits)
        return value, hit, gradient_at(value, point)

    def _averaged(self, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean value over draws, whether more than half of them are adversarial, and the mean gradient if asked."""
        value, hits, slope = self.x.new_zeros(len(self.x)), torch.zeros_like(self.y), torch.zeros_like(self.x)
        for _ in range(self.draws):
            logits = self.logits(point)
            each = self.value(logits)
            hits += self.adversarial(logits)
            value = value + each.detach() / self.draws
            if point.requires_grad:
                slope += gradient_at(each, point) / self.draws
        more = (self.draws - 1) * len(point)
        self.extra.forwards += more
        self.extra.backwards += more * point.requires_grad
        return value, 2 * hits > self.draws, slope

    def rows(self, index: Tensor) -> ShiftPayoff:
        """The payoff of some examples."""

        def cut(each: Tensor | None) -> Tensor | None:
            return None if each is None else each[index]

        grid = None if self.grid is None else self.grid.rows(index)
        whose = {name: cut(getattr(self, name)) for name in ("targets", "toward", "names", "reference")}
        reach = None if self.reach is None else self.reach.rows(index)
        return replace(self, x=self.x[index], y=self.y[index], grid=grid, reach=reach, **whose)  # type: ignore[arg-type]

    def fanned(self, toward: Tensor) -> FannedPayoff:
        """The payoff over examples times classes: each example once for every class in `toward` (batch, m)."""
        return FannedPayoff(self, toward)


def shifted(x: Tensor, delta: Tensor, box: checks.DataBox, grid: Grid | None = None) -> Tensor:
    """X + delta, kept in the box against rounding; on the grid if there is one."""
    if grid is not None:
        return grid.point(x, delta)
    point = x + delta
    if box is None:
        return point
    return point.clamp(*box) if point.requires_grad else point.clamp_(*box)


def cast_towards(clean: Tensor, point: Tensor, dtype: torch.dtype) -> Tensor:
    """`point` in a narrower dtype, rounded towards `clean` where rounding would move it further away."""
    if dtype == point.dtype:
        return point.detach()
    cast = point.detach().to(dtype)
    beyond = (cast.to(clean.dtype) - clean).abs() > (point - clean).abs()
    return torch.where(beyond, torch.nextafter(cast, clean.to(dtype)), cast)


@dataclass
class Tally:
    """Passes counted outside the maximiser."""

    forwards: int = 0
    backwards: int = 0


@dataclass(eq=False)
class FannedPayoff:
    """Examples times classes, an example's classes in a row; only to be cut (`rows`).

    Args:
        base: over examples.
        toward: (examples, m) classes.
    """

    base: ShiftPayoff
    toward: Tensor

    def __call__(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """(value, adversarial) of all rows at once."""
        return self.rows(torch.arange(self.toward.numel(), device=self.toward.device))(delta)

    def rows(self, index: Tensor) -> ShiftPayoff:
        """Some of the rows."""
        return replace(self.base.rows(index // self.toward.shape[1]), toward=self.toward.reshape(-1)[index])
