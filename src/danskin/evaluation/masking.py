"""Signs of masked gradients in what attacks have found, and the form in which doubts are told.

References: Athalye, Carlini and Wagner, ICML 2018 (section 3.1: signs of obfuscated gradients); Croce and Hein,
ICML 2020, whose code warns when its attack without gradients finds 0.2 % more.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import Cost

Level = Literal["note", "warning"]
_MORE = 0.002  # accuracy lower by more than this, and by two examples, is more than an accident (AutoAttack's 0.2 %)


@dataclass(frozen=True)
class Flag:
    """Something that was seen and should be known beside the verdict.

    Args:
        name: short and fixed, for machines.
        level: "warning" if the verdict may be wrong because of it, "note" otherwise.
        text: what was seen, why it matters, what to do.
        numbers: what was counted.
    """

    name: str
    level: Level
    text: str
    numbers: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.level}: {self.name}: {self.text}"


@dataclass(frozen=True)
class Diagnosis:
    """What a look at a model for masked gradients has seen, on how much, and what it cost.

    Args:
        flags: of the model itself first, then of attacks on it.
        examples: that the model itself was looked at on.
        attacked: that attacks were tried on; 0 where the budget did not reach.
        cost: passes and seconds.
    """

    flags: tuple[Flag, ...] = ()
    examples: int = 0
    attacked: int = 0
    cost: Cost = field(default_factory=Cost)

    @property
    def names(self) -> list[str]:
        """Of its flags."""
        return [flag.name for flag in self.flags]

    def __str__(self) -> str:
        passes = f"{self.cost.forwards} forwards, {self.cost.backwards} backwards, {self.cost.seconds:.2f} s"
        tried = f"attacks on {self.attacked}" if self.attacked else "no attacks"
        return f"the model on {self.examples} examples, {tried} ({passes})"


_BLACK_BOX = ("square", "noise", "random", "transfer", "boundary", "hop", "spsa", "nes", "simba", "gaussian")
_ONE_STEP = ("fgsm", "r-fgsm", "rs-fgsm", "n-fgsm", "single", "one-step", "onestep")


def flags_from_results(
    by_attack: Mapping[str, Tensor],
    *,
    black_box: Collection[str] | None = None,
    one_step: Collection[str] | None = None,
) -> tuple[Flag, ...]:
    """What the results of several attacks on the same examples say about gradients.

    Three signs of masking: an attack without gradients breaks examples that all attacks with gradients leave; one
    step breaks more than many; more steps of one attack break fewer. Each needs a difference of more than 0.2 % of
    the examples and of at least two of them. Results of attacks that were run on the survivors of earlier ones
    (False elsewhere) can only hide such signs, not fake them.

    Args:
        by_attack: per attack, (n,) bool: right without and under this attack.
        black_box: names of the attacks that use no gradients of this model; default: those whose name begins with
            "square", "random", "noise", "transfer", …
        one_step: names of the attacks that take one step; default: those whose name begins with "fgsm", …

    Raises:
        InputError: flags of different shapes or not bool, or names that are not among the attacks.
    """
    lengths = {tuple(flags.shape) for flags in by_attack.values()}
    if len(lengths) > 1 or any(f.dtype != torch.bool or f.ndim != 1 for f in by_attack.values()):
        raise InputError(
            f"by_attack: expected bool flags of one shape (n,), got shapes {sorted(lengths)} and dtypes "
            f"{sorted({str(f.dtype) for f in by_attack.values()})}; pass the flags of the same examples"
        )
    blind = _named(by_attack, black_box, _BLACK_BOX, "black_box")
    single = _named(by_attack, one_step, _ONE_STEP, "one_step") - blind
    robust = {name: flags.cpu() for name, flags in by_attack.items()}
    many = [name for name in robust if name not in blind | single]
    flags = [_blind_beats(robust, name, sorted(set(robust) - blind)) for name in robust if name in blind]
    flags += [_one_beats_many(robust, name, many) for name in robust if name in single]
    return tuple(f for f in [*flags, *_fewer_with_more_steps(robust, many)] if f is not None)


def not_finite(attacks: Collection[str]) -> tuple[Flag, ...]:
    """A flag where some of these attacks met partial derivatives that were NaN or infinite."""
    if not attacks:
        return ()
    text = (
        f"some partial derivatives were NaN or infinite under {', '.join(sorted(attacks))} and counted as 0: attacks "
        "are blind to these coordinates. Keep the model away from roots, logarithms and norms at 0, or trust attacks "
        "without gradients"
    )
    return (Flag("gradient_not_finite", "warning", text, {"attacks": sorted(attacks)}),)


def _named(
    by_attack: Mapping[str, Tensor], given: Collection[str] | None, known: tuple[str, ...], what: str
) -> set[str]:
    if given is None:
        return {name for name in by_attack if name.lower().replace("_", "-").startswith(known)}
    if missing := sorted(set(given) - set(by_attack)):
        raise InputError(
            f"{what}: expected names among {', '.join(by_attack)}, got {', '.join(missing)}; spell them as there"
        )
    return set(given)


def _enough(count: int, n: int) -> bool:
    return count > max(1, _MORE * n)


def _blind_beats(robust: Mapping[str, Tensor], name: str, guided: list[str]) -> Flag | None:
    if not guided:
        return None
    left = torch.stack([robust[g] for g in guided]).all(0)
    extra, n = int((left & ~robust[name]).sum()), len(left)
    if not _enough(extra, n):
        return None
    text = (
        f"{name}, which uses no gradients, breaks {extra} of the {int(left.sum())} examples (of {n}) that "
        f"{', '.join(guided)} leave; attacks with gradients should find these, so gradients are masked: count its "
        "successes, and give attacks with gradients other losses, more steps and restarts."
    )
    return Flag("black_box_beats_white_box", "warning", text, {"attack": name, "extra": extra, "n": n})


def _one_beats_many(robust: Mapping[str, Tensor], name: str, many: list[str]) -> Flag | None:
    if not many:
        return None
    best = min(many, key=lambda m: int(robust[m].sum()))
    more, n = int(robust[best].sum()) - int(robust[name].sum()), len(robust[name])
    # of an attack run on survivors only, examples are False that it never saw: these prove nothing
    if not _enough(more, n) or not _enough(int((robust[best] & ~robust[name]).sum()), n):
        return None
    text = (
        f"{name} leaves {int(robust[name].sum())} of {n} examples, {best} leaves {int(robust[best].sum())}: one step "
        "does better than many, so gradients mislead within the ball; use smaller steps, restarts and attacks without "
        "gradients."
    )
    return Flag("one_step_beats_iterative", "warning", text, {"attack": name, "against": best, "more": more, "n": n})


def _fewer_with_more_steps(robust: Mapping[str, Tensor], many: list[str]) -> list[Flag | None]:
    """Pairs of attacks whose names differ in the number of steps only: "PGD-10 linf 0.1", "PGD-40 linf 0.1"."""
    families: dict[str, list[tuple[int, str]]] = {}
    for name in many:
        if found := re.match(r"([A-Za-z_]+)-(\d+)(.*)", name):
            families.setdefault(found[1] + found[3], []).append((int(found[2]), name))
    flags: list[Flag | None] = []
    for members in families.values():
        members.sort()
        for (_, short), (_, long) in itertools.pairwise(members):
            more, n = int(robust[long].sum()) - int(robust[short].sum()), len(robust[long])
            if _enough(more, n):
                text = (
                    f"{short} leaves {int(robust[short].sum())} of {n} examples, {long} leaves "
                    f"{int(robust[long].sum())}: more steps find less, so gradients are noisy or mislead; repeat with "
                    "restarts, and with averaged gradients if the model is random."
                )
                flags.append(Flag("more_steps_hurt", "warning", text, {"short": short, "long": long, "more": more}))
    return flags
