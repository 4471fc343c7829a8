"""Row F2: every method on every problem, judged beside the sampling floor. Lecture: rows F1 to F5, F7."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from danskin.errors import ConfigError, DivergenceError, MissingError
from danskin.recipes.cells import gathered as of_cells
from danskin.recipes.cells import over_seeds
from danskin.recipes.f2.figures import draw
from danskin.recipes.f2.plan import GANPlan, place
from danskin.recipes.folder import begun, command_of, write_result
from danskin.report.gan import write_gan_report
from danskin.report.reproduction import write_reproduction
from danskin.run.gan import GANConfig, train_gan
from danskin.run.record import Record, read_config
from danskin.run.runtime import Runtime

Judged = Mapping[str, Any]


def run_study(plan: GANPlan, out: Path, *, resume: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Train what is not trained, and write result.json, table.md, figures/ and report.html.

    Raises:
        ConfigError: the folder has content and `resume` is not set, or holds another plan.
        MissingError: the data are not there.
    """
    with begun(plan, out, resume, _check_plan):
        say(f"{plan.row} at scale {plan.scale}: {plan.says}")
        found = {}
        for case, method, seed in plan.tasks():
            say(f"{case}: {plan.names[method]}, seed {seed}")
            found[case, method, seed] = _run(plan.config(case, method, seed), out / place(case, method, seed))
        result = gathered(plan, found)
        return write_result(out, result, lambda told: write_reproduction(out, told, draw(plan, out), command_of(plan)))


def _check_plan(asked: dict[str, Any], known: dict[str, Any], out: Path) -> None:
    """More seeds, problems and methods are welcome; what is there must be as it was."""
    for case, methods in known.get("runs", {}).items():
        for method, config in methods.items():
            if asked["runs"].get(case, {}).get(method, config) != config:
                raise ConfigError(
                    f"{out}: expected what was begun there, got another plan ({case}, {method} differs); choose "
                    "another --out"
                )


def _run(config: GANConfig, folder: Path) -> dict[str, Any] | None:
    """What a run found, made or gone on with; None where it diverged, which is a result."""
    begun, known = (folder / "config.yaml").is_file(), (folder / "result.json").is_file()
    if begun and read_config(folder, GANConfig) != config:
        raise ConfigError(f"{folder}: expected a run of this very config, got another; choose another --out")
    if not begun:
        for left in folder.glob(".*.tmp"):  # by a kill in the middle of the first write
            left.unlink()
    record = Record.open(folder, GANConfig)[0] if begun else Record.create(config, folder.parent, folder)
    runtime = Runtime.start(config.device, config.threads, config.deterministic)
    try:
        result = train_gan(config, record, runtime)
    except DivergenceError:
        return None
    if not (known and (folder / "report.html").is_file()):
        with contextlib.suppress(MissingError):  # said once, for the row
            write_gan_report(folder)
    return result


def numbers_of(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Columns of a run: its numbers and its shares."""
    found = result["judged"]
    numbers: dict[str, float] = {"W1": found["w1"], "floor of W1": found["w1_floor"], "W2": found["w2"]}
    shares: dict[str, float] = {}
    if found["certified"] is not None:
        shares["share of W1 proved"] = found["certified"] / found["w1"]
    if covered := found.get("coverage"):
        shares["modes"] = covered["covered"] / covered["modes"]
        shares |= {"high quality": covered["high_quality"], "near": covered["near"]}
    else:
        classes = found["classes"]
        shares["classes"] = classes["covered"] / classes["classes"]
        numbers["density"] = found["manifold"]["density"]  # may be above 1
        shares |= {name: found["manifold"][name] for name in ("precision", "recall", "coverage")}
        for distance in (found.get("frechet") or {}).values():
            numbers |= {"Fréchet": distance["value"], "floor of Fréchet": distance["floor"]}
    shares["nearer to training data"] = found["copying"]["closer"]
    return {"numbers": numbers | {"seconds": result["seconds"]}, "shares": shares}


def gathered(plan: GANPlan, found: Mapping[tuple[str, str, int], Mapping[str, Any] | None]) -> dict[str, Any]:
    """What result.json holds; a run that diverged has no numbers."""
    cells = [
        {"case": case, "method": method, "seed": seed} | ({} if result is None else numbers_of(result))
        for (case, method, seed), result in found.items()
    ]
    return of_cells(
        plan,
        cells,
        configs=plan.to_plain()["runs"],
        note=_note(plan, found),
        diverged=[place(*task) for task, result in found.items() if result is None],
        flags={
            place(*task): [f["flag"] for f in result["flags"]]
            for task, result in found.items()
            if result is not None and result["flags"]
        },
    )


def _note(plan: GANPlan, found: Mapping[tuple[str, str, int], Mapping[str, Any] | None]) -> str:
    results = [result for result in found.values() if result is not None]
    sizes = sorted({result["judged"]["n"] for result in results})
    lost = len(found) - len(results)
    diverged = f"; {lost} runs diverged and are left out" if lost else ""
    networks = {name for result in results for name in result["judged"].get("frechet") or {}}
    features = f"; Fréchet distances on {', '.join(sorted(networks))}, not FID" if networks else ""
    return (
        f"exact distances of {' or '.join(map(str, sizes))} samples to as many held-out examples beside that of real "
        f"examples to each other; {over_seeds(plan)} (t over seeds); shares in percent{features}{diverged}"
    )
