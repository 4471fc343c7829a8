"""`danskin lipschitz`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer


def lipschitz(
    spec: str,
    only: str | None,
    weights: Path | None,
    arguments: list[str],
    statistics: tuple[str | None, str | None],
    shape: str | None,
    data: str | None,
    norm: str,
    budget: float,
    methods: list[str],
    at: str | None,
    radius: float | None,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Bounds of each model; a table, or JSON."""
    from danskin.run.lipschitz import measured, opened
    from danskin.run.runtime import Runtime

    runtime = Runtime.start(device)
    try:
        found = opened(spec, only, weights, arguments, statistics, shape, data, runtime.device)
        results = []
        for one in found:
            table = measured(one, norm, budget, methods, at, radius, seed)
            results.append({"model": one.name} | table.to_plain())
            if not as_json:
                _show(one.name, table)
        if as_json:
            typer.echo(json.dumps(results[0] if len(results) == 1 else results))
    finally:
        runtime.close()


_SAYS = {"lower": "L >=", "upper": "L <=", "estimate": "about"}


def _show(name: str, found: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    norm = "l2" if found.norm == 2 else "l_inf"
    title = f"{name}: {norm} Lipschitz constant, {found.domain}"
    table = Table(title=title, title_justify="left")
    for head in ("bound", "value", "method", "kind", "s"):
        table.add_column(head, justify="right" if head in ("value", "s") else "left")
    for b in found.bounds:
        kind = "estimate, no certificate" if b.kind == "estimate" else f"certified {b.kind}"
        table.add_row(_SAYS[b.kind], f"{b.value:.6g}", b.method, kind, f"{b.seconds:.2f}")
    console.print(table, highlight=False)
    equal = "so it is known" if found.exact else f"a factor of {found.upper.value / max(found.lower.value, 1e-300):.7g}"
    typer.echo(f"{found.lower.value:.6g} <= L <= {found.upper.value:.6g}: {equal}. {found.seconds:.1f} s.")
    for method, why in found.skipped:
        typer.echo(f"skipped {method}: {why}")
    told = {a for b in found.bounds for a in b.assumptions}
    for assumption in sorted(told):
        typer.echo(f"note: {assumption}")
