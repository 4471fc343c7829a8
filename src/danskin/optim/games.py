"""Optimisers for min-max problems: extragradient, optimistic and lookahead steps around any torch optimiser.

Both players live in one optimiser: the one that maximises is a group with ``maximize=True``, or has a base optimiser of
its own. What moves is the base's step (SGD, Adam, ...); what is here decides where its gradients are taken.

    opt = ExtraAdam([{"params": x}, {"params": y, "maximize": True}], lr=1e-3)

    def closure():
        value = phi(x, y)
        value.backward()
        return value

    opt.step(closure)

The same rules as pure steps on an operator are in `danskin.minmax.dynamics`. Lecture: row G1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.minmax import lists
from danskin.minmax.dynamics import PLAYERS
from danskin.optim.wrapper import Wrapper

Closure = Callable[[], Any]
_NOT, _AHEAD, _SKIPPED = 0, 1, -1  # where an extragradient step is; saved with it


class _Game(Wrapper):
    """What the optimisers of this file share: moved weights with what they were, and closures."""

    template = PLAYERS

    def _finite(self) -> bool:
        """Whether all gradients are; one answer, read once."""
        return math.isfinite(lists.norm([p.grad for p in self._moved() if p.grad is not None]))

    def _run(self, closure: Closure) -> Any:
        """Fresh gradients of the closure; what it returns."""
        self.zero_grad()
        with torch.enable_grad():
            loss = closure()
        if loss is None:
            raise InputError(
                f"{type(self).__name__}.step: expected the closure to return its loss, got None; end it with "
                "`return loss`"
            )
        return loss


class Extragrad(_Game):
    """Extragradient around any optimiser: one of its steps looks ahead, and a step by the gradients there counts.

    With w' = Base(w, g(w)), the new weights are Base(w, g(w')); both calls update the base's moments. Around SGD this
    is `danskin.minmax.Extragradient`. Two gradients a step. ``step(closure)`` takes both; in a loop of one's own,
    ``extrapolate()`` and ``step()`` come behind a backward pass each.

    Args:
        base: an optimiser, or several (one for each player); plain ones.

    Reference: Gidel et al., ICLR 2019, algorithms 1 and 4. Lecture: row G1.
    """

    moves = "a base optimiser, by the gradients one of its steps ahead"

    def __init__(self, base: Optimizer | Sequence[Optimizer]) -> None:
        super().__init__(base)
        self._told("extrapolated", _NOT)

    @torch.no_grad()
    def extrapolate(self) -> None:
        """Go one step of the base ahead, and keep where the weights were.

        Raises:
            InputError: called twice without a step between.
        """
        if self._told("extrapolated") != _NOT:
            raise InputError(
                "Extragrad.extrapolate: expected a step after the last call, got another call; call step()"
            )
        self._told("extrapolated", _AHEAD)
        if not self._finite():
            self._told("extrapolated", _SKIPPED)
            return
        before = [(p, p.detach().clone()) for p in self._moved()]
        self._step_bases()
        for p, was in before:  # behind the base, which sets up its state at its first step
            self._home(p)["anchor"] = was

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """With a closure, the whole step; without, its second half, behind `extrapolate` and a backward pass.

        Where a gradient is NaN or infinite the weights are left as they were and `skipped` counts; the base's moments
        keep what they saw of a good first pass. Both passes are seen by BatchNorm's buffers.

        Returns:
            What the closure returned first, at the weights before.

        Raises:
            InputError: no closure, and no `extrapolate` before.
        """
        loss = None
        if closure is not None:
            loss = self._run(closure)
            self.extrapolate()
            try:
                if self._told("extrapolated") == _AHEAD:
                    self._run(closure)
            except BaseException:
                self._return()
                raise
        if self._told("extrapolated") == _NOT:
            raise InputError("Extragrad.step: expected extrapolate() before, or a closure, got neither; pass a closure")
        looked = self._told("extrapolated") == _AHEAD
        self._return()
        ok = looked and self._finite()
        if ok:
            self._step_bases()
        self._count(ok)
        return loss

    def _return(self) -> None:
        """The weights where they were before `extrapolate`."""
        self._told("extrapolated", _NOT)
        for p in self._parameters():
            anchor = self.state[p].pop("anchor", None) if p in self.state else None
            if anchor is not None:
                p.copy_(anchor)


class Optimistic(_Game):
    """Optimistic steps around any optimiser: twice the base's move, less its move before.

    With d_t = Base(w_t, g(w_t)) - w_t, the new weights are w_t + 2 d_t - d_{t-1}; the first step is the base's. One
    gradient a step. Around SGD this is `danskin.minmax.OptimisticGDA`, around Adam optimistic Adam. Moves are kept, and
    d_{t-1} is rescaled where the learning rate has changed.

    Args:
        base: an optimiser, or several; plain ones.

    Reference: Daskalakis et al., ICLR 2018, algorithm 1. Lecture: row G1.
    """

    moves = "a base optimiser, twice its move less the last one"

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step, along the gradients that are there or those of the closure."""
        loss = None if closure is None else self._run(closure)
        ok = self._finite()
        self._count(ok)
        if not ok:
            return loss
        before = [(p, p.detach().clone()) for p in self._moved()]
        self._step_bases()
        rate = {p: (group, float(group["lr"])) for group in self.param_groups for p in group["params"]}
        for p, was in before:
            kept, move, (group, lr) = self._home(p), p - was, rate[p]
            last = group.get("last_lr", lr)
            p.add_(move - kept.get("move", move) * (lr / last if last else 0.0))
            kept["move"] = move
        for group in self.param_groups:
            group["last_lr"] = float(group["lr"])
        return loss


