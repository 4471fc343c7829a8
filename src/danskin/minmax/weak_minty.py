r"""Extragradient for problems that are not monotone: EG+ and what came after it.

F has a weak Minty solution z* with parameter rho where <F(z), z - z*> >= rho \|F(z)\|^2 for all z; rho = 0 is more than
monotone F have, and below 0 a solution may be shielded by cycles. With H(z) = z - gamma F(z) a step looks ahead to
w = P(H(z)) and goes z+ = z + relax alpha (H(w) - H(z)); in all of space this is z - relax alpha gamma F(w). What
differs is who chooses alpha and gamma. Lecture: row G1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.dynamics import PLAYERS, State, estimate, resolve_step
from danskin.minmax.number import Number, number
from danskin.minmax.problem import Template
from danskin.minmax.random import Streams
from danskin.minmax.rows import PerRow
from danskin.minmax.saddle import Operator, Saddle, jacobian, pull_back
from danskin.minmax.sets import rowwise

_ROUNDS = 60  # halvings of a step size at most: 2^-60 of where it began
_FEW = 8  # dimensions in which a Jacobian is written out


@dataclass(frozen=True)
class EGPlus(PerRow):
    """EG+ with a fixed second step: z+ = z + alpha (H(w) - H(z)).

    Converges for rho > -gamma (1 - alpha) / 2 with gamma <= 1 / L; in terms of alpha, alpha < 1 + 2 rho / gamma.
    In all of space it is extragradient with the second step alpha times the first.

    Args:
        step_size: gamma.
        alpha: the second step as a share of the first, in (0, 1]; 1 is the forward-backward-forward step of Tseng.

    Reference: Diakonikolas, Daskalakis and Jordan, AISTATS 2021 (alpha 1/2); Pethick et al., ICLR 2022.
    Lecture: row G1.
    """

    template: ClassVar[Template] = PLAYERS
    moves: ClassVar[str] = "both at once, a shorter step by the gradient one step ahead"
    calls: ClassVar[float] = 2

    step_size: Number = "1/L"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_share("EGPlus.alpha", self.alpha, 1)

    def begin(self, saddle: Saddle, z: Tensor, streams: Streams | None = None) -> State:
        """The state before the first step."""
        return State(saddle.project(z), 0, (), streams)

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        gamma = resolve_step(self.step_size, saddle, state.t, state.z, "EGPlus")
        value = estimate(saddle, state, state.z, 0)
        ahead = saddle.project(state.z - gamma * value)
        change = ahead - state.z - gamma * (estimate(saddle, state, ahead, 1) - value)
        return state.moved(state.z + self.alpha * change)


@dataclass(frozen=True)
class AdaptiveEGPlus(PerRow):
    r"""EG+ whose second step is as long as the two gradients allow, row by row.

    alpha = delta / gamma + <w - z, H(w) - H(z)> / \|H(w) - H(z)\|^2, and z+ = z + relax alpha (H(w) - H(z)).
    Converges for rho >= delta, delta in (-gamma / 2, 0].

    Args:
        step_size: gamma, at most 1 / L.
        delta: a lower bound of rho; as a number, or a text in gamma.
        relax: in (0, 2).

    Reference: Pethick et al., ICLR 2022, Algorithm 1. Lecture: row G1.
    """

    template: ClassVar[Template] = PLAYERS
    moves: ClassVar[str] = "both at once, by the gradient one step ahead, as far as a hyperplane allows"
    calls: ClassVar[float] = 2

    step_size: Number = "1/L"
    delta: Number = "-0.99*gamma/2"
    relax: float = 1.0

    def __post_init__(self) -> None:
        check_share("AdaptiveEGPlus.relax", self.relax, 2)

    def begin(self, saddle: Saddle, z: Tensor, streams: Streams | None = None) -> State:
        """The state before the first step."""
        return State(saddle.project(z), 0, (), streams)

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        gamma = resolve_step(self.step_size, saddle, state.t, state.z, "AdaptiveEGPlus")
        value = estimate(saddle, state, state.z, 0)
        ahead = saddle.project(state.z - gamma * value)
        change = ahead - state.z - gamma * (estimate(saddle, state, ahead, 1) - value)
        share = _delta(self.delta, gamma) / gamma
        return state.moved(state.z + self.relax * _longest(ahead - state.z, change, share) * change)


@dataclass(frozen=True)
class CurvatureEGPlus(PerRow):
    r"""Adaptive EG+ whose first step is as long as the curvature at z allows, row by row.

    gamma begins at nu / \|J(z)\|_2, with J the Jacobian of F (`jacobian_norm`), and shrinks by tau until
    gamma \|F(w) - F(z)\| <= nu \|w - z\|. Long steps where F is flat are what lets it pass limit cycles; no Lipschitz
    constant is needed.

    Args:
        nu: share of the local Lipschitz constant, in (0, 1).
        tau: factor of the line search, in (0, 1).
        relax: in (0, 2).
        delta: a lower bound of rho; a number, or a text in gamma.

    Reference: Pethick et al., ICLR 2022, CurvatureEG+. Lecture: row G1.
    """

    template: ClassVar[Template] = PLAYERS
    moves: ClassVar[str] = "both at once, by the gradient a long step ahead, as far as a hyperplane allows"
    calls: ClassVar[float] = 4  # in two dimensions; the line search comes on top

    nu: float = 0.99
    tau: float = 0.5
    relax: float = 1.0
    delta: Number = "-0.99*gamma/2"

    def __post_init__(self) -> None:
        check_share("CurvatureEGPlus.nu", self.nu, 1)
        check_share("CurvatureEGPlus.tau", self.tau, 1)
        check_share("CurvatureEGPlus.relax", self.relax, 2)

    def begin(self, saddle: Saddle, z: Tensor, streams: Streams | None = None) -> State:
        """The state before the first step."""
        return State(saddle.project(z), 0, (), streams)

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        z, value = state.z, saddle(state.z)
        gamma, ahead, there = self._look(saddle, z, value)
        change = ahead - z - gamma * (there - value)
        share = _delta(self.delta, gamma) / gamma
        return state.moved(z + self.relax * _longest(ahead - z, change, share) * change)

    def _look(self, saddle: Saddle, z: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gamma (batch, 1), the point ahead and F there."""
        norm = jacobian_norm(saddle.operator, z)
        gamma = self.nu / norm.clamp_min(1e-6)  # where F is constant, a step of a million
        for _ in range(_ROUNDS):
            ahead = saddle.project(z - gamma * value)
            there = saddle(ahead)
            too_long = gamma * _norm(there - value) > self.nu * _norm(ahead - z) * (1 + 1e-12)
            if not bool(too_long.any()):
                return gamma, ahead, there
            gamma = torch.where(too_long, self.tau * gamma, gamma)
        raise InputError(
            f"CurvatureEGPlus: expected F to be Lipschitz, got changes faster than its Jacobian allows after {_ROUNDS} "
            "halvings of the step; is F differentiable there, without NaN?"
        )


