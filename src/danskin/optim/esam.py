"""ESAM: shift some of the weights, and take the second gradient on the examples that the shift hurts most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.minmax import Template
from danskin.minmax.weight_balls import AllWeights, WeightBall
from danskin.optim.info import StepInfo
from danskin.optim.per_example import Forward, PerExample

Mask = Literal["element", "tensor"]


@dataclass(frozen=True)
class Masked:
    """The maximiser of a ball on a random part of the weights, divided by the part's share: right in the mean."""

    ball: WeightBall
    beta: float
    mask: Mask
    seed: int

    def lmo(self, g: Sequence[Tensor], at: Sequence[Tensor]) -> list[Tensor]:
        """The ball's, times a mask that is 1 with probability beta, over beta."""
        out = self.ball.lmo(g, at)
        generators: dict[torch.device, torch.Generator] = {}
        for v in out:
            device = v.device
            if device not in generators:
                generators[device] = torch.Generator(device).manual_seed(self.seed)
            shape = v.shape if self.mask == "element" else torch.Size([1] * v.ndim)
            v.mul_(torch.rand(shape, generator=generators[device], device=device) < self.beta).div_(self.beta)
        return out

    def norm(self, v: Sequence[Tensor], at: Sequence[Tensor]) -> float:
        """The ball's."""
        return self.ball.norm(v, at)


class ESAM(PerExample):
    r"""SAM with a shift of a random part of the weights and a second gradient on a part of the batch.

    Shift: m rho g / (beta |g|), m a mask that keeps a weight with probability beta. One forward pass without gradient
    at the shifted weights tells which gamma n examples it raised most, l_i(w + v) - l_i(w); the second gradient is
    theirs.

    Args:
        base: one optimiser, or several.
        rho: radius, > 0.
        beta: share of the weights that are shifted, in (0, 1].
        gamma: share of the examples in the second gradient, in (0, 1]; with beta = gamma = 1 it is SAM.
        mask: by "element" as in the paper, or by whole "tensor" as in the released code.
        seed: of the masks, which every process draws alike.
        options: those of `PerExample` and `SharpnessAware`.

    Reference: Du et al. 2022, algorithm 1.
    Lecture: row D3.
    """

    template = Template("weights", "weight shift", "l2 ball, some weights", "loss of the examples it hurts")
    moves = "one linear maximiser on some weights, the base optimiser outside"

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float = 0.05,
        beta: float = 0.6,
        gamma: float = 0.5,
        *,
        mask: Mask = "element",
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(base, **options)
        for name, value in (("beta", beta), ("gamma", gamma)):
            if not 0 < value <= 1:
                raise InputError(f"ESAM.{name}: expected a share in (0, 1], got {value!r}; 0.5 is usual")
        if mask not in ("element", "tensor"):
            raise InputError(f"ESAM.mask: expected 'element' or 'tensor', got {mask!r}")
        self.ball, self.beta, self.gamma, self.mask, self.seed = AllWeights(rho), beta, gamma, mask, seed
        self._before = torch.empty(0)
        self._share = 0.0

    def _ball(self) -> WeightBall:
        return Masked(self.ball, self.beta, self.mask, (self.seed << 32) + self.steps)

    def _first_pass(self, forward: Forward, labels: Tensor, index: Tensor | None) -> Tensor:
        losses = self._losses(forward(None), labels)
        self._before = losses.detach()
        self._backward(losses.mean())
        return losses.mean()

    def _second_pass(self, forward: Forward, labels: Tensor) -> Tensor:
        count, rows = max(1, round(self.gamma * len(labels))), None
        if count < len(labels):
            with torch.no_grad():
                raised = self._losses(forward(None), labels) - self._before
            self._forwards, rows = 1.0, raised.topk(count).indices.sort().values
        self._share = count / len(labels)
        own = labels if rows is None else labels[rows]
        value = self._losses(forward(rows), own).mean()
        self._backward(value)
        return value

    def _spent(self, info: StepInfo) -> dict[str, float]:
        taken = 1 + self._share if info.gradients > 1 else info.gradients
        return {"gradients": taken, "depth": taken, "forwards": self._forwards}
