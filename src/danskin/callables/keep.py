"""The state of modules as it was found, and putting it back; one thread at a time on a module."""

from __future__ import annotations

import copy
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from danskin.errors import InputError

_INTERNAL = frozenset(nn.Module().__dict__)


class Found:
    """A snapshot of modules, and the way back to it.

    Kept are training flags, `track_running_stats`, `requires_grad` and which tensor stands under which name of
    parameters; with `buffers` which tensor stands under which name of buffers, its values and shape, and extra state;
    with `attributes` booleans and floating-point tensors in plain attributes. Not kept are values of parameters,
    other objects, and integers, of tensors too: such attributes count.

    Args:
        modules: all of them, parts included.
        buffers: keep buffers; False where they are meant to change.
        attributes: keep plain attributes.
    """

    def __init__(self, modules: Sequence[nn.Module], *, buffers: bool = True, attributes: bool = True) -> None:
        plain = [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]
        scripted = [m for m in modules if isinstance(m, torch.jit.ScriptModule)] if buffers else []
        self._flags = [(m, getattr(m, "training", None), getattr(m, "track_running_stats", None)) for m in modules]
        self._trained = [p for m in modules for p in m.parameters(recurse=False) if p.requires_grad and p.is_leaf]
        tables = [m._parameters for m in plain] + ([m._buffers for m in plain] if buffers else [])
        self._tables: list[tuple[dict[str, Any], dict[str, Any]]] = [(now, dict(now)) for now in tables]
        self._attributes = [(vars(m), dict(vars(m))) for m in plain] if attributes else []
        self._scripted = [(m, dict(m.named_buffers(recurse=False))) for m in scripted]
        held = [b for m in plain for b in m._buffers.values()] if buffers else []
        held += [b for _, names in self._scripted for b in names.values()]
        held += [was[name] for _, was in self._attributes for name in was.keys() - _INTERNAL if _kept(was[name], True)]
        unique = {id(t): t for t in held if t is not None and not t.is_meta}
        self._values = [(t, t.detach().clone()) for t in unique.values()]
        self._extra = [(m, copy.deepcopy(m.get_extra_state())) for m in modules if buffers and _has_extra_state(m)]

    def freeze(self) -> None:
        """Parameters do not require gradients."""
        for p in self._trained:
            _require(p, False)

    def restore(self) -> None:
        """Put everything back; may be called again, after it was interrupted."""
        for p in self._trained:
            _require(p, True)
        for m, training, track in self._flags:
            if training is not None and m.training != training:  # frozen TorchScript has none
                m.training = training
            if track is not None and m.track_running_stats != track:
                m.track_running_stats = track
        for now, was in self._tables:
            if not _same(now, was):
                _rebind(now, was, set(was) | set(now))
        for now, was in self._attributes:
            if not _same(now, was):
                both = {name for name in set(now) | set(was) if _kept(now.get(name)) or _kept(was.get(name))}
                _rebind(now, was, both - _INTERNAL)
        for m, names in self._scripted:
            for name, buffer in names.items():
                if getattr(m, name) is not buffer:
                    setattr(m, name, buffer)
        for tensor, value in self._values:
            _put_back(tensor, value)
        for m, extra in self._extra:
            m.set_extra_state(copy.deepcopy(extra))


def _require(parameter: Tensor, flag: bool) -> None:
    with torch.inference_mode(parameter.is_inference()):  # else torch does not give it back to an inference tensor
        parameter.requires_grad_(flag)


def _kept(value: Any, tensor: bool = False) -> bool:
    """Whether a plain attribute is put back: a floating-point tensor, or a boolean."""
    if isinstance(value, bool):
        return not tensor
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _same(now: dict[str, Any], was: dict[str, Any]) -> bool:
    """The same objects in the same order."""
    return len(now) == len(was) and all(map(operator.is_, now.values(), was.values()))


def _rebind(now: dict[str, Any], was: dict[str, Any], names: set[str]) -> None:
    """The same objects under these names, and none where there was none."""
    for name in names:
        if name not in was:
            now.pop(name, None)
        elif name not in now or now[name] is not was[name]:
            now[name] = was[name]


def _put_back(tensor: Tensor, value: Tensor) -> None:
    """The values and the shape, in place; untouched where nothing has changed."""
    if tensor.shape == value.shape and _equal(tensor, value):
        return
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        if tensor.shape != value.shape:
            tensor.resize_(value.shape)
        tensor.copy_(value)


def _equal(a: Tensor, b: Tensor) -> bool:
    try:
        return torch.equal(a, b)
    except (RuntimeError, NotImplementedError):  # layouts that cannot be compared
        return False


def _has_extra_state(module: nn.Module) -> bool:
    return type(module).get_extra_state is not nn.Module.get_extra_state


def surely(restore: Callable[[], None]) -> None:
    """Run to the end what can be run again, also when somebody presses Ctrl-C meanwhile."""
    try:
        restore()
    except KeyboardInterrupt:
        surely(restore)
        raise


_turn = threading.Condition()
_owners: dict[int, tuple[int, set[object]]] = {}  # module -> the thread on it, and each of its entries
_waits: dict[int, int] = {}  # thread -> the one that it waits for


@contextmanager
def alone(modules: Sequence[nn.Module]) -> Iterator[None]:
    """This thread alone works on these modules, whose flags are one for all; others wait for their turn.

    Raises:
        InputError: two threads that already hold a model each wait for the other's.
    """
    me, entry, names = threading.get_ident(), object(), [id(m) for m in modules]

    def leave() -> None:
        with _turn:
            for n in names:
                if n in _owners:
                    _owners[n][1].discard(entry)
                    if not _owners[n][1]:
                        del _owners[n]
            _turn.notify_all()

    try:
        with _turn:
            while (other := next((t for t in (_owners.get(n, (me,))[0] for n in names) if t != me), None)) is not None:
                _wait_for(me, other)
            for n in names:
                _owners.setdefault(n, (me, set()))[1].add(entry)
        yield
    finally:
        surely(leave)


def _wait_for(me: int, other: int) -> None:
    last = other
    while last in _waits and last != me:
        last = _waits[last]
    if last == me:
        raise InputError(
            "model: expected threads that wait for one another in turn, got two that each hold a model and want the "
            "other's; attack the models one after the other, or give each thread a copy (copy.deepcopy)"
        )
    _waits[me] = other
    try:
        _turn.wait()
    finally:
        del _waits[me]