@dataclass(frozen=True)
class BCSEGPlus(PerRow):
    """Stochastic EG+ whose bias is corrected, for weak Minty problems seen through noise.

    With fresh samples xi and xi' of F in each step, h = z - gamma F(z, xi) + (1 - beta)(h- - z- + gamma F(z-, xi)),
    where h- and z- are those of the step before, w = P(h), and z+ = z - alpha (h - w + gamma F(w, xi')); in all of
    space that is z - alpha gamma F(w, xi'). beta = 1 is stochastic EG+, which keeps a noise floor under constraints.

    Args:
        step_size: gamma, fixed; at most 1 / L.
        alpha: of the second step: a number, or a text in t that falls to 0.
        beta: of the correction: likewise, in (0, 1]; "alpha" is the same as alpha.

    Reference: Pethick et al., ICLR 2023, Algorithms 1 and 2. Lecture: row G1.
    """

    template: ClassVar[Template] = PLAYERS
    moves: ClassVar[str] = "both at once, by the noisy gradient one bias-corrected step ahead"
    calls: ClassVar[float] = 3

    step_size: Number = "0.5/L"
    alpha: Number = "0.055/(t/100+1)**0.5"
    beta: Number = "alpha"

    def begin(self, saddle: Saddle, z: Tensor, streams: Streams | None = None) -> State:
        """The state before the first step."""
        return State(saddle.project(z), 0, (), streams)

    def step(self, saddle: Saddle, state: State) -> State:
        """One step."""
        z = state.z
        gamma = resolve_step(self.step_size, saddle, state.t, z, "BCSEGPlus")
        alpha = rowwise(number(self.alpha, t=state.t), z)
        beta = rowwise(number(self.beta, t=state.t, alpha=alpha), z)
        h = z - gamma * estimate(saddle, state, z, 0)
        if state.memory:
            before, ahead_before = state.memory
            h = h + (1 - beta) * (ahead_before - before + gamma * estimate(saddle, state, before, 0))
        ahead = saddle.project(h)
        moved = z - alpha * (h - ahead + gamma * estimate(saddle, state, ahead, 1))
        return state.moved(moved, z, h)


