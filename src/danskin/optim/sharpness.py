"""min over w, max over v in a ball of f(w + v): the step that all sharpness-aware optimisers share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.minmax import lists
from danskin.minmax.weight_balls import AllWeights, WeightBall
from danskin.optim.info import StepInfo
from danskin.optim.passes import Dice, asked, buffers_kept, buffers_noted
from danskin.optim.wrapper import Closure, Wrapper

Buffers = Literal["first", "both"]
Perturbation = Literal["global", "local"]


class SharpnessAware(Wrapper):
    """A base optimiser that steps along the gradient at the worst weights near by; see `SAM`.

    Subclasses say with which ball (`_ball`), along what (`_direction`), when a second gradient is due (`_due`), and
    what of both gradients is stepped along (`_combine`, or `_reuse` where there is no second one).

    Args:
        base: one optimiser, or several.
        buffers: "first" keeps what the second pass, at shifted weights, does to BatchNorm's statistics and to any
            other buffer out of the model; "both" lets it stand.
        model: needed for perturbation="local" and for compiled models, else found by itself.
        perturbation: "global" climbs along the gradient of the whole batch; "local" has a shift for each process of
            DistributedDataParallel, and for each of several closures: m-sharpness.
        same_rng: dropout throws the same masks in both passes.
        clip: largest l2 norm of the gradient that is stepped along; None for no clipping.
        start: plain steps of the base before this one: sharpness-aware training at the end only.
        scaler: a `torch.amp.GradScaler`; closures then call ``scaler.scale(loss).backward()`` and return the loss as it
            is. Gradients are unscaled and ``scaler.update()`` is called here.

    Raises:
        InputError: options out of range, or that do not go together.
    """

    #: Whether each of several micro-batches may have a shift of its own.
    splits = False

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        *,
        buffers: Buffers = "first",
        model: nn.Module | None = None,
        perturbation: Perturbation = "global",
        same_rng: bool = False,
        clip: float | None = None,
        start: int = 0,
        scaler: Any = None,
    ) -> None:
        super().__init__(base)
        name = type(self).__name__
        if buffers not in ("first", "both"):
            raise InputError(f"{name}.buffers: expected 'first' or 'both', got {buffers!r}")
        if perturbation not in ("global", "local"):
            raise InputError(f"{name}.perturbation: expected 'global' or 'local', got {perturbation!r}")
        if clip is not None and not clip > 0:
            raise InputError(f"{name}.clip: expected a norm above 0, got {clip!r}; leave it out for no clipping")
        if not (isinstance(start, int) and start >= 0):
            raise InputError(f"{name}.start: expected a number of steps >= 0, got {start!r}")
        self.buffers, self.model, self.perturbation = buffers, model, perturbation
        self.same_rng, self.clip, self.start, self.scaler = same_rng, clip, start, scaler
        self.last: StepInfo | None = None

    # --- what a method is ---------------------------------------------------------------------------------

    def _ball(self) -> WeightBall:
        """The set of shifts, now."""
        raise NotImplementedError

    def _due(self, norm: float) -> bool:
        """Whether this step takes a second gradient; `norm` is that of the first, of the whole batch."""
        return True

    #: Whether the first gradient is needed after the second.
    _keeps_first = False

    def _direction(self, weights: list[Tensor], g: list[Tensor]) -> list[Tensor]:
        """What the adversary climbs along: the first gradient."""
        return g

    def _combine(self, weights: list[Tensor], first: list[Tensor] | None, second: list[Tensor]) -> None:
        """Change the second gradient in place to what is stepped along."""

    def _reuse(self, weights: list[Tensor], g: list[Tensor]) -> None:
        """Change the only gradient of a step without a second one in place."""

    def _remember(self, weights: list[Tensor]) -> None:
        """After a step of the base: put what is kept per parameter into its state."""

    # --- the step -----------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether the adversary moves in the next step."""
        return self.steps >= self.start

    @torch.no_grad()
    def step(self, closure: Closure | Sequence[Closure] | None = None) -> Any:
        """One step.

        Args:
            closure: computes the loss, calls backward() and returns the loss; it is called here, once or twice. Its own
                ``zero_grad()`` does no harm and is not needed. A list of closures, one per micro-batch of equal size,
                accumulates gradients: their mean is stepped along.

        Returns:
            The first pass's loss. What the step came to is in `last`.

        Raises:
            InputError: no closure although there are gradients, a closure that returns no loss, or gradients that
                somebody unscaled already.
        """
        if closure is None:
            return self._without_closure()
        started = time.perf_counter()
        if isinstance(closure, Sequence):
            loss, norm, taken, ok = self._accumulated(list(closure))
        else:
            loss, norm, taken, ok = self._gradient(closure)
        if ok:
            weights = self._moved()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(weights, self.clip)
            self._step_bases()
            self._remember(weights)
        if self.scaler is not None:
            self.scaler.update()
        self._count(ok)
        self.last = StepInfo(loss, taken, taken, time.perf_counter() - started, norm, not ok)
        return loss

    def _gradient(self, closure: Closure) -> tuple[Tensor, float, float, bool]:
        """(loss, norm, gradients taken, all finite); what is to be stepped along is in .grad afterwards."""
        dice = Dice(list(self._parameters())) if self.same_rng else None
        local = self.perturbation == "local" and self.active
        with buffers_noted(self.model) as put_back:
            loss, norm, ok, weights = self._pass(closure, self._unsynchronised() if local else nullcontext())
        if not ok:
            put_back()  # statistics of what is not finite would stay so
        if not ok or not self.active or not self._due(self._mean(norm) if local else norm):
            if local and ok:  # this gradient is stepped along: it must be the one of all processes
                self._average()
            self._unscale()
            if ok and self.active:
                self._reuse(weights, _slopes(weights))
            return loss, norm, 1, ok
        g = _slopes(weights)
        if self.scaler is not None:
            torch._foreach_mul_(g, 1 / self.scaler.get_scale())
        ball, along = self._ball(), self._direction(weights, g)
        known = along is g and isinstance(ball, AllWeights)
        shift = ball.lmo(along, weights, norm) if known else ball.lmo(along, weights)  # type: ignore[call-arg]
        first = g if self._keeps_first else None
        del g, along
        self.zero_grad()
        saved = [w.clone() for w in lists.own(weights)]
        try:
            torch._foreach_add_(lists.own(weights), lists.own(shift))
            del shift
            if dice is not None:
                dice.again()
            kept = buffers_kept(self.model) if self.buffers == "first" else nullcontext()
            _, _, ok, moved = self._pass(closure, kept)
        finally:
            torch._foreach_copy_(lists.own(weights), saved)  # by copy: adding and subtracting would round
        self._unscale()
        if ok and first is None:
            self._combine(moved, None, _slopes(moved))
        elif ok and first is not None:
            both = [(w, f) for w, f in zip(weights, first, strict=True) if w.grad is not None]
            self._combine([w for w, _ in both], [f for _, f in both], _slopes([w for w, _ in both]))
        return loss, norm, 2, ok

    def _pass(self, closure: Closure, around: AbstractContextManager[Any]) -> tuple[Tensor, float, bool, list[Tensor]]:
        """(loss, norm of the gradient without the scaler's factor, finite, what has one), gradients made anew."""
        self.zero_grad()
        with around:
            loss = asked(type(self).__name__, closure)
        weights = self._moved()
        g = _slopes(weights)
        if any(t.is_sparse for t in g):
            raise InputError(f"{type(self).__name__}: expected dense gradients, got sparse ones; use sparse=False")
        self._check_scaler()
        norm = lists.norm(g) / (self.scaler.get_scale() if self.scaler is not None else 1)
        sharded = self._group is None and dist.is_available() and dist.is_initialized()  # nobody to agree with
        ok = math.isfinite(norm) and (sharded or math.isfinite(float(loss)))
        return loss, norm, self._agreed(ok), weights

    def _without_closure(self) -> None:
        if lists.norm(_slopes(self._moved())) > 0:
            raise InputError(
                f"{type(self).__name__}.step: expected a closure that computes the loss and calls backward(), since "
                "the gradient is needed at other weights, too, got none; write step(closure)"
            )
        self._step_bases()  # nothing to climb: what torch.distributed.checkpoint does to make empty state
        self._remember(self._moved())

    # --- several micro-batches ------------------------------------------------------------------------------

    def _accumulated(self, closures: list[Closure]) -> tuple[Tensor, float, float, bool]:
        if not closures:
            raise InputError(f"{type(self).__name__}.step: expected at least one closure, got an empty list")
        if self.perturbation == "global":
            return self._gradient(lambda: self._summed(closures, lambda c: (asked(type(self).__name__, c), True))[0])
        if not self.splits:
            raise InputError(
                f"{type(self).__name__}.step: expected perturbation='global' for several closures, got 'local'; only "
                "SAM and ASAM shift the weights for each micro-batch"
            )
        norms: list[float] = []
        taken = 0.0

        def each(closure: Closure) -> tuple[Tensor, bool]:
            nonlocal taken
            loss, norm, taken, ok = self._gradient(closure)
            norms.append(norm)
            return loss, ok

        loss, ok = self._summed(closures, each)
        return loss, sum(norms) / len(norms), taken, ok

    def _summed(self, closures: list[Closure], ask: Callable[[Closure], tuple[Tensor, bool]]) -> tuple[Tensor, bool]:
        """Mean loss and all well; the mean of the gradients in .grad."""
        total: dict[Tensor, Tensor] = {}
        losses, well = [], True
        for closure in closures:
            self.zero_grad()
            loss, ok = ask(closure)
            losses.append(loss)
            well &= ok
            weights = self._moved()
            for p, g in zip(weights, _slopes(weights), strict=True):
                total[p] = g / len(closures) if p not in total else total[p].add_(g, alpha=1 / len(closures))
        self.zero_grad()
        for p, g in total.items():
            p.grad = g
        return torch.stack(losses).mean(), well

    # --- loss scaling -------------------------------------------------------------------------------------

    def _check_scaler(self) -> None:
        known = getattr(self.scaler, "_per_optimizer_states", {})
        for one in (self, *self._bases):
            if id(one) in known and "UNSCALED" in str(known[id(one)].get("stage")):
                raise InputError(
                    f"{type(self).__name__}.step: expected gradients still multiplied by the scaler, got ones that "
                    "were unscaled already; leave scaler.unscale_ out, step does it (and clips, with clip=)"
                )

    def _unscale(self) -> None:
        """Take the scaler's factor out of what is stepped along; the scaler notes infinities, for its update."""
        if self.scaler is not None:
            for one in self._bases:
                self.scaler.unscale_(one)

    # --- several processes --------------------------------------------------------------------------------

    @property
    def _group(self) -> Any:
        """The processes of DistributedDataParallel; None without it."""
        return self.model.process_group if isinstance(self.model, DistributedDataParallel) else None

    def _unsynchronised(self) -> AbstractContextManager[Any]:
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise InputError(
                f"{type(self).__name__}.perturbation: expected model= to be the DistributedDataParallel module for "
                f"'local', got {type(self.model).__name__}; pass it, or use 'global'"
            )
        return nullcontext()

    def _agreed(self, ok: bool) -> bool:
        """Whether all processes say so: a branch that only some take would hang the others."""
        if self._group is None:
            return ok
        flag = torch.tensor(float(ok), device=next(self._parameters()).device)
        dist.all_reduce(flag, dist.ReduceOp.MIN, group=self._group)
        return bool(flag > 0)

    def _mean(self, norm: float) -> float:
        """The root of the mean square over the processes."""
        if self._group is None:
            return norm
        square = torch.tensor(norm**2, dtype=torch.float64, device=next(self._parameters()).device)
        dist.all_reduce(square, group=self._group)
        return math.sqrt(float(square) / dist.get_world_size(self._group))

    def _average(self) -> None:
        """Gradients of one process's own become those of all."""
        if self._group is None:
            return
        for g in _slopes(self._moved()):
            dist.all_reduce(g, group=self._group)
            g /= dist.get_world_size(self._group)


def _slopes(weights: Sequence[Tensor]) -> list[Tensor]:
    return [cast(Tensor, w.grad) for w in weights]
