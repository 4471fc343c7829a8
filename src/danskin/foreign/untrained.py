"""Which weights of a model are still what a random generator drew: nobody loaded them, nobody trained them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from danskin.evaluation.masking import Flag

_DRAW_INTO = frozenset(
    f"{name}_" for name in "uniform normal random bernoulli exponential cauchy log_normal geometric".split()
)
_DRAW = frozenset("rand randn randint randperm rand_like randn_like randint_like normal bernoulli".split())
_FILL = frozenset("zero_ fill_ constant_ ones_ zeros_ eye_ dirac_".split())
_WRITE = frozenset("copy_ __setitem__ set_".split())
_SHAPE = frozenset(  # take from a tensor its shape only
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_tensor".split()
)
_TRAIN = frozenset(("backward", "grad"))


class Watch(TorchFunctionMode):
    """Follows random numbers from where they are drawn to where they are kept, while a model is being made.

    What is computed from them counts as drawn; what is copied over them counts no more. A gradient means training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trained = False
        self._drawn: dict[int, Any] = {}  # storages by their place: a tensor may change its own, and free this one

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what is asked, and look."""
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        self.trained |= name in _TRAIN
        given = (*args, *(kwargs or {}).values())
        if name in _FILL or (name in _WRITE and not self._any(given[1:])):
            self._drawn.pop(_memory(given[0]), None)
        elif name in _DRAW_INTO or getattr(func, "__module__", "") == "torch.nn.init":
            self._keep(given[:1])
        elif name in _DRAW or (name not in _SHAPE and self._any(given)):
            self._keep(result)
        return result

    def random(self, model: Any) -> list[str]:
        """Names of the parameters that are still as drawn."""
        if self.trained or not isinstance(model, nn.Module):
            return []
        return [name for name, p in model.named_parameters() if _memory(p) in self._drawn]

    def _keep(self, value: Any) -> None:
        self._drawn.update((_memory(x), _storage(x)) for x in _tensors(value) if _memory(x))

    def _any(self, value: Any) -> bool:
        return bool(self._drawn) and any(_memory(x) in self._drawn for x in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _storage(x: Any) -> Any:
    """What holds a tensor's numbers."""
    with torch._C.DisableTorchFunction():
        return x.untyped_storage()


def _memory(x: Any) -> int:
    """Where a tensor's numbers are; 0 where there are none."""
    try:
        return int(_storage(x).data_ptr())
    except (AttributeError, RuntimeError, NotImplementedError):  # sparse, on the meta device, no tensor at all
        return 0


def watched(make: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What `make` returns, and the names of its parameters that are random."""
    with Watch() as watch:
        model = make()
    return model, watch.random(model)


def random_weights(names: list[str] | None = None) -> tuple[Flag, ...]:
    """The flag for these parameters (None: all of them); nothing where there are none."""
    if names is not None and not names:
        return ()
    which = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
    text = (
        f"weights: random, as the factory made them{which}; the numbers say nothing of a trained model: give --weights"
    )
    return (Flag("random_weights", "warning", text, {"parameters": names or []}),)
