"""`danskin play`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer


def play(
    game: str,
    words: list[str],
    solvers: list[str],
    step: str | None,
    steps: int | None,
    starts: int,
    seed: int,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run solvers on a game; table on stdout, warnings on stderr."""
    from danskin.files import check_folder, new_folder
    from danskin.run.play import play_of, played, spurious
    from danskin.run.play_measures import is_of_measures, measure_play_of, played_measures

    words = [*words, *([f"step_size={step}"] if step else [])]
    measures = is_of_measures(game, solvers)
    chosen: Any
    if measures:
        chosen = measure_play_of(game, solvers or ["particles"], words, steps, starts, seed)
    else:
        chosen = play_of(game, solvers or ["gda", "extragradient"], words, steps, starts, seed)
    folder = out or new_folder(Path("runs") / "play" / game)
    check_folder(folder)
    shown = sys.stderr.isatty() and not quiet

    def listen(solver: str, t: int) -> None:
        if shown:
            print(f"\r{solver}: step {t} of {chosen.steps}   ", end="", file=sys.stderr, flush=True)

    result = played_measures(chosen, folder, listen) if measures else played(chosen, folder, listen)
    if shown:
        print(file=sys.stderr)
    if as_json:
        typer.echo(json.dumps(result | {"run": str(folder)}))
    elif measures:
        _show_measures(result, folder)
    else:
        _show(result, folder)
    if not quiet and not measures:
        for sentence in spurious(result):
            print(f"danskin: warning: {sentence}", file=sys.stderr)


def _show_measures(result: dict[str, Any], folder: Path) -> None:
    typer.echo(f"{_head(result)}: {result['says']}")
    for name, found in result["solvers"].items():
        gap = found["gap"]
        bound = "" if gap["bound"] is None else f", the true one at most {gap['bound']:.2g}"
        value = "" if result["value"] is None else f" (the game's value: {result['value']:g})"
        typer.echo(
            f"{name}: {result['particles']} particles each, {result['steps']} steps, {found['seconds']:.1f} s\n"
            f"  gap found {gap['found']:.2g}{bound}; at most {found['largest_late_gap']:.2g} in the last quarter\n"
            f"  payoff {found['payoff']:.4f}{value}"
        )
        for player in "xy":
            parts = [f"{weight:.3f} at {position:+.3f}" for position, weight in found[player]]
            typer.echo(f"  {player}: " + ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" * (len(parts) > 8)))
    typer.echo(f"run:    {folder}\nfigures: {folder / 'figures'}")


def _head(result: dict[str, Any]) -> str:
    """The game with its settings."""
    settings = ", ".join(f"{k}={v}" for k, v in result["parameters"].items() if not isinstance(v, list))
    return f"{result['game']}({settings})"


def _show(result: dict[str, Any], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    typer.echo(f"{_head(result)}: {result['says']}")
    constants = [("L", result["lipschitz"]), ("weak Minty rho", result["weak_minty"])]
    told = [f"{name} = {value:.5g}" for name, value in constants if value is not None]
    if result["weak_minty_on_grid"] is not None:
        told.append(f"weak Minty rho at most {result['weak_minty_on_grid']:.5g} (on a grid)")
    typer.echo(", ".join(told) or "no constants known")
    table = Table(title=f"{result['starts']} starts, {result['steps']} steps", title_justify="left")
    gap = any(found["gap"] for found in result["solvers"].values())
    far = any(found["distance"] for found in result["solvers"].values())
    heads = ["solver", "step", "how they ended", "residual"]
    heads += ["distance", "distance of average"] * far + ["gap", "gap of average"] * gap + ["calls of F", "s"]
    for head in heads:
        table.add_column(head, justify="left" if head in ("solver", "how they ended") else "right")
    for name, found in result["solvers"].items():
        ended = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in sorted(found["outcomes"].items()))
        cells = [name, "–" if found["step"] is None else f"{found['step']:.4g}", ended, _spread(found["residual"])]
        cells += [_spread(found["distance"]), _spread(found["distance_of_average"])] * far
        cells += [_spread(found["gap"]), _spread(found["gap_of_average"])] * gap
        table.add_row(*cells, str(found["calls"]), f"{found['seconds']:.1f}")
    console.print(table, highlight=False)
    typer.echo("Numbers are medians over the starts, with the least and the largest.")
    for name, found in result["solvers"].items():
        if "predicted_radius" in found:
            tail = found["tail"]
            typer.echo(
                f"{name}: the step-size law puts the cycle at radius {found['predicted_radius']:.4f}; the last quarter "
                f"was at {tail['median']:.4f}"
            )
        if "certificate" in found:
            typer.echo(f"{name}: {_certificate(found['certificate'])}")
    typer.echo(f"run:    {folder}\nfigures: {folder / 'figures'}")


_CLASSES = {
    "bilinear": "bilinear games",
    "monotone": "monotone F",
    "constrained": "monotone F on convex sets",
    "weak_minty": "F with this weak Minty parameter",
}


def _certificate(found: dict[str, Any]) -> str:
    n, bound, measured = len(found["bounds"]), found["bounds"][-1], found["measured"][-1]
    what = "squared residual over L^2" if found["measure"] == "residual" else "squared distance"
    held = "below the bound at each of them" if found["holds"] else "ABOVE THE BOUND: a fault of danskin, please report"
    return (
        f"certificate (PEPit, {_CLASSES[found['kind']]}): after {n} steps the {what} is at most {bound:.4f} of the "
        f"first squared distance; measured {measured:.4f}, {held}"
    )


def _spread(found: dict[str, float] | None) -> str:
    if found is None:
        return "–"
    text = f"{found['median']:.3g}"
    return text if found["min"] == found["max"] else f"{text} ({found['min']:.2g} to {found['max']:.2g})"
