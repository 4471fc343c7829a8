"""The plan of a lecture row of games: cases (a game and its settings) and methods (a solver and its settings)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from danskin.recipes.rows import STUDIES
from danskin.recipes.scales import scaled
from danskin.run.play import Play, play_of
from danskin.run.recipe import merged


@dataclass(frozen=True)
class Study:
    """A row at a scale, resolved.

    Args:
        row: its id.
        title: what it shows, in a few words.
        scale: smoke, small or full.
        says: what this scale can and cannot show.
        status: "not run" where nobody has run it.
        seeds: how many; they count from 0.
        starts: of each run, in one batch, where a case has no number of its own.
        cases: label -> {game, settings, steps or calls (evaluations of F that a run may cost), starts, start (one point
            for all) or within (bounds of the random ones), marks (steps after which gaps are taken) or near (the l_inf
            distance that counts as at the solution), methods, figure}.
        methods: label -> {solver, settings, minimise}.
        names: of the methods, for tables.
    """

    row: str
    title: str
    scale: str
    says: str
    status: str
    seeds: int
    starts: int
    cases: dict[str, dict[str, Any]]
    methods: dict[str, dict[str, Any]]
    names: dict[str, str]

    def to_plain(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain data."""
        keys = ("row", "scale", "seeds", "starts", "cases", "methods")
        return {key: getattr(self, key) for key in keys}

    def tasks(self) -> Iterator[tuple[str, str, int]]:
        """(case, method, seed) of all runs."""
        for case, told in self.cases.items():
            for method in told["methods"]:
                for seed in range(self.seeds):
                    yield case, method, seed

    def play(self, case: str, method: str, seed: int) -> Play:
        """The game and the solver of a run."""
        told, way = self.cases[case], self.methods[method]
        words = [f"{k}={_word(v)}" for k, v in {**told.get("settings", {}), **way.get("settings", {})}.items()]
        if told.get("matrix_per_seed"):
            words.append(f"seed={seed}")
        n = told.get("starts", self.starts)
        play = play_of(told["game"], [way["solver"]], words, told.get("steps"), n, seed)
        if "calls" in told:
            (solver,) = play.solvers.values()
            play = replace(play, steps=max(1, round(told["calls"] / solver.calls)))
        return play

    def start(self, case: str, play: Play, n: int | None = None) -> Tensor:
        """(n, d) where a run of the case begins."""
        told, n = self.cases[case], n or play.starts
        if "start" in told:
            return torch.tensor(told["start"], dtype=torch.float64).repeat(n, 1)
        z = play.game.starts(n, play.seed)
        return z * (told["within"] / play.game.view[1]) if "within" in told else z


def _word(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def study_of(row: str, scale: str = "smoke", seeds: int | None = None) -> Study:
    """The study of a row at a scale.

    Raises:
        ConfigError: no such scale, or a recipe that does not fit.
    """
    read = scaled(STUDIES[row] / "games.yaml", scale, seeds)
    node, part = read.node, read.part
    everything = list(node["methods"])
    cases = {
        str(label): {"methods": everything}
        | merged(case, part.get("set", {}))
        | (part.get("cases") or {}).get(label, {})
        for label, case in node["cases"].items()
    }
    return Study(
        row=row,
        title=read.title,
        scale=scale,
        says=read.says,
        status=read.status,
        seeds=read.seeds,
        starts=part["starts"],
        cases=cases,
        methods=node["methods"],
        names=read.names(everything),
    )


def estimate(study: Study) -> str:
    """The work of a study in words."""
    return f"{len(list(study.tasks()))} runs, the starts of each in one batch"
