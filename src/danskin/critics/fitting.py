"""The adversary learns: max over the weights of a critic of E_mu d - E_nu d."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from danskin.critics.samples import Samples
from danskin.errors import InputError, ModelError


@dataclass(frozen=True)
class AdamAscent:
    """Adam on the critic's weights, with a step that goes to 0 linearly.

    Args:
        steps: >= 1.
        lr: the first step size, > 0.
        batch: points of each sample in a step, drawn with replacement by weight; None for all of them every time.
        penalty: lambda of a two-sided gradient penalty (WGAN-GP), >= 0. It does not make the critic 1-Lipschitz.
        every: steps between recorded gaps.
    """

    steps: int = 1000
    lr: float = 3e-3
    batch: int | None = None
    penalty: float = 0.0
    every: int = 50

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "every"):
            held = getattr(self, name)
            if held is not None and (isinstance(held, bool) or not isinstance(held, int) or held < 1):
                raise InputError(f"AdamAscent.{name}: expected a whole number >= 1, got {held!r}; correct it")
        if not 0 < self.lr < float("inf"):
            raise InputError(f"AdamAscent.lr: expected a number > 0, got {self.lr!r}; try 3e-3")
        if not 0 <= self.penalty < float("inf"):
            raise InputError(f"AdamAscent.penalty: expected a number >= 0, got {self.penalty!r}; 10 is usual")

    def __call__(self, critic: nn.Module, x: Tensor, y: Tensor, s: Samples, seed: int = 0) -> list[tuple[int, float]]:
        """Move the critic's parameters, in its own dtype and in train mode.

        Args:
            critic: (n, ...) to (n,) or (n, 1).
            x: (n, ...) as the critic takes them.
            y: (m, ...).
            s: the same samples, checked.
            seed: of batches and of the penalty's points.

        Returns:
            (step, critic gap before it), now and then. A gap is no distance.

        Raises:
            ModelError: the critic has nothing to train, answers in another shape, or its gap is not finite.
        """
        parameters = [p for p in critic.parameters() if p.requires_grad]
        if not parameters:
            raise ModelError("critic: expected parameters to train, got none; see their requires_grad")
        x, y, a, b = (t.detach().to(parameters[0]) for t in (x, y, s.a, s.b))
        g = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(parameters, self.lr, betas=(0.5, 0.9) if self.penalty else (0.9, 0.999))
        history = []
        for k in range(self.steps):
            if self.batch is None:
                u, v, p, q = x, y, a, b
            else:
                u, v = (t[_drawn(w, self.batch, g)] for t, w in ((x, a), (y, b)))
                p = q = a.new_full((self.batch,), 1 / self.batch)
            both = answers(critic, torch.cat([u, v]))
            gap = p @ both[: len(u)] - q @ both[len(u) :]
            loss = -gap
            if self.penalty:
                loss = loss + self.penalty * gradient_penalty(critic, u, v, g)
            if k % self.every == 0:
                history.append((k, float(gap.detach())))
                if not bool(gap.isfinite()):
                    raise ModelError(f"critic: expected a finite gap, got {float(gap)} at step {k}; take a smaller lr")
            for group in optimizer.param_groups:
                group["lr"] = self.lr * (1 - k / self.steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return history


def _drawn(w: Tensor, count: int, g: torch.Generator) -> Tensor:
    return torch.multinomial(w.cpu(), count, replacement=True, generator=g).to(w.device)


def answers(critic: nn.Module, z: Tensor) -> Tensor:
    """The critic's values as (n,).

    Raises:
        ModelError: it answers in another shape.
    """
    out = critic(z)
    if not isinstance(out, Tensor) or out.shape not in ((len(z),), (len(z), 1)):
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ModelError(f"critic: expected one value for each of {len(z)} points, got {got}; end with one output")
    return out.reshape(len(z))


def gradient_penalty(critic: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    r"""E (\|grad d(z)\|_2 - 1)^2 at z = e x + (1 - e) y, one e for each pair; the norm is safe at 0.

    Samples of unequal size are paired as far as the smaller goes.

    Reference: Gulrajani et al., NeurIPS 2017, equation 3.
    """
    n = min(len(x), len(y))
    e = torch.rand(n, generator=generator, dtype=torch.float64).to(x).view(n, *[1] * (x.ndim - 1))
    z = (e * x[:n] + (1 - e) * y[:n]).detach().requires_grad_()
    (slope,) = torch.autograd.grad(answers(critic, z).sum(), z, create_graph=True)
    squared = slope.reshape(n, -1).square().sum(1)
    size = torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)
    return (size - 1).square().mean()
