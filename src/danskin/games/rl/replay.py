"""What was lived through, for each seed its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.random import Streams


class Batch(NamedTuple):
    """Transitions (n, batch, width): `terminal` is 1 where the world ended, 0 also where only time was up."""

    state: Tensor
    action: Tensor
    reward: Tensor
    following: Tensor
    terminal: Tensor


class Replay:
    """A ring of transitions for each of n seeds.

    Args:
        n: seeds.
        capacity: transitions kept for each.
        observation: width.
        action: width.
    """

    def __init__(self, n: int, capacity: int, observation: int, action: int) -> None:
        if capacity < 1:
            raise InputError(f"Replay: expected a capacity of at least 1, got {capacity}; as many as there are steps")
        self.capacity, self.widths = capacity, (observation, action, 1, observation, 1)
        self.content = torch.zeros(n, capacity, sum(self.widths))
        self.written = torch.zeros(n, dtype=torch.int64)

    def add(
        self, state: Tensor, action: Tensor, reward: Tensor, following: Tensor, terminal: Tensor, real: Tensor
    ) -> None:
        """Keep one transition for each seed.

        Args:
            state: (n, o) where the action was taken.
            action: (n, a) as executed.
            reward: (n,).
            following: (n, o) where it led, before any reset.
            terminal: (n,) bool; true where the world ended there, and nothing can follow. Not where time was up.
            real: (n,) bool; false where no action was executed, as in the step after an end that only resets.
        """
        rows = torch.nonzero(real)[:, 0]
        both = torch.cat([state, action, reward[:, None], following, terminal[:, None].to(state.dtype)], -1)
        self.content[rows, self.written[rows] % self.capacity] = both[rows].to(self.content.dtype)
        self.written[rows] += 1

    def sample(self, streams: Streams, batch: int) -> Batch:
        """`batch` transitions of each seed, drawn with replacement.

        Raises:
            InputError: a seed has none yet.
        """
        held = self.written.clamp(max=self.capacity)
        if not bool((held > 0).all()):
            raise InputError("Replay: expected transitions of every seed, got none of some; act before you learn")
        at = streams.integers(held, batch)
        found = torch.gather(self.content, 1, at[..., None].expand(-1, -1, self.content.shape[-1]))
        state, action, reward, following, terminal = found.split(self.widths, -1)
        return Batch(state, action, reward[..., 0], following, terminal[..., 0])

    def state_dict(self) -> dict[str, Any]:
        """What has been written, without the empty part."""
        return {"content": self.content[:, : int(self.written.max())].clone(), "written": self.written.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.content[:, : state["content"].shape[1]] = state["content"]
        self.written.copy_(state["written"])
