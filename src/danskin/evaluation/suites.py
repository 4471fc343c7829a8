"""Suites: which attacks, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, get_args

from danskin.attacks.attack import Attack
from danskin.attacks.autoattack import Version, stages
from danskin.attacks.bounds import Ball
from danskin.attacks.checks import DataBox
from danskin.errors import InputError
from danskin.evaluation.deep import deep
from danskin.evaluation.fast import fast
from danskin.minmax.data_box import same_box

#: Suites by name, with what they are.
SUITES: dict[str, str] = {
    "standard": "AutoAttack standard: APGD on cross-entropy, APGD-T, FAB-T, Square, at the published budgets",
    "plus": "AutoAttack plus: six attacks with restarts",
    "rand": "for models that are random: APGD with gradients over 20 draws, judged over fresh draws",
    "fast": "the same verdict for about a sixth of the work; more of it on examples near the boundary",
    "deep": "standard, then up to 300 hops of eight chains on what it leaves; at most 15 times its work",
}
Suite = str | Sequence[Attack] | Mapping[str, Attack]


def suite_of(suite: Suite, ball: Ball, box: DataBox) -> tuple[str, dict[str, Attack]]:
    """(name, attacks by name) of a suite by name, or of attacks of the caller's own.

    Raises:
        InputError: an unknown name, no attack, or an attack on another ball or box than asked about.
    """
    if isinstance(suite, str):
        if suite in get_args(Version):
            return suite, stages(ball, suite, box=box)  # type: ignore[arg-type]
        if suite == "fast":
            return suite, fast(ball, box=box)
        if suite == "deep":
            return suite, deep(ball, box=box)
        raise InputError(f"suite: expected one of {', '.join(SUITES)} or attacks, got {suite!r}; pick one")
    named = dict(suite) if isinstance(suite, Mapping) else _named(suite)
    if not named:
        raise InputError("suite: expected at least one attack, got none; name a suite or pass attacks")
    for name, attack in named.items():
        if repr(attack.ball) != repr(ball) or not same_box(attack.box, box):
            raise InputError(
                f"suite: expected attacks on {ball} and box {box}, got {name} on {attack.ball} and {attack.box}; make "
                "them the same: the audit would refuse what it finds elsewhere"
            )
    return "own", named


def _named(attacks: Sequence[Attack]) -> dict[str, Attack]:
    named: dict[str, Attack] = {}
    for attack in attacks:
        name = type(attack).__name__.lower()
        same = sum(key.split("#")[0] == name for key in named)
        named[f"{name}#{same + 1}" if same else name] = attack
    return named


def adapted(attack: Attack, **settings: Any) -> Attack:
    """The attack with those of the settings that it has."""
    known = {f.name for f in fields(attack)}
    return replace(attack, **{key: value for key, value in settings.items() if key in known})


def pieces(attack: Attack, n: int, batch_size: int) -> int:
    """How many examples an attack gets at once: all, if it fills its batch by itself."""
    return n if "width" in {f.name for f in fields(attack)} else batch_size
