r"""What critic and generator minimise, of their scores alone.

s is the critic's score, before any sigmoid: x stands for real examples, z for generated ones, sp for softplus. All
losses are means over examples of terms that are exact for scores of any size: :math:`\log\sigma(s) = -sp(-s)`, never
:math:`\log(\sigma(s) + 10^{-8})`, whose gradient dies where it is needed.

**Signs.** What is plotted as the critic's loss is minimised. For `Wasserstein` it is minus the gap
:math:`E s(x) - E s(z)`, without the penalty; so a good critic has a negative loss that rises towards 0 as the
generator gets better. The gap is logged by itself and so is the penalty.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from danskin.minmax.problem import Template


class Objective(abc.ABC):
    """Losses of both players.

    Attributes:
        zero_sum: the generator minimises what the critic maximises (up to terms without the generator).
        pairs: the generator's loss compares with real examples.
        needs_lipschitz: its value means something for critics with a bounded slope only.
    """

    template: ClassVar[Template]
    moves: ClassVar[str]
    zero_sum: ClassVar[bool] = False
    pairs: ClassVar[bool] = False
    needs_lipschitz: ClassVar[bool] = False

    @abc.abstractmethod
    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimises: a scalar, of scores (n,) and (m,)."""

    @abc.abstractmethod
    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """What the generator minimises: a scalar, of scores (m,); `real` (m,) is read where `pairs` is set."""

    @abc.abstractmethod
    def generator_weight(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """|d(loss term)/ds| of each generated example, (m,): near 0, the generator learns nothing from it."""


_ALL = Template("generator", "critic", "all functions", "log-likelihood of telling real from generated")


@dataclass(frozen=True)
class Saturating(Objective):
    r"""The vanilla GAN as it is written: both play for the likelihood of the classifier D = sigmoid(s).

    .. math:: \min_G \max_s\; -E\, sp(-s(x)) - E\, sp(s(z)) = E \log D(x) + E \log(1 - D(z))

    At the best critic the value is 2 JSD - log 4. A generated example moves the generator with weight D(z), which
    vanishes where the critic is sure. Prefer `NonSaturating` or `Relativistic`.

    Reference: Goodfellow et al., NeurIPS 2014, equation 1. Lecture: F1.
    """

    template: ClassVar[Template] = _ALL
    moves: ClassVar[str] = "M critic steps, one generator step"
    zero_sum: ClassVar[bool] = True

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """E sp(-s(x)) + E sp(s(z))."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E sp(s(z))."""
        return -F.softplus(fake).mean()

    def generator_weight(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """D(z)."""
        return torch.sigmoid(fake)


@dataclass(frozen=True)
class NonSaturating(Objective):
    r"""The vanilla GAN as it is trained: the generator maximises log D(z) instead.

    Critic as `Saturating`; the generator minimises E sp(-s(z)), so that an example moves it with weight 1 - D(z).

    Reference: Goodfellow et al., NeurIPS 2014, section 3. Lecture: F1.
    """

    template: ClassVar[Template] = _ALL
    moves: ClassVar[str] = "M critic steps, one generator step on a payoff of its own"

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """E sp(-s(x)) + E sp(s(z))."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """E sp(-s(z))."""
        return F.softplus(-fake).mean()

    def generator_weight(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """1 - D(z)."""
        return torch.sigmoid(-fake)


@dataclass(frozen=True)
class Wasserstein(Objective):
    r"""The dual of the Wasserstein-1 distance, over critics that a constraint keeps near slope 1.

    .. math:: \min_G \max_{s \in \mathrm{Lip}_1}\; E s(x) - E s(z)

    The gap is a distance only if the critic is 1-Lipschitz, and at its best; with clipping it is scaled by an unknown
    constant, and with a gradient penalty it may exceed the distance. `danskin.gan.certified_gap` divides by a
    certified constant.

    Reference: Arjovsky, Chintala and Bottou, ICML 2017, algorithm 1. Lecture: F2.
    """

    template: ClassVar[Template] = Template("generator", "critic", "1-Lipschitz functions", "difference of mean scores")
    moves: ClassVar[str] = "M critic steps, one generator step"
    zero_sum: ClassVar[bool] = True
    needs_lipschitz: ClassVar[bool] = True

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """E s(z) - E s(x): minus the gap."""
        return fake.mean() - real.mean()

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E s(z)."""
        return -fake.mean()

    def generator_weight(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """1."""
        return torch.ones_like(fake)


@dataclass(frozen=True)
class Hinge(Objective):
    r"""The hinge loss of spectrally normalised GANs.

    Critic: E relu(1 - s(x)) + E relu(1 + s(z)); generator: -E s(z).

    Reference: Miyato et al., ICLR 2018, equations 16 and 17. Lecture: F5.
    """

    template: ClassVar[Template] = Template("generator", "critic", "1-Lipschitz functions", "clipped mean scores")
    moves: ClassVar[str] = "M critic steps, one generator step on a payoff of its own"

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """E relu(1 - s(x)) + E relu(1 + s(z))."""
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E s(z)."""
        return -fake.mean()

    def generator_weight(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """1."""
        return torch.ones_like(fake)


@dataclass(frozen=True)
class Relativistic(Objective):
    r"""Real and generated examples in pairs, as in R3GAN; meant for `R1R2`.

    Critic: E sp(-(s(x) - s(z))); generator: E sp(-(s(z) - s(x))), with fresh real examples.

    Reference: Huang et al., "The GAN is dead; long live the GAN!", NeurIPS 2024, equation 2. Lecture: F1.
    """

    template: ClassVar[Template] = Template("generator", "critic", "all functions", "log-likelihood of pairs in order")
    moves: ClassVar[str] = "M critic steps, one generator step on the pairs turned round"
    pairs: ClassVar[bool] = True

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """E sp(s(z) - s(x))."""
        return F.softplus(fake - real).mean()

    def generator_loss(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """E sp(s(x) - s(z))."""
        assert real is not None
        return F.softplus(real - fake).mean()

    def generator_weight(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """sigmoid(s(x) - s(z))."""
        assert real is not None
        return torch.sigmoid(real - fake)


#: By the name they go by in recipes.
GAN_OBJECTIVES: dict[str, type[Objective]] = {
    "saturating": Saturating,
    "non_saturating": NonSaturating,
    "wasserstein": Wasserstein,
    "hinge": Hinge,
    "relativistic": Relativistic,
}
