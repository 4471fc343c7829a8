"""A lecture row as a recipe: what is trained, at which scale, and what is looked at afterwards.

`recipe.yaml` of a row has a base config and a section for each scale that is laid over it; `cases` (such as two radii)
are laid over that, each trained by itself. LECTURE rows C4, C7, C8, C10, C14, C15.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from danskin.attacks import ATTACKS, Attack
from danskin.errors import ConfigError, suggest
from danskin.recipes.scales import Scaled, scaled
from danskin.run.config import TrainConfig, config_of
from danskin.run.recipe import merged, read_mapping
from danskin.run.schema import build, plain

#: Folders of the rows that can be reproduced, by the row's id.
FOLDERS = {path.parent.name.upper(): path.parent for path in sorted(Path(__file__).parent.glob("*/recipe.yaml"))}
#: Folders of the rows that are studies of games (`danskin.recipes.game_study`).
STUDIES = {path.parent.name.upper(): path.parent for path in sorted(Path(__file__).parent.glob("*/games.yaml"))}
#: Folders of the rows of distributions: a function that makes a cell, in cells.py (`danskin.recipes.sampling_study`).
CELLS = {path.parent.name.upper(): path.parent for path in sorted(Path(__file__).parent.glob("*/cells.py"))}
#: Folders of the rows that are carried out in a way of their own: `plan_of` in plan.py, `run_study` in study.py, and
#: `estimate` of the work in cost.py.
OWN = {path.parent.name.upper(): path.parent for path in sorted(Path(__file__).parent.glob("*/study.py"))}
#: Of all of them.
ALL = FOLDERS | STUDIES | CELLS | OWN
#: Rows that another row's recipe shows.
SHOWN_BY = {"C7": "C8", "C11": "C10", "C12": "C14", "C13": "C14"}
#: All rows that are here, with what each shows and the command that shows it.
LECTURE = Path(__file__).parent / "lecture" / "rows.yaml"


@dataclass(frozen=True)
class Column:
    """One thing to look at in finished weights.

    Args:
        name: of the column.
        attack: accuracy at the points it finds; None with `suite` and `measure` None is clean accuracy.
        suite: robust accuracy under a suite of `danskin.evaluation.suites`: right without and under every attack.
        measure: "misalignment" of gradients in the training ball, or of the loss in the weights, on training examples:
            "eigenvalue" (the Hessian's largest), "trace", "m-sharpness".
        examples: the first so many test examples; None for all.
    """

    name: str
    attack: Attack | None = None
    suite: str | None = None
    measure: str | None = None
    examples: int | None = None

    @property
    def unit(self) -> str:
        """Of its values: "share" or "number"."""
        return "number" if self.measure else "share"


@dataclass(frozen=True)
class Plan:
    """A row at a scale, resolved.

    Args:
        row: its id.
        title: what it shows, in a few words.
        scale: smoke, small or full.
        says: what this scale can and cannot show.
        status: "not run" where nobody has run it.
        seeds: how many; they count from 0.
        cases: config of each, with seed 0; the label is "" where there is only one.
        names: of the methods, for tables.
        columns: of each case.
        weights: which weights are looked at: best, last or both.
        per_class: whether the worst class is reported beside each accuracy.
        early: epochs whose validation accuracy is reported.
    """

    row: str
    title: str
    scale: str
    says: str
    status: str
    seeds: int
    cases: dict[str, TrainConfig]
    names: dict[str, str]
    columns: dict[str, tuple[Column, ...]]
    weights: tuple[str, ...]
    per_class: bool
    early: tuple[int, ...]

    @property
    def folder(self) -> Path:
        """Where the recipe, the claims and the figures of the row are."""
        return FOLDERS[self.row]

    def config(self, case: str, seed: int) -> TrainConfig:
        """The config of one run."""
        return replace(self.cases[case], seed=seed)

    def tasks(self) -> list[tuple[str, int]]:
        """(case, seed) of all runs."""
        return [(case, seed) for seed in range(self.seeds) for case in self.cases]

    def to_plain(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain data."""
        return {
            "row": self.row,
            "scale": self.scale,
            "seeds": self.seeds,
            "weights": list(self.weights),
            "per_class": self.per_class,
            "early": list(self.early),
            "cases": {label: plain(config) for label, config in self.cases.items()},
            "columns": {label: [_column_text(c) for c in columns] for label, columns in self.columns.items()},
        }


def _column_text(column: Column) -> str:
    what = column.suite or column.measure or ("clean" if column.attack is None else repr(column.attack))
    return f"{column.name}: {what}" + (f" on {column.examples}" if column.examples else "")


def row_named(name: str) -> str:
    """The row whose recipe shows `name`.

    Raises:
        ConfigError: there is none, with the nearest one.
    """
    known = SHOWN_BY.get(name.upper(), name.upper())
    elsewhere = read_mapping(LECTURE).get(known)
    if known not in FOLDERS and elsewhere is not None:
        raise ConfigError(
            f"reproduce: expected a lecture row with a recipe, got {name!r}; it is shown by: {elsewhere['command']}"
        )
    if known not in FOLDERS:
        raise ConfigError(
            f"reproduce: expected a lecture row with a recipe, got {name!r}; {suggest(name.upper(), [*ALL, *SHOWN_BY])}"
        )
    return known


def plan_of(name: str, scale: str = "smoke", seeds: int | None = None) -> Plan:
    """The plan of a row at a scale.

    Args:
        name: the row's id.
        scale: smoke, small or full.
        seeds: how many, in place of the recipe's own number.

    Raises:
        ConfigError: no such row or scale, or a recipe that does not fit.
    """
    row = row_named(name)
    return _resolved(row, scaled(FOLDERS[row] / "recipe.yaml", scale, seeds))


def _resolved(row: str, read: Scaled) -> Plan:
    node, part = read.node, read.part
    base = merged({"name": f"{row.lower()}-{read.scale}", **node["base"]}, part.get("set", {}))
    base["objectives"] = _chosen(node["methods"], part.get("methods"))
    base.setdefault("evaluation", {"attacks": ["fgsm"], "curve": [], "pictures": 0})
    cases, columns = {}, {}
    for label, over in (part.get("cases") or node.get("cases") or {"": {}}).items():
        case = merged(base, {k: v for k, v in over.items() if k != "objectives"})
        changed = {k: v for k, v in (over.get("objectives") or {}).items() if k in case["objectives"]}
        case["objectives"] = merged(case["objectives"], changed)
        label = str(label)
        cases[label] = config_of(_with_balls(case))
        chosen = _chosen(node["columns"], part.get("columns"))
        columns[label] = tuple(_column(name, spec, case["attack"]["ball"]) for name, spec in chosen.items())
    return Plan(
        row=row,
        title=read.title,
        scale=read.scale,
        says=read.says,
        status=read.status,
        seeds=read.seeds,
        cases=cases,
        names=read.names(base["objectives"]),
        columns=columns,
        weights=tuple(node.get("weights", ("best", "last"))),
        per_class=bool(node.get("per_class", False)),
        early=tuple(part.get("early", node.get("early", ()))),
    )


def _chosen(table: dict[str, Any], names: Any) -> dict[str, Any]:
    """The entries of a table: all, those in a list of names, or those of a mapping laid over them."""
    if names is None:
        return dict(table)
    over = names if isinstance(names, Mapping) else {}
    unknown = [name for name in names if name not in table]
    if unknown:
        raise ConfigError(f"recipe: expected names from {', '.join(table)}, got {unknown[0]!r}; correct the scale")
    return {name: merged(table[name], over[name]) if over.get(name) else table[name] for name in names}


def _with_balls(case: dict[str, Any]) -> dict[str, Any]:
    """The attacks of monitor and evaluation are on the case's ball where they name none."""
    ball = {"ball": case["attack"]["ball"]}

    def full(attack: Any) -> Any:
        return ball | ({"name": attack} if isinstance(attack, str) else attack)

    out = dict(case)
    if out.get("monitor"):
        out["monitor"] = full(out["monitor"])
    if "attacks" in out["evaluation"]:
        out["evaluation"] = out["evaluation"] | {"attacks": [full(a) for a in out["evaluation"]["attacks"]]}
    return out


def _column(name: str, spec: Any, ball: Any) -> Column:
    node: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    examples = node.pop("examples", None)
    if node.get("name") == "clean":
        return Column(name, examples=examples)
    if node.get("name") in ATTACKS:
        return Column(name, build(Attack, {"ball": ball} | node, f"columns.{name}"), examples=examples)
    return Column(name, suite=node.get("suite"), measure=node.get("measure"), examples=examples)
