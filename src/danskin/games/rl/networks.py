"""Stacks of small networks, one for each seed: a leading dimension of every parameter, one batched product a layer.

Ten networks of 64 units cost about as much as one of 640 and are as many training runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from danskin.minmax.random import Streams


class StackedLinear(nn.Module):
    r"""x W + b for each network of a stack: (n, batch, in) to (n, batch, out).

    Args:
        streams: one for each network; weights and biases are uniform in ±scale / sqrt(in).
        inputs: width of what comes in.
        outputs: width of what goes out.
        scale: of the initial weights.
    """

    def __init__(self, streams: Streams, inputs: int, outputs: int, scale: float = 1.0) -> None:
        super().__init__()
        n = len(streams.key)
        drawn = streams.uniform(torch.empty(n, inputs + 1, outputs)).mul_(2).sub_(1).mul_(scale / inputs**0.5)
        self.weight = nn.Parameter(drawn[:, :-1].clone())
        self.bias = nn.Parameter(drawn[:, -1:].clone())

    def forward(self, x: Tensor) -> Tensor:
        """(n, batch, in) to (n, batch, out)."""
        return torch.baddbmm(self.bias, x, self.weight)


class StackedMLP(nn.Module):
    """ReLU networks; the last layer starts small, so that first actions and values are near 0."""

    def __init__(self, streams: Streams, sizes: Sequence[int], last_scale: float = 0.01) -> None:
        super().__init__()
        last = len(sizes) - 2
        self.layers = nn.ModuleList(
            StackedLinear(streams.child(i), sizes[i], sizes[i + 1], last_scale if i == last else 1.0)
            for i in range(len(sizes) - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, batch, in) to (n, batch, out)."""
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class Actors(nn.Module):
    """Deterministic policies: observations (n, batch, o) to actions (n, batch, a) between `low` and `high`.

    Args:
        streams: one for each network.
        observation: width o.
        low: (a,) least actions.
        high: (a,) greatest actions.
        hidden: widths of the layers between.
    """

    middle: Tensor
    reach: Tensor

    def __init__(self, streams: Streams, observation: int, low: Tensor, high: Tensor, hidden: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("middle", ((low + high) / 2).float())
        self.register_buffer("reach", ((high - low) / 2).float())
        self.body = StackedMLP(streams, [observation, *hidden, len(low)])

    def forward(self, observation: Tensor) -> Tensor:
        """The actions, (n, batch, a)."""
        return self.middle + self.reach * torch.tanh(self.body(observation))

    def random(self, observation: Tensor, streams: Streams) -> Tensor:
        """Actions uniform in the range, of the shape that `forward` gives, whatever is observed.

        Args:
            observation: (n, batch, o).
            streams: one for each seed.
        """
        low, high = self.middle - self.reach, self.middle + self.reach
        return low + (high - low) * streams.uniform(observation.new_empty(*observation.shape[:-1], len(low)))


class Critics(nn.Module):
    """Action values: (n, batch, o), (n, batch, a) to (count, n, batch), by `count` independent networks a seed.

    Args:
        streams: one for each seed.
        observation: width o.
        action: width a.
        hidden: widths of the layers between.
        count: 2 for the twins of TD3, 1 for DDPG.
    """

    def __init__(self, streams: Streams, observation: int, action: int, hidden: Sequence[int], count: int) -> None:
        super().__init__()
        self.count = count
        keys = torch.cat([streams.child(i).key for i in range(count)])
        self.body = StackedMLP(Streams(keys), [observation + action, *hidden, 1])

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """The values of all, (count, n, batch)."""
        both = torch.cat([observation, action], -1)
        n, batch, width = both.shape
        found = self.body(both.expand(self.count, n, batch, width).reshape(-1, batch, width))
        return found.view(self.count, n, batch)

    def first(self, observation: Tensor, action: Tensor) -> Tensor:
        """The values of the first network of each seed alone, (n, batch): what the actors climb."""
        x, n = torch.cat([observation, action], -1), observation.shape[0]
        layers: list[Any] = list(self.body.layers)
        for i, layer in enumerate(layers):
            x = torch.baddbmm(layer.bias[:n], x, layer.weight[:n])
            x = torch.relu(x) if i < len(layers) - 1 else x
        return x[..., 0]
