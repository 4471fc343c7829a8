"""Row F2: every method on every problem, judged beside the sampling floor. Lecture: rows F1 to F5, F7."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import danskin
from danskin.errors import ConfigError, DivergenceError, MissingError
from danskin.files import write_text
from danskin.recipes.claims import Claims
from danskin.recipes.f2.figures import draw
from danskin.recipes.f2.plan import FOLDER, GANPlan, place
from danskin.recipes.folder import check_new_or_resumed, command_of, write_result
from danskin.recipes.summary import summarize
from danskin.report.gan import write_gan_report
from danskin.report.reproduction import write_reproduction
from danskin.run.gan import GANConfig, train_gan
from danskin.run.lock import locked
from danskin.run.recipe import parse_yaml, read_mapping, to_yaml
from danskin.run.record import Record, environment, read_config
from danskin.run.runtime import Runtime

Judged = Mapping[str, Any]


def run_study(plan: GANPlan, out: Path, *, resume: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Train what is not trained, and write result.json, table.md, figures/ and report.html.

    Raises:
        ConfigError: the folder has content and `resume` is not set, or holds another plan.
        MissingError: the data are not there.
    """
    check_new_or_resumed(out, resume)
    path = out / "plan.yaml"
    if path.is_file():
        _check_plan(plan, read_mapping(path), out)
    say(f"{plan.row} at scale {plan.scale}: {plan.says}")
    with locked(out):
        write_text(path, to_yaml(plan.to_plain()))
        found = {}
        for case, method, seed in plan.tasks():
            say(f"{case}: {plan.names[method]}, seed {seed}")
            found[case, method, seed] = _run(plan.config(case, method, seed), out / place(case, method, seed))
        result = gathered(plan, found)
        return write_result(out, result, lambda told: write_reproduction(out, told, draw(plan, out), command_of(plan)))


def _check_plan(plan: GANPlan, known: dict[str, Any], out: Path) -> None:
    """More seeds, problems and methods are welcome; what is there must be as it was."""
    asked = parse_yaml(to_yaml(plan.to_plain()), "the plan")["runs"]
    for case, methods in known.get("runs", {}).items():
        for method, config in methods.items():
            if method in asked.get(case, {}) and asked[case][method] != config:
                raise ConfigError(
                    f"{out}: expected what was begun there, got another plan ({case}, {method} differs); choose "
                    "another --out"
                )


def _run(config: GANConfig, folder: Path) -> dict[str, Any] | None:
    """What a run found, made or gone on with; None where it diverged, which is a result."""
    begun = (folder / "config.yaml").is_file()
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
    try:
        write_gan_report(folder)
    except MissingError:
        pass  # said once, for the row
    return result


def numbers_of(result: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Columns of a run: (value, unit)."""
    found = result["judged"]
    out: dict[str, tuple[float, str]] = {
        "W1": (found["w1"], "number"),
        "floor of W1": (found["w1_floor"], "number"),
        "W2": (found["w2"], "number"),
    }
    if found["certified"] is not None:
        out["share of W1 proved"] = (found["certified"] / found["w1"], "share")
    if covered := found.get("coverage"):
        out["modes"] = (covered["covered"] / covered["modes"], "share")
        out["high quality"] = (covered["high_quality"], "share")
        out["near"] = (covered["near"], "share")
    else:
        classes = found["classes"]
        out["classes"] = (classes["covered"] / classes["classes"], "share")
        out["precision"] = (found["manifold"]["precision"], "share")
        out["recall"] = (found["manifold"]["recall"], "share")
        for distance in (found.get("frechet") or {}).values():
            out["Fréchet"] = (distance["value"], "number")
            out["floor of Fréchet"] = (distance["floor"], "number")
    out["nearer to training data"] = (found["copying"]["closer"], "share")
    out["seconds"] = (result["seconds"], "number")
    return out


def gathered(plan: GANPlan, found: Mapping[tuple[str, str, int], Mapping[str, Any] | None]) -> dict[str, Any]:
    """What result.json holds."""
    values: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    units: dict[str, str] = {}
    columns: dict[str, dict[str, None]] = {case: {} for case in plan.cases}
    for (case, method, _), result in found.items():
        told = {} if result is None else numbers_of(result)
        for column, (value, unit) in told.items():
            values[case, method, column, "-"].append(value)
            columns[case][column], units[column] = None, unit
    measured = {key: summarize(v, units[key[2]]) for key, v in values.items()}
    keys = ("case", "method", "column", "weights")
    claims = Claims.read(read_mapping(FOLDER / "claims.yaml"))
    return {
        "danskin": danskin.__version__,
        "row": plan.row,
        "title": plan.title,
        "scale": plan.scale,
        "says": plan.says,
        "seeds": list(range(plan.seeds)),
        "cases": plan.cases,
        "methods": plan.names,
        "columns": {case: list(found) for case, found in columns.items()},
        "attacks": {},
        "weights": ["-"],
        "data": {},
        "note": _note(plan, found),
        "measured": [dict(zip(keys, key, strict=True)) | m | {"published": None} for key, m in measured.items()],
        "diverged": [place(*task) for task, result in found.items() if result is None],
        "flags": {
            place(*task): [f["flag"] for f in result["flags"]]
            for task, result in found.items()
            if result is not None and result["flags"]
        },
        "forward_equivalents": {},
        "claims": [verdict.to_dict() for verdict in claims.judged(plan.scale, measured)],
        "published": claims.sources,
        "configs": plan.to_plain()["runs"],
        "environment": environment(),
    }


def _note(plan: GANPlan, found: Mapping[tuple[str, str, int], Mapping[str, Any] | None]) -> str:
    results = [result for result in found.values() if result is not None]
    sizes = sorted({result["judged"]["n"] for result in results})
    lost = len(found) - len(results)
    diverged = f"; {lost} runs diverged and are left out" if lost else ""
    networks = {name for result in results for name in result["judged"].get("frechet") or {}}
    features = f"; Fréchet distances on {', '.join(sorted(networks))}, not FID" if networks else ""
    return (
        f"exact distances of {' or '.join(map(str, sizes))} samples to as many held-out examples beside that of real "
        f"examples to each other; mean over {plan.seeds} seed{'' if plan.seeds == 1 else 's'} ± half of a 95 % "
        f"interval (t over seeds); shares in percent{features}{diverged}"
    )
