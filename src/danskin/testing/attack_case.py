"""An attack, and small problems that fit it: what the checks of attacks are asked on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from danskin.attacks import Attack, Attacked
from danskin.attacks.bounds import Ball, audit_tolerance
from danskin.losses import get_loss, predict
from danskin.minmax import Box
from danskin.minmax.measured import grown
from danskin.minmax.precision import at_least_float32
from danskin.testing.expect import expect, expect_close, expect_same
from danskin.testing.models import RowwiseLinear, mlp

DataBox = tuple[float, float] | None
Make = Callable[[Ball, DataBox], Attack]
_AUDIT = 1e-6


class AttackCase:
    """An attack, and small problems that fit it.

    Args:
        attack: an attack whose class is a dataclass with `ball` and `box`, or (ball, box) -> attack.
        ball: used by the cases; default: the attack's own.
        affine: the attack handles affine models only.
        seed: of the data.
    """

    def __init__(self, attack: Attack | Make, ball: Ball | None, affine: bool, seed: int) -> None:
        if isinstance(attack, Attack):
            self.attack, self.ball = attack, ball or attack.ball
            self.make: Make = lambda ball, box: dataclasses.replace(attack, ball=ball, box=box)
        elif ball is None:
            raise AssertionError("check_attack: expected a ball along with a function that makes attacks, got none")
        else:
            self.ball, self.make = ball, attack
            self.attack = attack(ball, (0, 1))
        self.affine, self.seed = affine, seed
        loss = get_loss(getattr(self.attack, "loss", "cross_entropy"))
        self.binary, self.targeted = loss.binary, loss.targeted and not getattr(self.attack, "aims", False)

    def with_radius(self, radius: float | Tensor) -> Ball:
        """The ball with another radius."""
        ball: Ball = grown(self.ball, radius)
        return ball

    def generator(self) -> torch.Generator:
        """Fresh each time: cases do not depend on one another."""
        return torch.Generator().manual_seed(self.seed)

    def model(self, inputs: int, classes: int = 4) -> nn.Module:
        """An affine model where the attack needs one, else one with a hidden layer."""
        outputs = 1 if self.binary else classes
        return RowwiseLinear(inputs, outputs, self.seed).eval() if self.affine else mlp(inputs, outputs, self.seed)

    def images(self, n: int = 6, shape: Sequence[int] = (3, 4, 4), box: tuple[float, float] = (0, 1)) -> Tensor:
        """Random images, a few of whose pixels are at the ends of the box."""
        x = torch.rand(n, *shape, generator=self.generator()) * 1.2 - 0.1
        return box[0] + (box[1] - box[0]) * x.clamp(0, 1)

    def labels(self, model: Any, x: Tensor, classes: int = 4) -> Tensor:
        """What the model predicts, with every third one wrong."""
        with torch.no_grad():
            y = predict(model(x).float()) if len(x) else torch.zeros(0, dtype=torch.int64)
        every_third = torch.arange(len(y)) % 3 == 2
        return torch.where(every_third, -y if self.binary else (y + 1) % classes, y)

    def run(self, model: Any, x: Tensor, y: Tensor, attack: Attack | None = None, classes: int = 4) -> Attacked:
        """The attack on a batch, with targets where its loss needs them."""
        targets = (y + 1) % classes if self.targeted else None
        return (attack or self.attack)(model, x, y, seed=self.seed, targets=targets)

    def audit(self, attack: Attack, out: Attacked, model: Any, x: Tensor, y: Tensor, classes: int = 4) -> None:
        """Everything about one outcome that can be checked without knowing how it came about."""
        n, ball, box = len(x), attack.ball, attack.box
        expect(out.x.shape == x.shape and out.x.dtype == x.dtype, f"x: expected {x.dtype} like the inputs")
        for name, t in (("success", out.success), ("loss", out.loss)):
            expect(t.shape == (n,), f"{name}: expected shape ({n},), got {tuple(t.shape)}")
        expect(out.success.dtype == torch.bool, f"success: expected bool, got {out.success.dtype}")
        expect(not (out.x.requires_grad or out.loss.requires_grad), "outcome: expected detached tensors")
        expect(out.x.isfinite(), "x: expected finite values")
        delta = out.x.double() - x.double()
        expect_close(out.delta, delta, _AUDIT, "delta against x - clean x")
        most = audit_tolerance(ball) * torch.as_tensor(getattr(ball, "value", 1.0)).double().clamp_min(1)
        expect(
            ball.violation(delta) <= most, f"x: expected in {ball}, got {float(ball.violation(delta).max()):.3g} out"
        )
        if box is not None:
            beyond = Box(*box).violation(out.x.double())
            expect(beyond <= _AUDIT, f"x: expected in the box {box}, got {float(beyond.max()):.3g} out")
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            guess = predict(at_least_float32(model(out.x)))
        wrong = guess == (y + 1) % classes if self.targeted else guess != y
        expect_same(out.success, wrong, "success against a fresh forward pass")
        expect(
            out.cost.forwards >= n and out.cost.calls >= min(n, 1), f"cost: expected forwards counted, got {out.cost}"
        )

    def attack_and_audit(
        self,
        x: Tensor,
        model: nn.Module | None = None,
        ball: Ball | None = None,
        box: DataBox = (0, 1),
        classes: int = 4,
    ) -> Attacked:
        """One attack of a model that fits x, audited."""
        attack = self.make(ball or self.ball, box)
        model = model or self.model(math.prod(x.shape[1:]), classes).to(x.dtype)
        y = self.labels(model, x, classes)
        out = self.run(model, x, y, attack, classes)
        self.audit(attack, out, model, x, y, classes)
        return out
