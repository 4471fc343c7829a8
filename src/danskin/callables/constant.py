"""While weights are known not to change, what is computed from them alone is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

_HELD: ContextVar[dict[int, tuple[nn.Module, Tensor]] | None] = ContextVar("danskin_constant_weights", default=None)


@contextmanager
def constant_weights() -> Iterator[None]:
    """A promise that no parameter changes inside: an attack, an evaluation. What was computed before is not used.

    Unlike `torch.nn.utils.parametrize.cached` it belongs to one thread and to the innermost of nested contexts.
    """
    token = _HELD.set({})
    try:
        yield
    finally:
        _HELD.reset(token)


def once(module: nn.Module, make: Callable[[], Tensor]) -> Tensor:
    """What `make` computes from the parameters of a module; the same tensor again inside `constant_weights`.

    Values that carry a gradient to the parameters are never kept: a second backward pass would find no graph.
    """
    held = _HELD.get()
    if held is None:
        return make()
    if id(module) not in held:
        value = make()
        if value.requires_grad:
            return value
        held[id(module)] = (module, value)
    return held[id(module)][1]
