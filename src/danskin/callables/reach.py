"""Which modules and tensors a callable can reach: closures, bound objects, attributes, containers, globals by name."""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
import types
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

_PLAIN = frozenset({bool, int, float, complex, str, bytes, bytearray, type(None), range, slice})
_INTERNAL = frozenset(nn.Module().__dict__)  # what torch itself keeps there
_LIBRARIES = frozenset(sys.stdlib_module_names) | {"torch", "numpy", "builtins"}
_STANDARD = sysconfig.get_paths()["stdlib"]
_MOST = 100_000  # things looked at; far above what a model takes, so that a huge list cannot stall an attack


@dataclass(frozen=True, eq=False)
class Reach:
    """What is behind a callable.

    Args:
        roots: modules that are part of no other one found before.
        modules: these and all their parts, each once.
        tensors: held outside of modules' parameters and buffers.
    """

    roots: tuple[nn.Module, ...]
    modules: tuple[nn.Module, ...]
    tensors: tuple[Tensor, ...]


def reach(model: Any) -> Reach:
    """The modules and tensors that calling `model` may use, found without calling it.

    Followed are: parts of modules, and attributes and hooks in which a module keeps others unregistered; closures,
    defaults and attributes of functions, what they wrap, and the globals that their code names; bound objects;
    `functools.partial`; attributes, slots and classes of objects; lists, tuples, sets, mappings, weak references.
    Globals are not followed through code of installed packages, nor attributes of the standard library's, torch's
    and numpy's objects. A model behind a name that is built while it runs, or in another process, is not found.
    """
    seen: dict[int, Any] = {}  # holds what it has seen, so that an id stays whose it was
    roots: list[nn.Module] = []
    modules: dict[int, nn.Module] = {}
    tensors: list[Tensor] = []
    todo: deque[Any] = deque([model])
    while todo and len(seen) < _MOST:
        thing = todo.popleft()
        if type(thing) in _PLAIN or id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, Tensor):
            tensors.append(thing)
        elif isinstance(thing, nn.Module):
            if id(thing) not in modules:
                roots.append(thing)
            for part in thing.modules():
                if id(part) not in modules:
                    modules[id(part)] = part
                    todo.extend(_beside(part))
        else:
            todo.extend(_inside(thing))
    return Reach(tuple(roots), tuple(modules.values()), tuple(tensors))


def _beside(module: nn.Module) -> Iterator[Any]:
    """What a module holds without having registered it."""
    held = vars(module)
    for value in [held[name] for name in held if name not in _INTERNAL]:
        if type(value) is tuple and all(type(part) in _PLAIN for part in value):  # a kernel size
            continue
        if type(value) not in _PLAIN:
            yield value
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        yield from hooks.values()
    for base in _own_bases(type(module)):  # type: ignore[arg-type]
        yield from vars(base).values()


def _inside(thing: Any) -> Iterable[Any]:
    """What a thing that is neither tensor nor module holds."""
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, list | tuple | set | frozenset | deque):
        return thing
    if isinstance(thing, types.FunctionType):
        return _of_function(thing)
    if isinstance(thing, types.MethodType):
        return (thing.__self__, thing.__func__)
    if isinstance(thing, functools.partial):
        return (thing.func, thing.args, thing.keywords, vars(thing))
    if isinstance(thing, staticmethod | classmethod):
        return (thing.__func__,)
    if isinstance(thing, property):
        return (thing.fget,)
    if isinstance(thing, functools.cached_property):
        return (thing.func,)
    if isinstance(thing, weakref.ref):
        return (thing(),)
    if isinstance(thing, types.ModuleType | type):
        return ()
    return _of_object(thing)


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that has no value yet
            continue
    yield function.__defaults__
    yield function.__kwdefaults__
    yield from vars(function).values()
    if not _installed(function.__code__.co_filename, str(function.__globals__.get("__name__"))):
        for first, *rest in _globals_of(function.__code__):
            value = function.__globals__.get(first)
            for name in rest:
                if not isinstance(value, types.ModuleType):
                    break
                value = vars(value).get(name)
            yield value


def _of_object(thing: Any) -> Iterator[Any]:
    kind = type(thing)
    if kind.__module__.partition(".")[0] in _LIBRARIES:
        yield getattr(thing, "__wrapped__", None)  # functools.lru_cache and the like
        return
    yield from getattr(thing, "__dict__", {}).values()
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                yield getattr(thing, name, None)
    for base in _own_bases(kind):  # type: ignore[arg-type]
        yield from vars(base).values()


@functools.lru_cache(4096)
def _own_bases(kind: type) -> tuple[type, ...]:
    """Somebody's own classes behind a class, up to those of installed packages: their methods may name globals."""
    files = ((base, getattr(sys.modules.get(base.__module__), "__file__", None)) for base in kind.__mro__)
    return tuple(base for base, file in files if not _installed(file or "", base.__module__))


@functools.lru_cache(4096)
def _installed(file: str, module: str) -> bool:
    root = module.partition(".")[0]
    packages = "site-packages" in file or "dist-packages" in file
    return root in _LIBRARIES or root == "danskin" or packages or (bool(file) and file.startswith(_STANDARD))


@functools.lru_cache(4096)
def _globals_of(code: types.CodeType) -> tuple[tuple[str, ...], ...]:
    """The globals that code names, each with the attributes that are taken of it: ("net",), ("mynets", "net")."""
    chains: list[list[str]] = []
    open_chain = False
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            chains.append([step.argval])
            open_chain = True
        elif open_chain and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chains[-1].append(step.argval)
        else:
            open_chain = False
    inner = (part for part in code.co_consts if isinstance(part, types.CodeType))
    return (*(tuple(chain) for chain in chains), *(chain for part in inner for chain in _globals_of(part)))
