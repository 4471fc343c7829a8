"""`package.module:factory`: a model from code that the user named, and may therefore be run."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from danskin.errors import ConfigError, MissingError, ModelError
from danskin.foreign.words import first_line, near


def model_from_code(spec: str, arguments: dict[str, Any], what: str = "model", *, callable_needed: bool = True) -> Any:
    """The model (or other thing) that a factory makes, or a module instance found under the name.

    Args:
        spec: "package.module:name", or "package.module:Class.method".
        arguments: keywords for the factory.
        what: is made, in errors.
        callable_needed: refuse what cannot be called, as a model can.

    Raises:
        MissingError: there is no such module, or one that it imports.
        ConfigError: there is no such name in it, it is not callable, or takes other arguments.
        ModelError: the module or the factory raised, or returned something that is no model.
    """
    module_name, _, attribute = spec.partition(":")
    words = f"{module_name}.{attribute}".split(".")
    if module_name.endswith(".py") or not all(word.isidentifier() for word in words):
        dotted = ".".join(p for p in Path(module_name).with_suffix("").parts if p.isidentifier()) or "mynets"
        raise ConfigError(
            f"{what}: expected package.module:factory, got {spec!r}; write for example {dotted}:{attribute or 'make'}, "
            "and run from the folder that holds the package"
        )
    with _current_folder_first():
        found = _attribute(_module(module_name, spec), attribute, spec)
        if isinstance(found, nn.Module):
            if arguments:
                raise ConfigError(
                    f"{spec}: expected a factory to pass {', '.join(sorted(arguments))} to, got a module that is "
                    "made already; leave the arguments out"
                )
            return found
        return _made(found, spec, arguments, what) if callable_needed else _called(found, spec, arguments, what)


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """As `python -m` would find modules; only for the time of this import."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _module(name: str, spec: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        lacking = error.name or name
        if name == lacking or name.startswith(f"{lacking}."):
            raise MissingError(
                f"{spec}: expected a module {name}, got nothing called {lacking} in {Path.cwd()} or the environment",
                near(lacking.rpartition(".")[2], _modules_beside(lacking), "run from the folder that holds it"),
            ) from error
        raise MissingError(
            f"{spec}: {name} imports {lacking}, which is not installed", f"pip install {lacking.partition('.')[0]}"
        ) from error
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{spec}: expected to import {name}, got {first_line(error)}; see that `python -c 'import {name}'` works"
        ) from error


def _attribute(module: Any, attribute: str, spec: str) -> Any:
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n, v in vars(found).items() if not n.startswith("_") and callable(v)]
            raise ConfigError(
                f"{spec}: expected a name in {getattr(found, '__name__', type(found).__name__)}, got {part!r}; "
                + near(part, public, f"define {part} there")
            )
        found = getattr(found, part)
    return found


def _called(factory: Any, spec: str, arguments: dict[str, Any], what: str) -> Any:
    if not callable(factory):
        raise ConfigError(
            f"{spec}: expected a factory or a torch module, got {type(factory).__name__}; name a function that "
            f"returns the {what}"
        )
    _check_arguments(factory, spec, arguments)
    try:
        return factory(**arguments)
    except (Exception, SystemExit) as error:
        raise ModelError(f"{spec}: expected a {what}, got {first_line(error)}; correct the factory") from error


def _made(factory: Any, spec: str, arguments: dict[str, Any], what: str) -> Any:
    model = _called(factory, spec, arguments, what)
    if isinstance(model, type) or not callable(model):
        inside = f" of {', '.join(type(m).__name__ for m in model)}" if isinstance(model, tuple | list) else ""
        raise ModelError(
            f"{spec}: expected a model (a torch module, or a callable from inputs to logits), got "
            f"{type(model).__name__}{inside}; return the model only"
        )
    return model


def _check_arguments(factory: Any, spec: str, arguments: dict[str, Any]) -> None:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built in: it will say itself what it does not take
        return
    named = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in arguments:
            if key not in named:
                raise ConfigError(
                    f"{spec}: expected an argument of the factory, got {key!r}; {near(key, named, 'it takes none')}"
                )
    needed = [
        n
        for n, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and n not in arguments
    ]
    if needed:
        raise ConfigError(
            f"{spec}: expected a value for {', '.join(needed)}, got none; pass it as an argument of the model, or, if "
            f"{spec.rpartition(':')[2]} takes inputs and is itself the model, name a function that returns it"
        )


def _modules_beside(name: str) -> list[str]:
    """Names of modules in the folder where this one was looked for."""
    parent = name.rpartition(".")[0]
    if not parent:
        return [m.name for m in pkgutil.iter_modules([str(Path.cwd())])]
    package = sys.modules.get(parent)
    return [m.name for m in pkgutil.iter_modules(getattr(package, "__path__", []))]
