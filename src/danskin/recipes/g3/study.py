"""Row G3: every method trained, returns over conditions, differences seed by seed. Lecture: row G3."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from danskin.metrics import bootstrap, cvar
from danskin.recipes.folder import begun, command_of, write_result
from danskin.recipes.g3.figures import draw
from danskin.recipes.g3.plan import RLPlan
from danskin.recipes.result import result_of
from danskin.report.reproduction import write_reproduction
from danskin.run.robust_rl import run_robust_rl
from danskin.run.schema import plain

RETURNS, DIFFERENCES = "returns", "differences, seed by seed"


def run_study(plan: RLPlan, out: Path, *, resume: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Train what is not trained, and write result.json, table.md, figures/ and report.html.

    Raises:
        ConfigError: the folder has content and `resume` is not set, or holds another plan.
        MissingError: gymnasium or mujoco is needed and not installed.
    """
    with begun(plan, out, resume):
        say(f"G3 at scale {plan.scale}: {plan.says}")
        runs = {}
        for label, config in plan.methods.items():
            say(f"{plan.names[label]}: {config.seeds} seeds, {config.schedule.steps} steps each")
            runs[label] = run_robust_rl(config, out / label)
        result = gathered(plan, runs)
        return write_result(out, result, lambda told: write_reproduction(out, told, draw(told), command_of(plan)))


def columns_of(run: dict[str, Any], tail: float) -> dict[str, Callable[[Tensor], Tensor]]:
    """Columns by name: from returns (..., seeds, conditions) to a number for each seed, or for all (CVaR)."""
    kinds = [c["kind"] for c in run["conditions"]]
    rows = {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in dict.fromkeys(kinds)}
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for kind, where in rows.items():
        found[kind if kind == "nominal" else f"{kind}, mean"] = partial(_mean, at=where)
        if kind != "nominal":
            found[f"{kind}, worst"] = partial(_worst, at=where)
    found[f"CVaR {tail:.0%} of seeds and conditions"] = partial(_tail, share=tail)
    return found


def _mean(values: Tensor, at: list[int]) -> Tensor:
    return values[..., at].mean((-2, -1))


def _worst(values: Tensor, at: list[int]) -> Tensor:
    return values[..., at].amin(-1).mean(-1)


def _tail(values: Tensor, share: float) -> Tensor:
    return cvar(values.flatten(-2), share)


def _between(values: Tensor, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    return statistic(values[..., 0, :]) - statistic(values[..., 1, :])


def gathered(plan: RLPlan, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What result.json holds."""
    returns = {label: torch.tensor(run["returns"], dtype=torch.float64) for label, run in runs.items()}
    columns = columns_of(next(iter(runs.values())), plan.tail)
    names = dict(plan.names) | {f"{a} - {b}": f"{plan.names[a]} minus {plan.names[b]}" for a, b in plan.pairs}
    numbers: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for column, statistic in columns.items():
        for label, values in returns.items():
            numbers[RETURNS, label, column, "-"] = _number(statistic, values)
        for a, b in plan.pairs:
            both = torch.stack([returns[a], returns[b]], 1)  # (seeds, 2, conditions): seeds stay pairs
            found = _number(partial(_between, statistic=statistic), both)
            numbers[DIFFERENCES, f"{a} - {b}", column, "-"] = found
    config = next(iter(plan.methods.values()))
    return result_of(
        plan,
        numbers,
        columns={RETURNS: list(columns), DIFFERENCES: list(columns)},
        configs={label: plain(config) for label, config in plan.methods.items()},
        methods=names,
        note=f"returns of {config.sweep.episodes} episodes, mean over {plan.seeds} seeds ± half of a 95 % bootstrap "
        "interval over seeds; higher is better",
        conditions=next(iter(runs.values()))["conditions"],
        returns={label: run["returns"] for label, run in runs.items()},
    )


def _number(statistic: Callable[[Tensor], Tensor], values: Tensor) -> dict[str, Any]:
    interval = list(bootstrap(statistic, values, draws=4000)) if len(values) > 1 else None
    kind = "bootstrap over seeds" if interval else None
    mean = float(statistic(values))
    return {"n": len(values), "mean": mean, "sd": None, "interval": interval, "interval_kind": kind, "unit": "number"}
