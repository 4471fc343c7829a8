"""A set of somebody's own, named on the command line or in a recipe by ``module:factory``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from danskin.errors import ConfigError
from danskin.foreign.factory import model_from_code
from danskin.minmax.measured import Wrapped


@dataclass(frozen=True, repr=False)
class OwnSet(Wrapped):
    """The set that a factory makes: ``{make: mysets:ellipsoid, arguments: {radius: 0.5}}``, or its name alone.

    Args:
        make: "package.module:factory".
        arguments: keywords for the factory.

    Raises:
        ConfigError: there is no such factory, or what it makes is no `Set`.
    """

    make: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        methods = ("project", "lmo", "steepest", "sample", "violation", "norm", "dual_norm", "rows")
        lacking = [m for m in methods if not callable(getattr(self.inner, m, None))]
        if lacking or isinstance(self.inner, type):
            raise ConfigError(
                f"{self.make}: expected a factory that returns a set, got {type(self.inner).__name__} without "
                f"{', '.join(lacking) or 'being made'}; docs/extending.md says what a set is"
            )

    @cached_property
    def inner(self) -> Any:
        """The set itself."""
        return model_from_code(self.make, dict(self.arguments), "set", callable_needed=False)


def names_code(text: str) -> bool:
    """Whether a text is module:factory."""
    module, _, name = text.partition(":")
    return bool(name) and all(word.isidentifier() for word in [*module.split("."), *name.split(".")])