class LookaheadMinmax(_Game):
    """Lookahead for both players: after every k steps of the base, w = a + alpha (w - a) for all weights; then a = w.

    Args:
        base: an optimiser, also `Extragrad` or `Optimistic`; or several plain ones.
        k: steps between two pulls, at least 1.
        alpha: how far the anchor a follows, in (0, 1].

    Reference: Chavdarova et al., ICLR 2021, algorithm 1. Lecture: row G1.
    """

    moves = "a base optimiser, pulled back to an anchor every few steps"
    nests = True

    def __init__(self, base: Optimizer | Sequence[Optimizer], k: int = 5, alpha: float = 0.5) -> None:
        super().__init__(base)
        if k < 1 or k != int(k):
            raise InputError(f"LookaheadMinmax.k: expected a whole number of steps, at least 1, got {k!r}; 5 is usual")
        if not 0 < alpha <= 1:
            raise InputError(f"LookaheadMinmax.alpha: expected a number in (0, 1], got {alpha!r}; 0.5 is usual")
        if len(self._bases) > 1 and any(isinstance(one, Wrapper) for one in self._bases):
            raise InputError(
                "LookaheadMinmax: expected one Extragrad or Optimistic around all players, got several; put the "
                "players' optimisers into one: LookaheadMinmax(Extragrad([first, second]))"
            )
        self.k, self.alpha = int(k), float(alpha)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step of the base, and a pull where it is due."""
        new = [(p, p.detach().clone()) for p in self._parameters() if "slow" not in self.state.get(p, {})]
        skipped, loss = self.skipped, None
        if isinstance(self.base, Wrapper):
            loss = self.base.step(closure)
        else:
            loss = None if closure is None else self._run(closure)
            ok = self._finite()
            if ok:
                self._step_bases()
            self._count(ok)
        if self.skipped > skipped:
            return loss
        for p, was in new:
            if p.grad is not None:
                self._home(p)["slow"] = was
        if (self.steps - self.skipped) % self.k == 0:
            for p in self._parameters():
                slow = self.state.get(p, {}).get("slow")
                if slow is not None:
                    slow.lerp_(p, self.alpha)
                    p.copy_(slow)
        return loss


class ExtraAdam(Extragrad):
    """Extragradient around Adam.

    Args:
        params: as of `torch.optim.Adam`; the maximising player in a group with ``maximize=True``.
        options: of `torch.optim.Adam`.

    Reference: Gidel et al., ICLR 2019, algorithm 4. Lecture: row G1.
    """

    moves = "Adam, by the gradients one of its steps ahead"

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(torch.optim.Adam(params, **options))


class OptimisticAdam(Optimistic):
    """Optimistic steps of Adam.

    Args:
        params: as of `torch.optim.Adam`; the maximising player in a group with ``maximize=True``.
        options: of `torch.optim.Adam`.

    Reference: Daskalakis et al., ICLR 2018, algorithm 1. Lecture: row G1.
    """

    moves = "Adam, twice its move less the last one"

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(torch.optim.Adam(params, **options))


#: By the name that `danskin list optimizers` calls them. They are for two players and stand in no training recipe.
GAME_OPTIMIZERS = {
    "extra_adam": ExtraAdam,
    "optimistic_adam": OptimisticAdam,
    "extragrad": Extragrad,
    "optimistic_step": Optimistic,
    "lookahead_minmax": LookaheadMinmax,
}
