"""What a trace is read with: values that depend on the input, and what a rule makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from danskin.lipschitz.operations import Operation, Pair, Shape


@dataclass(frozen=True)
class Ref:
    """A value that depends on the input.

    Args:
        at: its place in the list of nodes.
        shape: for one example.
        batch: examples in the traced batch.
    """

    at: int
    shape: Shape
    batch: int


@dataclass(frozen=True)
class Places:
    """Where numbers came from that were sorted: a trace names it, and no rule takes it."""


Made: TypeAlias = "tuple[Operation, tuple[Made, ...]] | Ref"  # an operation and its inputs, or an input passed through
Rule = Callable[..., "Made | list[Made | Places]"]


class Unknown(Exception):
    """This operation, with these arguments, has no rule; the text says why."""


def wide(value: Tensor) -> Tensor:
    """A constant in float64."""
    return value.detach().double().contiguous()


def pair(value: Any, default: Pair = (1, 1)) -> Pair:
    """A number for both directions, or one for each."""
    value = list(value) if isinstance(value, list | tuple) else [value]
    return (value[0], value[-1]) if value else default


def reference(value: Any) -> Ref:
    """An operand that depends on the input."""
    if not isinstance(value, Ref):
        raise Unknown("its first operand does not depend on the input")
    return value


def constant(value: Any) -> Tensor:
    """An operand that does not."""
    if isinstance(value, Ref):
        raise Unknown("two values that depend on the input are multiplied")
    return value
