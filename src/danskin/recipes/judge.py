"""Look at finished weights, cell by cell; what was looked at is kept, so that nothing is looked at twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danskin.attacks.outcomes import outcomes
from danskin.data import to_float
from danskin.evaluation.suites import suite_of
from danskin.files import append_line, open_to_append, read_lines
from danskin.metrics import PerClass
from danskin.recipes.measures import OF_INPUTS, OF_WEIGHTS
from danskin.recipes.rows import Column
from danskin.run import checkpoint
from danskin.run.config import TrainConfig
from danskin.run.record import Record
from danskin.run.train import load_split, new_model

Cell = dict[str, Any]
FILE = "cells.jsonl"


def read_cells(folder: Path) -> list[Cell]:
    """The cells of a run; a line that a kill left half-written is not one."""
    path = folder / FILE
    return read_lines(path, ("method", "weights", "column")) if path.is_file() else []


def judge(
    config: TrainConfig,
    columns: tuple[Column, ...],
    weights: tuple[str, ...],
    record: Record,
    device: torch.device,
    listen: Callable[[dict[str, Any]], None],
) -> None:
    """Look at every method's weights in every column, and append what is seen to cells.jsonl.

    Args:
        config: of the run.
        columns: what to look at.
        weights: "best", "last".
        record: the run, trained.
        device: where to compute.
        listen: is told before each cell.
    """
    known = {(c["method"], c["weights"], c["column"]): c for c in read_cells(record.folder)}
    wanted = [(m, w, c) for m in config.objectives for w in weights for c in columns if (m, w, c.name) not in known]
    if not wanted:
        return
    split = load_split(config.data, config.seed, device)
    rows = (record.result() or {}).get("models", {})
    loaded: tuple[str, str] | None = None
    model: nn.Module = nn.Identity()
    with open_to_append(record.folder / FILE) as stream:
        for method, which, column in wanted:
            twin = known.get((method, "best", column.name))
            row = rows.get(method, {})
            if which == "last" and twin is not None and row.get("best_epoch") == row.get("epochs"):
                cell = twin | {"weights": "last"}
            else:
                if loaded != (method, which):
                    model = new_model(config, split.data, device)
                    checkpoint.load_weights(record.checkpoints(method) / f"{which}.safetensors", model)
                    loaded = method, which
                listen({"event": "evaluate", "model": method, "what": f"{column.name}, {which} weights"})
                classes = len(split.data.classes)
                cell = {"method": method, "weights": which, "column": column.name}
                data = split.train if column.measure in OF_WEIGHTS else split.test
                cell |= look(model.eval(), *data, column, config, classes)
            known[method, which, column.name] = cell
            append_line(stream, record.folder / FILE, cell)


def look(model: nn.Module, x: Tensor, y: Tensor, column: Column, config: TrainConfig, classes: int) -> Cell:
    """One column of one model: hits of n and of each class, or a mean; and what it cost."""
    x, y = x[: column.examples], y[: column.examples]
    started = time.perf_counter()
    if column.measure is not None:
        value, n = (OF_INPUTS | OF_WEIGHTS)[column.measure](model, x, y, config)
        return {"value": value, "n": n, "seconds": time.perf_counter() - started}
    correct, forwards, backwards = _correct(model, x, y, column, config)
    per_class = PerClass.of(y.cpu(), correct, correct, classes)
    return {
        "hits": int(correct.sum()),
        "n": len(correct),
        "per_class": [[share.hits, share.n] for share in per_class.clean],
        "forwards": forwards,
        "backwards": backwards,
        "seconds": time.perf_counter() - started,
    }


def _correct(model: nn.Module, x: Tensor, y: Tensor, column: Column, config: TrainConfig) -> tuple[Tensor, int, int]:
    """(n,) bool, forwards, backwards."""
    options: dict[str, Any] = {
        "batch_size": config.evaluation.batch_size,
        "seed": config.seed,
        "prepare": to_float,
    }
    if column.suite is None:
        found = outcomes(model, x, y, column.attack, **options)
        return found.correct, found.cost.forwards, found.cost.backwards
    found = outcomes(model, x, y, **options)
    cost = found.cost
    for attack in suite_of(column.suite, config.attack.ball, config.attack.box)[1].values():
        found = outcomes(model, x, y, attack, among=found.correct, **options)
        cost += found.cost
    return found.correct, cost.forwards, cost.backwards