def check_share(what: str, value: float, most: float) -> None:
    """Refuse a number outside (0, most].

    Raises:
        InputError: see above.
    """
    if not 0 < value <= most:
        raise InputError(f"{what}: expected a number in (0, {most}], got {value!r}; see `danskin show` for defaults")


def jacobian_norm(F: Operator, z: Tensor, iterations: int = 8) -> Tensor:
    r"""(batch, 1): \|J(z)\|_2; exactly in up to 8 dimensions, else from below, by the power method on J J^T.

    The power method starts at fixed vectors, so that the same row gives the same number in any batch. J u is the
    derivative of v -> J^T v in the direction u: no forward mode is needed.
    """
    if z.shape[1] <= _FEW:
        J = jacobian(F, z).nan_to_num(0, 0, 0)  # of rows that have diverged
        square = torch.linalg.eigvalsh(J @ J.mT)[:, -1:]
        return square.clamp_min(0).sqrt()
    ramp = torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device)
    v = (1 + 0.3 * (7 * ramp).sin()).expand_as(z)
    v = v / _norm(v)
    for _ in range(iterations):
        v = push(F, z, pull_back(F, z, v))
        v = v / _norm(v).clamp_min(1e-30)
    return _norm(pull_back(F, z, v))


def push(F: Operator, z: Tensor, u: Tensor) -> Tensor:
    """J(z) u row by row, by two backward passes."""
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        value = F(point)
        if not value.requires_grad:
            return torch.zeros_like(z)
        v = torch.zeros_like(value).requires_grad_()
        (pulled,) = torch.autograd.grad(value, point, v, create_graph=True, allow_unused=True)
        if pulled is None:
            return torch.zeros_like(z)
        (out,) = torch.autograd.grad(pulled, v, u)
    return out


def _delta(delta: Number, gamma: Any) -> Any:
    return number(delta, gamma=gamma)


def _longest(ahead: Tensor, change: Tensor, share: Any) -> Tensor:
    """(batch, 1): delta / gamma + <w - z, H(w) - H(z)> / |H(w) - H(z)|^2; 0 at a solution."""
    square = change.square().sum(1, keepdim=True)
    step = (ahead * change).sum(1, keepdim=True) / torch.where(square > 0, square, 1.0)
    return torch.where(square > 0, step + share, 0.0)


def _norm(v: Tensor) -> Tensor:
    """(batch, 1)."""
    return torch.linalg.vector_norm(v, dim=1, keepdim=True)
