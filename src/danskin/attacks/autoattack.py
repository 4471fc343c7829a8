"""AutoAttack: the compositions that robustness figures are quoted for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

from torch import Tensor

from danskin.attacks.apgd import APGD, MultiTargeted
from danskin.attacks.attack import Attack
from danskin.attacks.bounds import Ball
from danskin.attacks.checks import DataBox
from danskin.attacks.fab import FAB, FABT
from danskin.attacks.payoff import ShiftPayoff
from danskin.attacks.square import Square
from danskin.errors import InputError
from danskin.losses import get_loss
from danskin.minmax import BestOf, Cost, Maximizer, Maximum, Set, Status, Streams
from danskin.minmax.intersection import order_of
from danskin.minmax.reading import read_ball
from danskin.minmax.rows import PerRow
from danskin.minmax.search import Payoff, look

Version = Literal["standard", "plus", "rand"]


def stages(
    ball: Ball, version: Version = "standard", *, box: DataBox = (0, 1), width: int | None = None
) -> dict[str, Attack]:
    """The attacks of a composition by name, in their order, with the published budgets; each stops at a success.

    standard: APGD on cross-entropy, APGD-T (9 targets; 5 for l1), FAB-T (9 targets), Square (5,000 queries), 100 steps
    each. plus: APGD on cross-entropy and on DLR with 5 restarts, FAB with 5, Square, APGD-T, FAB-T. rand: APGD on
    cross-entropy and on DLR, gradients averaged over 20 draws. For l1, APGD has 5 restarts.

    Reference: Croce and Hein, ICML 2020, §5 and the released code; for l1 ICML 2021, §5.
    """
    if version not in get_args(Version):
        raise InputError(f"version: expected one of {', '.join(get_args(Version))}, got {version!r}; pick one")
    ball = read_ball(ball)
    l1 = order_of(ball) == 1
    common = {"box": box, "width": width}
    ce = APGD(ball, restarts=5 if l1 or version == "plus" else 1, stop=True, **common)  # type: ignore[arg-type]
    if version == "rand":
        ce = replace(ce, restarts=1, draws=20)
        return {"apgd-ce": ce, "apgd-dlr": replace(ce, loss="dlr")}
    targeted = MultiTargeted(ball, classes=5 if l1 else 9, stop=True, **common)  # type: ignore[arg-type]
    fab_t = FABT(ball, stop=True, **common)  # type: ignore[arg-type]
    square = Square(ball, stop=True, **common)  # type: ignore[arg-type]
    if version == "standard":
        return {"apgd-ce": ce, "apgd-t": targeted, "fab-t": fab_t, "square": square}
    fab = FAB(ball, restarts=5, stop=True, **common)  # type: ignore[arg-type]
    dlr = replace(ce, loss="dlr")
    return {"apgd-ce": ce, "apgd-dlr": dlr, "fab": fab, "square": square, "apgd-t": targeted, "fab-t": fab_t}


@dataclass(frozen=True)
class _Stage(PerRow):
    """One attack of a composition under its own loss; its outcome is valued by the composition's."""

    attack: Attack
    inner: Maximizer

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        if not isinstance(f, ShiftPayoff):
            raise InputError("AutoAttack: expected the payoff of an attack, got another function; call the attack")
        if not self.attack.applies_to(f.x):
            value, settled, _ = look(f, y0, False)
            return Maximum(y0, value, settled, Cost(len(y0), 0, 1), Status.DONE)
        found = self.inner(f.with_loss(get_loss(self.attack.loss)), y0, Y, generator)
        value, _, _ = look(replace(f, asking=replace(f.asking, confirm=False)), found.y, False)
        return replace(found, value=value, cost=found.cost + Cost(len(y0), 0, 1))


@dataclass(frozen=True)
class AutoAttack(Attack):
    """The ensemble of Croce and Hein as one attack: each member works on what the ones before left standing.

    For a verdict on a whole data set prefer `danskin.evaluation.evaluate`, which also says what broke what, keeps a
    journal and spends less. Any number of classes >= 2, any box, any input shape (Square only looks at images).

    Args:
        ball: the perturbation ball.
        version: "standard", "plus" or "rand" (for models that are random).
        width: examples in the batch at a time; changes nothing but memory and time.
    """

    moves: ClassVar[str] = "an ensemble, one after the other"

    version: Version = "standard"
    width: int | None = None
    stop: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version == "rand" and self.draws == 1:
            object.__setattr__(self, "draws", 20)

    def maximizer(self) -> Maximizer:
        """The members in their order, on survivors."""
        members = stages(self.ball, self.version, box=self.box, width=self.width)
        return BestOf(tuple(_Stage(member, member.maximizer()) for member in members.values()), stop=True)
