"""The optimisers of `danskin.optim` as values of a training run: hyperparameters here, parameters in the call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from danskin import optim
from danskin.errors import InputError
from danskin.training.optimizers import PLAIN, SGD, AdamW

Base = SGD | AdamW
Again = Literal["again", "held"]


@dataclass(frozen=True)
class WithAdversary(ABC):
    """A base optimiser, and an adversary of the weights.

    Args:
        base: `SGD` or `AdamW`; the learning rate and its schedule are its own.
        tail: the share of training, at its end, in which the adversary moves; plain steps before; in (0, 1].
        attack: at the second gradient the objective's attack is made "again", on the shifted weights, or its points are
            "held".
        buffers: "first" keeps the second pass out of BatchNorm's statistics, "both" lets it in.
    """

    base: Base = field(default_factory=SGD)
    tail: float = field(default=1.0, kw_only=True)
    attack: Again = field(default="again", kw_only=True)
    buffers: Literal["first", "both"] = field(default="first", kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.tail <= 1:
            raise InputError(
                f"{type(self).__name__}.tail: expected a share of training in (0, 1], got {self.tail}; 1 is all of it"
            )
        self([nn.Parameter(torch.zeros(1))])  # its numbers are checked now, not when training begins

    @property
    def lr(self) -> float:
        """Of the base."""
        return self.base.lr

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        return self.made(self.base(parameters), buffers=self.buffers)

    @abstractmethod
    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """The optimiser around its base."""

    def prepare(self, optimizer: Any, *, steps: int, examples: int, clip: float | None, model: Any) -> None:
        """Tell an optimiser how long training is, how much data there is, and which processes there are."""
        optimizer.start = steps - round(self.tail * steps)
        optimizer.clip = clip
        optimizer.model = model


@dataclass(frozen=True)
class WithSAM(WithAdversary):
    """`danskin.optim.SAM`: radius `rho` over all weights.

    Lecture: row D1.
    """

    rho: float = 0.05

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """SAM around it."""
        return optim.SAM(base, self.rho, **options)


@dataclass(frozen=True)
class WithASAM(WithAdversary):
    """`danskin.optim.ASAM`: radius `rho` in a ball scaled by the weights plus `eta`.

    Lecture: row D3.
    """

    rho: float = 0.5
    eta: float = 0.01

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """ASAM around it."""
        return optim.ASAM(base, self.rho, self.eta, **options)


@dataclass(frozen=True)
class WithGSAM(WithAdversary):
    """`danskin.optim.GSAM`: radius from `rho` to `rho_min` with the learning rate, `alpha` of the gap.

    Lecture: row D3.
    """

    rho: float = 0.05
    alpha: float = 0.4
    rho_min: float | None = None

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """GSAM around it; the schedule's top is the learning rate of the base."""
        return optim.GSAM(base, self.rho, self.alpha, rho_min=self.rho_min, lr_max=self.lr, **options)


@dataclass(frozen=True)
class WithFriendlySAM(WithAdversary):
    """`danskin.optim.FriendlySAM`: `sigma` of the mean gradient, of decay `decay`, is left out of the ascent.

    Lecture: row D3.
    """

    rho: float = 0.2
    sigma: float = 1.0
    decay: float = 0.9

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """FriendlySAM around it."""
        return optim.FriendlySAM(base, self.rho, self.sigma, self.decay, **options)


@dataclass(frozen=True)
class WithLookSAM(WithAdversary):
    """`danskin.optim.LookSAM`: a second gradient every `k` steps, its new part used with `alpha` in between.

    Lecture: row D3.
    """

    rho: float = 0.05
    k: int = 5
    alpha: float = 0.7
    layerwise: bool = False

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """LookSAM around it."""
        return optim.LookSAM(base, self.rho, self.k, self.alpha, layerwise=self.layerwise, **options)


