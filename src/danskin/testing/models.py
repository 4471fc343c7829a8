"""Small models for tests, some with answers known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seeded(module: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """The module in eval mode, with weights drawn from a generator of its own."""
    random = _generator(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            draw = torch.randn(p.shape, generator=random)
            if p.ndim > 1:
                p.copy_(draw * scale / math.sqrt(math.prod(p.shape[1:])))
            else:  # biases, and the scales of normalisation layers around 1
                p.copy_(0.1 * draw if name.endswith("bias") else 1 + 0.1 * draw)
    return module.eval()


class RowwiseLinear(nn.Module):
    """Affine scores by products and row sums, so that a row's result has the same bits in any batch.

    (A matrix product does not promise that.)

    Args:
        inputs: d, the number of features of a flattened example.
        outputs: classes, or 1 for a score.
        seed: of the weights.
        scale: of the weights.
    """

    def __init__(self, inputs: int, outputs: int, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        random = _generator(seed)
        self.weight = nn.Parameter(scale * torch.randn(outputs, inputs, generator=random))
        self.bias = nn.Parameter(0.1 * torch.randn(outputs, generator=random))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> (batch, outputs)."""
        flat = x.reshape(len(x), 1, self.weight.shape[1])
        return (flat * self.weight).sum(-1) + self.bias


def mlp(inputs: int, outputs: int, seed: int = 0, width: int = 16) -> nn.Module:
    """Flatten, one hidden layer with ReLU, logits; eval mode."""
    return seeded(
        nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs)), seed, 2.0
    )


def convnet(outputs: int, seed: int = 0, channels: int = 3) -> nn.Module:
    """Convolution, BatchNorm, ReLU, pooling to one pixel, logits: what images are attacked with; eval mode."""
    with torch.random.fork_rng(devices=[]):
        layers = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, outputs),
        )
    return seeded(layers, seed, 2.0)


class Counter(nn.Module):
    """The identity; in training mode it counts its calls in a buffer, as BatchNorm does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """X itself."""
        if self.training:
            self.get_buffer("calls").add_(1)
        return x


class FailsLater(nn.Module):
    """A model that works `calls` times and then raises `RuntimeError("model failed")`."""

    def __init__(self, model: nn.Module, calls: int) -> None:
        super().__init__()
        self.model, self.left = model, calls

    def forward(self, x: Tensor) -> Any:
        """What the model says, while it works."""
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("model failed")
        return self.model(x)


class Counted(nn.Module):
    """A model that counts the examples passed forward and, through a hook on its input, backward."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """What the model says."""
        self.calls += 1
        self.forwards += len(x)
        if x.requires_grad:
            x = x.clone()
            x.register_hook(self._count)
        return self.model(x)

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class CrossEntropyTrap(nn.Module):
    """Ten classes, one input, label 0: the point of [-1, 1] with the most cross-entropy is classified correctly.

    z(d) = z0 + relu(-d) (zA - z0) + relu(d) (zB - z0). At d = -1 cross-entropy is 2.2073 and the margin -0.0953
    (correct); at d = 1 cross-entropy is 0.7133 and the margin +0.0400 (wrong). LECTURE row C6.
    """

    def __init__(self) -> None:
        super().__init__()
        zero = torch.zeros(10)
        zero[0] = 4.0
        a = torch.log(torch.tensor([0.11, 0.09] + [0.1] * 8))
        b = torch.log(torch.tensor([0.49, 0.51] + [1e-6] * 8))
        self.register_buffer("zero", zero)
        self.register_buffer("a", a)
        self.register_buffer("b", b)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1) -> (batch, 10)."""
        z0 = self.get_buffer("zero")
        return z0 + (-x).relu() * (self.get_buffer("a") - z0) + x.relu() * (self.get_buffer("b") - z0)


class Rooted(nn.Module):
    """A model of sqrt(x - low), whose partial derivatives are infinite or NaN where x is at `low`.

    With `tame` the same function with partial derivatives of 0 there.
    """

    def __init__(self, model: nn.Module, low: float = 0.0, tame: bool = False) -> None:
        super().__init__()
        self.model, self.low, self.tame = model, low, tame

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        z = x - self.low
        return self.model(torch.where(z > 0, torch.where(z > 0, z, 1).sqrt(), 0) if self.tame else z.sqrt())


class Doubling(nn.Module):
    """A model of 2 x: honestly, or by doubling the memory of x itself past torch, as numpy code does."""

    def __init__(self, model: nn.Module, honest: bool) -> None:
        super().__init__()
        self.model, self.honest = model, honest

    def forward(self, x: Tensor) -> Tensor:
        """The logits; the gradient is that of the model at 2 x, as if the doubling were not there."""
        if self.honest:
            return self.model(x + x.detach())
        memory = x.detach().float().numpy() if x.dtype == torch.bfloat16 else x.detach().numpy()
        memory *= 2
        return self.model(x)
