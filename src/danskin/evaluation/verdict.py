"""The verdict: what is left of a model's accuracy, example by example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from danskin.attacks.bounds import Ball
from danskin.attacks.checks import DataBox
from danskin.errors import InputError
from danskin.evaluation.certificates.tried import Tried
from danskin.evaluation.journal import ROBUST, WRONG
from danskin.evaluation.masking import Diagnosis, Flag
from danskin.evaluation.standing import NOT_TO_QUOTE, OF_OUTCOMES, standing
from danskin.metrics import Share
from danskin.metrics.per_class import PerClass
from danskin.minmax import Cost
from danskin.minmax.data_box import box_from_list, box_to_list, same_box
from danskin.minmax.written import ball_from_dict, ball_to_dict


@dataclass(frozen=True)
class Stage:
    """One attack of a suite and what came of it.

    Args:
        name: its name in the suite.
        attack: how it was set up.
        seen: examples it was let loose on: those that nothing before it had broken.
        broken: how many of them it broke.
        cost: what it spent.
        left_out: why it was not run at all; empty if it was.
    """

    name: str
    attack: str
    seen: int
    broken: int
    cost: Cost
    left_out: str = ""


@dataclass(frozen=True, eq=False)
class Verdict:
    """Robust accuracy, between what attacks left standing and what certificates guarantee.

    Quote `robust` with its interval and the suite: it is an upper bound of the true robust accuracy, `certified` a
    lower one.

    Args:
        suite: its name.
        ball: the perturbations.
        box: valid data.
        seed: of the attacks.
        stages: the attacks in their order.
        index: (n,) numbers of the examples in the data.
        y: (n,) labels.
        broken_by: (n,) int64: -1 nothing, 0 wrong without attack, k the k-th stage.
        probability: (n,) share of draws in which the model errs at the worst point found; 0 or 1 for a model that is
            not random.
        certificates: (n,) bool, the examples with a certificate; None if none was asked for.
        method: of the certificate.
        certifying: what each method of the certificate was asked, and what it proved.
        budget: multiplications that the certificate of one example could cost; infinite where there was no limit.
        flags: reasons to doubt.
        points: (n, ...) the worst inputs found, clean ones where nothing broke them; None unless asked for.
        diagnosis: the look at the model for masked gradients; its flags are among `flags`. None if there was none.
    """

    suite: str
    ball: Ball
    box: DataBox
    seed: int
    stages: tuple[Stage, ...]
    index: Tensor
    y: Tensor
    broken_by: Tensor
    probability: Tensor
    certificates: Tensor | None = None
    method: str = ""
    certifying: tuple[Tried, ...] = ()
    budget: float = math.inf
    flags: tuple[Flag, ...] = ()
    points: Tensor | None = None
    diagnosis: Diagnosis | None = None

    @property
    def outcomes(self) -> Tensor:
        """(n,) bool: right without attack and under every attack."""
        return self.broken_by == ROBUST

    @property
    def clean(self) -> Share:
        """Accuracy without attack."""
        return Share.of(self.broken_by != WRONG)

    @property
    def robust(self) -> Share:
        """Accuracy under the strongest attack for each example: the upper bound."""
        return Share.of(self.outcomes)

    @property
    def certified(self) -> Share | None:
        """The share of examples that provably no perturbation breaks: the lower bound."""
        return None if self.certificates is None else Share.of(self.certificates)

    @property
    def expected(self) -> float:
        """Mean over examples and draws of being right at the worst points: robust accuracy of a random model."""
        return float(1 - self.probability.double().mean()) if len(self.y) else math.nan

    @property
    def by_attack(self) -> dict[str, Share]:
        """Robust accuracy after each stage, the ones before it included."""
        return {
            stage.name: Share.of((self.broken_by == ROBUST) | (self.broken_by > k))
            for k, stage in enumerate(self.stages, 1)
        }

    @property
    def per_class(self) -> PerClass:
        """Clean and robust accuracy of each class, and the worst one."""
        return PerClass.of(self.y, self.broken_by != WRONG, self.outcomes)

    @property
    def cost(self) -> Cost:
        """All that was spent, the diagnosis included."""
        return sum((stage.cost for stage in self.stages), self.diagnosis.cost if self.diagnosis else Cost())

    @property
    def quotable(self) -> bool:
        """False where a flag says that what was judged is not the model as it was meant."""
        return not any(flag.name in NOT_TO_QUOTE for flag in self.flags)

    @staticmethod
    def merge(parts: Sequence[Verdict]) -> Verdict:
        """One verdict from those of disjoint shards of the data.

        Raises:
            InputError: they answer different questions, or share examples.
        """
        first = parts[0]
        if any(
            (p.suite, repr(p.ball), p.seed) != (first.suite, repr(first.ball), first.seed)
            or not same_box(p.box, first.box)
            for p in parts
        ):
            raise InputError(
                "verdicts: expected the same suite, ball, box and seed, got different ones; merge like with like"
            )
        index = torch.cat([p.index for p in parts])
        if len(index.unique()) != len(index):
            raise InputError("verdicts: expected disjoint examples, got some twice; shard the data")
        order = index.argsort()

        def joined(name: str) -> Any:
            each = [getattr(p, name) for p in parts]
            return None if any(t is None for t in each) else torch.cat(each)[order]

        stages = tuple(
            replace(
                same[0],
                seen=sum(s.seen for s in same),
                broken=sum(s.broken for s in same),
                cost=sum((s.cost for s in same), Cost()),
            )
            for same in zip(*(p.stages for p in parts), strict=True)
        )
        names = ("index", "y", "broken_by", "probability", "certificates", "points")
        whole: dict[str, Any] = {name: joined(name) for name in names}
        clean = standing(whole["y"], whole["broken_by"] != WRONG)  # of all, not of a shard
        seen = {f.name: f for p in parts for f in p.flags if f.name not in OF_OUTCOMES} | {f.name: f for f in clean}
        looks = [p.diagnosis for p in parts if p.diagnosis]
        diagnosis = replace(looks[0], cost=sum((d.cost for d in looks), Cost())) if looks else None
        return replace(first, stages=stages, flags=tuple(seen.values()), diagnosis=diagnosis, **whole)

    def to_dict(self) -> dict[str, Any]:
        """All but the points, as JSON."""
        per_class = self.per_class
        return {
            "suite": self.suite,
            **ball_to_dict(self.ball),
            "box": box_to_list(self.box),
            "seed": self.seed,
            "n": len(self.y),
            "clean": self.clean.to_dict(),
            "robust": self.robust.to_dict(),
            "certified": self._certified_json(),
            "expected": self.expected,
            "stages": [asdict(s) | {"robust_after": self.by_attack[s.name].to_dict()} for s in self.stages],
            "per_class": [
                {"class": k, "clean": c.to_dict(), "robust": r.to_dict()}
                for k, (c, r) in enumerate(zip(per_class.clean, per_class.robust, strict=True))
                if c.n
            ],
            "flags": [asdict(flag) for flag in self.flags],
            "quotable": self.quotable,
            "diagnosis": None if self.diagnosis is None else {**asdict(self.diagnosis), "flags": self.diagnosis.names},
            "cost": asdict(self.cost),
            "outcomes": {
                "index": self.index.tolist(),
                "label": self.y.tolist(),
                "broken_by": self.broken_by.tolist(),
                "probability": self.probability.tolist(),
                "certified": None if self.certificates is None else self.certificates.tolist(),
            },
        }

    def _certified_json(self) -> dict[str, Any] | None:
        if self.certified is None:
            return None
        told = {"method": self.method, "by_method": [asdict(step) for step in self.certifying]}
        return self.certified.to_dict() | told | {"budget": self.budget if math.isfinite(self.budget) else None}

    @staticmethod
    def from_dict(found: dict[str, Any]) -> Verdict:
        """The verdict that `to_dict` wrote, without points."""
        rows, certified = found["outcomes"], found["outcomes"]["certified"]
        proofs = found["certified"] or {}
        stages = [{k: v for k, v in stage.items() if k != "robust_after"} for stage in found["stages"]]
        return Verdict(
            suite=found["suite"],
            ball=ball_from_dict(found),
            box=box_from_list(found["box"]),
            seed=found["seed"],
            stages=tuple(Stage(**(stage | {"cost": Cost(**stage["cost"])})) for stage in stages),
            index=torch.tensor(rows["index"], dtype=torch.int64),
            y=torch.tensor(rows["label"], dtype=torch.int64),
            broken_by=torch.tensor(rows["broken_by"], dtype=torch.int64),
            probability=torch.tensor(rows["probability"], dtype=torch.float64),
            certificates=None if certified is None else torch.tensor(certified, dtype=torch.bool),
            method=proofs.get("method", ""),
            certifying=tuple(Tried(**step) for step in proofs.get("by_method", ())),
            budget=proofs.get("budget") or math.inf,
            flags=(flags := tuple(Flag(**flag) for flag in found["flags"])),
            diagnosis=_diagnosis(found.get("diagnosis"), flags),
        )

    def __str__(self) -> str:
        lines = [f"clean accuracy      {self.clean}"]
        for stage in self.stages:
            after = self.by_attack[stage.name]
            what = stage.left_out or f"broke {stage.broken} of {stage.seen}"
            lines.append(f"after {stage.name:<13} {100 * after.value:.2f} %  ({what})")
        word = (
            f"<- the number to quote, with suite {self.suite!r}" if self.quotable else "<- not to be quoted, see below"
        )
        lines.append(f"robust accuracy     {self.robust}   {word}")
        if self.certified is not None:
            lines.append(f"certified at least  {self.certified}   ({self.method})")
            lines += [f"  {step}" for step in self.certifying if len(self.certifying) > 1]
        if self.diagnosis is not None:
            lines.append(f"looked for faults   {self.diagnosis}")
        lines += [f"{flag.level}: {flag.text}" for flag in self.flags]
        return "\n".join(lines)


def _diagnosis(found: dict[str, Any] | None, flags: tuple[Flag, ...]) -> Diagnosis | None:
    """From JSON; older verdicts have none."""
    if found is None:
        return None
    own = tuple(flag for flag in flags if flag.name in found["flags"])
    return Diagnosis(own, found["examples"], found["attacked"], Cost(**found["cost"]))
