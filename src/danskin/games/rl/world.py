"""What the learner needs of the place where it acts: one world for each seed, stepped together."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from danskin.errors import InputError, ModelError


class Move(NamedTuple):
    """What came of one step of every world.

    Attributes:
        following: (n, o) the state that the action led to, before any reset.
        reward: (n,).
        terminated: (n,) bool: the world ended; nothing follows.
        truncated: (n,) bool: time was up; what follows is merely not seen, and its value counts.
        real: (n,) bool: false where the step only reset an ended world and no action was executed.
    """

    following: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    real: Tensor


class World(Protocol):
    """n worlds, one for each seed."""

    observation_size: int
    low: Tensor
    high: Tensor

    @property
    def observation(self) -> Tensor:
        """(n, o): what is seen now."""
        ...

    def step(self, action: Tensor) -> Move:
        """Execute (n, a) actions."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the future depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        ...


def check_actions(action: Tensor, rows: int, width: int) -> None:
    """See that there is one finite action for each world.

    Raises:
        InputError: another shape.
        ModelError: NaN or infinite.
    """
    if tuple(action.shape) != (rows, width):
        raise InputError(
            f"step: expected actions of shape ({rows}, {width}), one for each world, got {tuple(action.shape)}"
        )
    if not bool(action.isfinite().all()):
        raise ModelError("step: expected finite actions, got NaN or infinite ones; the policy diverged: lower lr")
