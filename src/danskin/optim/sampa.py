"""SAMPa: both gradients of a sharpness-aware step at the same time, on one process or on pairs of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.minmax import Template, lists
from danskin.minmax.weight_balls import AllWeights
from danskin.optim.exchange import Pair, fingerprint
from danskin.optim.info import StepInfo
from danskin.optim.passes import asked, buffers_noted
from danskin.optim.peek import peek
from danskin.optim.wrapper import Wrapper

_SLOPE = "sampa_slope"


class SAMPa(Wrapper):
    r"""SAM whose two gradients do not wait for each other: the ascent follows the gradient at an auxiliary point y.

    With G = grad f_t(y_t), f_t the loss of batch t,

        v = rho G / |G|,  y_{t+1} = where the base would go from x_t along G,
        p = grad f_t(x_t + v)   and   q = grad f_{t+1}(y_{t+1}),   both at once,
        x_{t+1} = Base(x_t, (1 - lam) p + lam q),  G <- q.

    lam = 1 is optimistic gradient descent; lam = 0 is SAM with a gradient of one step ago. In the first step there is
    no G: p and q are the gradient at x_0.

    ``step(closure, batch)``: the closure gets the batch it is asked about, this one or the one before.

        opt.step(lambda batch: backward(cross_entropy(model(batch[0]), batch[1])), (x, y))

    With `group` each even process of it takes p and the next one q; one exchange a step, and all make the same step
    with the same numbers: replicas stay bitwise equal, to each other and to one process that does both. Every pair gets
    its own share of the data, both of a pair the same; more than one pair average their gradients first.

    Args:
        base: one optimiser, or several; any that torch has (`peek` copies its state for y).
        rho: radius, > 0; about twice that of SAM at lam = 0.2.
        lam: share of q, in [0, 1].
        model: the raw module; its buffers (BatchNorm) are those of the passes at y, on all processes.
        group: a process group of even size, such as ``torch.distributed.group.WORLD``; None for one process.
        clip: largest l2 norm of the gradient that is stepped along; None for no clipping.

    Raises:
        InputError: rho, lam or clip out of range, or an odd number of processes.

    Reference: Xie et al. 2024 (SAMPa), algorithm 1.
    Lecture: rows D2 and D3.
    """

    template = Template("weights", "weight shift", "l2 ball", "loss")
    moves = "one linear maximiser along the last gradient, both gradients at once, the base optimiser outside"

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float = 0.1,
        lam: float = 0.2,
        *,
        model: nn.Module | None = None,
        group: Any = None,
        clip: float | None = None,
    ) -> None:
        super().__init__(base)
        self.ball = AllWeights(rho)
        if not (isinstance(lam, int | float) and 0 <= lam <= 1):
            raise InputError(f"SAMPa.lam: expected a share in [0, 1], got {lam!r}; 0.2 is usual")
        if clip is not None and not clip > 0:
            raise InputError(f"SAMPa.clip: expected a norm above 0, got {clip!r}; leave it out for no clipping")
        self.lam, self.model, self.clip = float(lam), model, clip
        self.pair: Pair | None = None
        if group is not None:
            self.join(group, model)
        self.last: StepInfo | None = None

    def join(self, group: Any, model: nn.Module | None) -> None:
        """Take one of the two gradients from now on, and the other one from a partner; every process calls it.

        Args:
            group: of even size.
            model: the raw module.

        Raises:
            InputError: an odd number of processes, no module, or a wrapped one.
        """
        if model is None:
            raise InputError("SAMPa.model: expected the raw module with group=, whose buffers are exchanged, got None")
        if isinstance(model, nn.parallel.DistributedDataParallel):
            raise InputError(
                "SAMPa.model: expected the raw module, got DistributedDataParallel, whose gradients are averages; "
                "SAMPa exchanges them itself"
            )
        self.model, self.pair = model, Pair(group)

    @torch.no_grad()
    def step(self, closure: Callable[[Any], Any] | None = None, batch: Any = None) -> Any:  # type: ignore[override]
        """One step.

        Args:
            closure: takes a batch, computes its loss, calls backward() and returns the loss.
            batch: this step's; kept until the next one, and saved with the optimiser if it is made of tensors.

        Returns:
            The loss of this batch at y.

        Raises:
            InputError: no closure, no batch, a closure that returns no loss, or processes of a pair with other batches.
        """
        if closure is None or batch is None:
            raise InputError(
                "SAMPa.step: expected a closure and a batch, step(closure, batch), with closure(batch) -> loss: the "
                f"batch of the step before is asked about again; got {'no batch' if closure else 'no closure'}"
            )
        started = time.perf_counter()
        if "batch" not in self._kept:
            p, q, loss = self._begin(closure, batch)
        else:
            p, q, loss = self._both(closure, batch)
        weights = list(self._with_gradient)
        norm = lists.norm(q)
        ok = math.isfinite(norm) and math.isfinite(lists.norm(p)) and bool(loss.isfinite())
        if ok:
            mixed = torch._foreach_mul(p, 1 - self.lam)
            torch._foreach_add_(mixed, q, alpha=self.lam)
            for w, g in zip(weights, mixed, strict=True):
                w.grad = g
            if self.clip is not None:
                nn.utils.clip_grad_norm_(weights, self.clip)
            self._step_bases()
            for w, g in zip(weights, q, strict=True):
                self._home(w)[_SLOPE] = g
            self._kept["batch"] = batch
        self._count(ok)
        depth = 1 if self.pair is not None or p is q else 2
        self.last = StepInfo(loss, 1 if p is q else 2, depth, time.perf_counter() - started, norm, not ok)
        return loss

    @property
    def _with_gradient(self) -> list[Tensor]:
        return [p for p in self._parameters() if p.requires_grad]

    def _begin(self, closure: Callable[[Any], Any], batch: Any) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """The gradient at x_0 for both: every process takes it by itself."""
        g, loss = self._gradient(closure, batch, keep=False)
        if self.pair is not None:
            self.pair.check_same(fingerprint(batch))
            self.pair.mean(g)
        return g, g, loss

    def _both(self, closure: Callable[[Any], Any], batch: Any) -> tuple[list[Tensor], list[Tensor], Tensor]:
        weights = self._with_gradient
        slopes = [self._home(w)[_SLOPE] for w in weights]
        before = [w.detach().clone() for w in weights]
        role = None if self.pair is None else self.pair.role
        p: list[Tensor] = []
        q: list[Tensor] = []
        loss = before[0].new_zeros(())
        try:
            if role in (None, 0):
                torch._foreach_add_(weights, self.ball.lmo(slopes, weights))
                p, _ = self._gradient(closure, self._kept["batch"], keep=True)
                torch._foreach_copy_(weights, before)
            if role in (None, 1):
                torch._foreach_copy_(weights, peek(self._bases, weights, slopes))
                q, loss = self._gradient(closure, batch, keep=False)
        finally:
            torch._foreach_copy_(weights, before)
        if self.pair is not None:
            self.pair.mean(p if role == 0 else q)
            buffers = [] if self.model is None else list(self.model.buffers())
            p, q, loss = self.pair.exchanged(p if role == 0 else q, loss, buffers, fingerprint(batch))
        return p, q, loss

    def _gradient(self, closure: Callable[[Any], Any], batch: Any, keep: bool) -> tuple[list[Tensor], Tensor]:
        self.zero_grad()
        with buffers_noted(self.model) as put_back:
            loss = asked("SAMPa", lambda: closure(batch))
        weights = self._with_gradient
        g = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        if keep or not (math.isfinite(lists.norm(g)) and bool(loss.isfinite())):
            put_back()
        self.zero_grad()
        return g, loss.to(torch.float32)
