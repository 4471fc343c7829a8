"""What the shell offers when a word is begun: names from the catalogue, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable


def kinds(incomplete: str) -> list[str]:
    """What `danskin list` lists."""
    from danskin.cli import catalog

    return _begun_with(incomplete, catalog.kinds())


def names(incomplete: str) -> list[str]:
    """Of everything that `danskin show` shows."""
    from danskin.cli import catalog

    return _begun_with(incomplete, [*catalog.names(), "config"])


def rows(incomplete: str) -> list[str]:
    """Of the lecture, that `danskin reproduce` carries out."""
    from danskin.cli import catalog

    own = (row["name"] for row in catalog.listing("rows") if row["command"].startswith("danskin reproduce"))
    return _begun_with(incomplete, own)


def recipes(incomplete: str) -> list[str]:
    """Of `danskin train`."""
    return _of("recipes", incomplete)


def gan_recipes(incomplete: str) -> list[str]:
    """Of `danskin gan`."""
    return _of("gan_recipes", incomplete)


def games(incomplete: str) -> list[str]:
    """Of `danskin play`."""
    return _of("games", incomplete)


def solvers(incomplete: str) -> list[str]:
    """Of games."""
    return _of("solvers", incomplete)


def _of(kind: str, incomplete: str) -> list[str]:
    from danskin.cli import catalog

    return _begun_with(incomplete, catalog.names(kind))


def _begun_with(begun: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(begun)]
