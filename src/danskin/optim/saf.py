"""SAF and MESA: sharpness without a second gradient, by staying near what the network said before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.minmax import Template
from danskin.optim.passes import buffers_kept
from danskin.optim.per_example import Forward, PerExample

_MEAN = "mesa_mean"


def distillation(reference: Tensor, logits: Tensor, tau: float) -> Tensor:
    r"""(n,) tau^2 KL(softmax(reference / tau) || softmax(logits / tau)), from log-softmaxes of float32 or more."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    p, q = ((z.to(wide) / tau).log_softmax(1) for z in (reference, logits))
    off = p == -torch.inf  # a class that is not there: 0 log 0 = 0
    p, q = p.masked_fill(off, 0), q.masked_fill(off, 0)
    return tau**2 * (p.exp() * (p - q)).masked_fill(off, 0).sum(1)


class _Penalised(PerExample):
    """One gradient a step, of the loss and a penalty on leaving a reference."""

    template = Template("weights", "-", "-", "loss + weight * divergence from before")
    moves = "gradient descent"

    def __init__(
        self, base: Optimizer | Sequence[Optimizer], weight: float, tau: float, begin: int, **options: Any
    ) -> None:
        super().__init__(base, **options)
        name = type(self).__name__
        if not weight >= 0:
            raise InputError(f"{name}.weight: expected a number >= 0, got {weight!r}")
        if not tau > 0:
            raise InputError(f"{name}.tau: expected a temperature above 0, got {tau!r}; 5 is usual")
        if begin < 0:
            raise InputError(f"{name}.begin: expected a number >= 0, got {begin!r}")
        self.weight, self.tau, self.begin = weight, tau, begin

    def _due(self, norm: float) -> bool:
        return False


class SAF(_Penalised):
    r"""loss + weight tau^2 KL(softmax(z_old / tau) || softmax(z / tau)), z_old what this example's logits were before.

    A network that leaves its own path fast stands on a sharp place. Logits of every example are remembered for `lag`
    visits, in float16: examples * lag * classes * 2 bytes on the host (CIFAR-10, lag 3: 3 MB).

    Args:
        base: one optimiser, or several.
        examples: in the training set; ``step`` needs their places.
        weight: of the penalty, >= 0 (lambda).
        tau: temperature, > 0.
        lag: visits (epochs) ago, >= 1.
        begin: visits of an example before the penalty holds for it, >= 0; at least `lag`.
        options: those of `PerExample` and `SharpnessAware`.

    Reference: Du et al. 2022 (SAF), eqs. 6 and 7.
    Lecture: row D3.
    """

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        examples: int,
        weight: float = 0.3,
        tau: float = 5.0,
        lag: int = 3,
        begin: int = 5,
        **options: Any,
    ) -> None:
        super().__init__(base, weight, tau, begin, **options)
        for name, value in (("examples", examples), ("lag", lag)):
            if not (isinstance(value, int) and value >= 1):
                raise InputError(f"SAF.{name}: expected a whole number >= 1, got {value!r}")
        self.examples, self.lag, self.begin = examples, lag, max(begin, lag)
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def _first_pass(self, forward: Forward, labels: Tensor, index: Tensor | None) -> Tensor:
        logits = forward(None)
        value = self._losses(logits, labels).mean()
        at = self._places(index, logits)
        known = self._kept["logits"]
        visits = self._kept["visits"][at].long()
        old = known[at, visits % self.lag].to(logits.device, logits.dtype)
        count = (visits >= self.begin).to(logits.device, logits.dtype)
        penalty = (distillation(old, logits, self.tau) * count).mean()
        self._backward(value + self.weight * penalty)
        self._seen = (at, visits % self.lag, logits.detach().to("cpu", torch.float16))
        return value

    def _remember(self, weights: list[Tensor]) -> None:
        """Only now: a step that is left out may have had NaN for logits."""
        if self._seen is not None:
            at, turn, logits = self._seen
            self._kept["logits"][at, turn] = logits
            self._kept["visits"][at] += 1
            self._seen = None

    def _places(self, index: Tensor | None, logits: Tensor) -> Tensor:
        if "logits" not in self._kept:
            self._kept["logits"] = torch.zeros(self.examples, self.lag, logits.shape[1], dtype=torch.float16)
            self._kept["visits"] = torch.zeros(self.examples, dtype=torch.int32)
        if index is None or index.shape != logits.shape[:1]:
            got = "none" if index is None else f"shape {tuple(index.shape)}"
            raise InputError(f"SAF.step: expected index=, the place of each example in the data set, got {got}")
        at = index.cpu().long()
        if len(at) and not 0 <= int(at.min()) <= int(at.max()) < self.examples:
            raise InputError(f"SAF.step: expected places below examples={self.examples}, got up to {int(at.max())}")
        return at


class MESA(_Penalised):
    r"""loss + weight tau^2 KL(softmax(z_mean / tau) || softmax(z / tau)), z_mean the logits at averaged weights.

    SAF without a memory of logits: one copy of the weights and one forward pass more. The average moves after a step by
    mean <- decay mean + (1 - decay) w; buffers are those of the network.

    Args:
        base: one optimiser, or several.
        weight: of the penalty, >= 0 (lambda).
        tau: temperature, > 0.
        decay: of the averaged weights, in [0, 1).
        begin: steps before the penalty holds.
        options: those of `PerExample` and `SharpnessAware`.

    Reference: Du et al. 2022 (SAF), section 3.3.
    Lecture: row D3.
    """

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        weight: float = 0.8,
        tau: float = 5.0,
        decay: float = 0.9998,
        begin: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(base, weight, tau, begin, **options)
        if not 0 <= decay < 1:
            raise InputError(f"MESA.decay: expected a number in [0, 1), got {decay!r}; 0.9998 is usual")
        self.decay = decay

    def _first_pass(self, forward: Forward, labels: Tensor, index: Tensor | None) -> Tensor:
        known = [p for p in self._parameters() if _MEAN in self._home(p)] if self.steps >= max(self.begin, 1) else []
        old = self._at_mean(known, forward) if known and self.weight else None
        logits = forward(None)
        value = self._losses(logits, labels).mean()
        self._backward(value if old is None else value + self.weight * distillation(old, logits, self.tau).mean())
        return value

    @torch.no_grad()
    def _at_mean(self, weights: list[Tensor], forward: Forward) -> Tensor:
        """Logits at the averaged weights."""
        own = [w.detach().clone() for w in weights]
        try:
            torch._foreach_copy_(weights, [self._home(w)[_MEAN] for w in weights])
            with buffers_kept(self.model):
                old = forward(None)
        finally:
            torch._foreach_copy_(weights, own)
        self._forwards = 1.0
        return old

    def _remember(self, weights: list[Tensor]) -> None:
        for w in weights:
            kept = self._home(w)
            if _MEAN in kept:
                kept[_MEAN].lerp_(w.detach(), 1 - self.decay)
            else:
                kept[_MEAN] = w.detach().clone()