@dataclass(frozen=True)
class WithAESAM(WithAdversary):
    """`danskin.optim.AESAM`: a second gradient where the first is large for its time.

    Lecture: row D3.
    """

    rho: float = 0.05
    delta: float = 0.9
    low: float = -1.0
    high: float = 1.0

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """AE-SAM around it; `prepare` says how many steps there are."""
        return optim.AESAM(base, self.rho, steps=1, delta=self.delta, low=self.low, high=self.high, **options)

    def prepare(self, optimizer: Any, *, steps: int, examples: int, clip: float | None, model: Any) -> None:
        """The threshold falls over all steps."""
        super().prepare(optimizer, steps=steps, examples=examples, clip=clip, model=model)
        optimizer.total = steps


@dataclass(frozen=True)
class WithESAM(WithAdversary):
    """`danskin.optim.ESAM`: `beta` of the weights, `gamma` of the examples. Objectives: standard, adversarial.

    Lecture: row D3.
    """

    rho: float = 0.05
    beta: float = 0.6
    gamma: float = 0.5
    mask: Literal["element", "tensor"] = "element"

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """ESAM around it."""
        return optim.ESAM(base, self.rho, self.beta, self.gamma, mask=self.mask, **options)


@dataclass(frozen=True)
class WithBiSAM(WithAdversary):
    """`danskin.optim.BiSAM`: the adversary is paid a bound on the errors. Objectives: standard, adversarial.

    Lecture: row D4.
    """

    rho: float = 0.05
    phi: Literal["tanh", "log"] = "tanh"
    mu: float = 10.0
    alpha: float = 0.1

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """BiSAM around it."""
        return optim.BiSAM(base, self.rho, phi=self.phi, mu=self.mu, alpha=self.alpha, **options)


@dataclass(frozen=True)
class WithSAF(WithAdversary):
    """`danskin.optim.SAF`: near the logits of `lag` epochs ago. Objectives: standard, adversarial; one process.

    Lecture: row D3.
    """

    weight: float = 0.3
    tau: float = 5.0
    lag: int = 3
    begin: int = 5

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """SAF around it; `prepare` says how many examples there are."""
        return optim.SAF(base, 1, self.weight, self.tau, self.lag, self.begin, **options)

    def prepare(self, optimizer: Any, *, steps: int, examples: int, clip: float | None, model: Any) -> None:
        """Logits of all examples are remembered."""
        super().prepare(optimizer, steps=steps, examples=examples, clip=clip, model=model)
        optimizer.examples = examples


@dataclass(frozen=True)
class WithMESA(WithAdversary):
    """`danskin.optim.MESA`: near the logits at averaged weights. Objectives: standard, adversarial.

    Lecture: row D3.
    """

    weight: float = 0.8
    tau: float = 5.0
    decay: float = 0.9998

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """MESA around it."""
        return optim.MESA(base, self.weight, self.tau, self.decay, **options)


@dataclass(frozen=True)
class WithSAMPa(WithAdversary):
    """`danskin.optim.SAMPa`; both gradients one after the other on one process, at once on two (torchrun).

    Lecture: rows D2 and D3.
    """

    rho: float = 0.1
    lam: float = 0.2

    def made(self, base: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
        """SAMPa around it; buffers are those of the passes at y."""
        if self.tail < 1 or self.buffers != "first":
            raise InputError("WithSAMPa: expected tail=1 and buffers='first', got others; SAMPa has no such options")
        return optim.SAMPa(base, self.rho, self.lam)

    def prepare(self, optimizer: Any, *, steps: int, examples: int, clip: float | None, model: Any) -> None:
        """Two processes are a pair: each takes one of the gradients of the whole batch."""
        optimizer.clip = clip
        if torch.distributed.is_available() and torch.distributed.is_initialized() and model is not None:
            optimizer.join(torch.distributed.group.WORLD, model)


Optimizer = SGD | AdamW | WithAdversary
#: By the name they have in recipes.
OPTIMIZERS: dict[str, type] = PLAIN | {
    "sam": WithSAM,
    "asam": WithASAM,
    "gsam": WithGSAM,
    "friendlysam": WithFriendlySAM,
    "looksam": WithLookSAM,
    "aesam": WithAESAM,
    "esam": WithESAM,
    "bisam": WithBiSAM,
    "saf": WithSAF,
    "mesa": WithMESA,
    "sampa": WithSAMPa,
}
