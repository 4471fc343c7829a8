"""`danskin reproduce` from end to end on the embedded digits: numbers, interruption, exit codes."""

import json
import re
import signal
import subprocess
import sys

import pytest
import torch

from danskin.errors import ConfigError
from danskin.recipes import reproduce as module
from danskin.recipes.gather import measured
from danskin.recipes.judge import FILE, look, read_cells
from danskin.recipes.reproduce import reproduce
from danskin.recipes.rows import plan_of
from danskin.recipes.work import tasks_of


def small(plan):
    """The same with two methods and one epoch."""
    from dataclasses import replace

    cases = {
        label: replace(
            config,
            objectives={k: config.objectives[k] for k in list(config.objectives)[:2]},
            trainer=replace(config.trainer, epochs=1),
        )
        for label, config in plan.cases.items()
    }
    names = {k: plan.names[k] for k in list(plan.names)[:2]}
    return replace(plan, cases=cases, names=names)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """C8 at two seeds, with two methods."""
    out = tmp_path_factory.mktemp("c8") / "run"
    plan = small(plan_of("C8", "smoke", seeds=2))
    return plan, out, reproduce(plan, out, jobs=1, quiet=True)


def test_every_cell_is_there_and_its_mean_is_over_seeds(done):
    _, out, result = done
    cells = [read_cells(out / f"seed-{seed}") for seed in (0, 1)]
    assert all(len(each) == 2 * 6 * 2 for each in cells)
    for row in result["measured"]:
        if row["unit"] != "share" or row["weights"] == "-":
            continue
        found = [
            c["hits"] / c["n"]
            for each in cells
            for c in each
            if (c["method"], c["column"], c["weights"]) == (row["method"], row["column"], row["weights"])
        ]
        assert row["values"] == found and row["mean"] == pytest.approx(sum(found) / 2)
    shown = {(r["method"], r["column"], r["weights"]): r["published"] for r in result["measured"]}
    assert shown["fgsm", "PGD-10", "best"] == 42.64


def test_files_are_there_and_the_page_opens_offline(done):
    _, out, result = done
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="https?://', page) and result["says"] in page
    assert json.loads((out / "result.json").read_text())["row"] == "C8"
    assert "[42.64]" in (out / "table.md").read_text() and (out / "figures" / "learning-curves.svg").exists()


def test_more_steps_of_an_attack_leave_no_more(done):
    _, _, result = done
    means = {(r["method"], r["column"], r["weights"]): r["mean"] for r in result["measured"]}
    for method in ("fgsm", "pgd10"):
        for weights in ("best", "last"):
            assert means[method, "APGD", weights] <= means[method, "clean", weights]


def test_finished_seeds_are_not_repeated_and_lost_cells_are_looked_at_again(done, monkeypatch):
    plan, out, result = done
    path = out / "seed-1" / FILE
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]) + lines[-1][:7])  # killed in the middle of a line
    assert [task.finished for task in tasks_of(plan, out)] == [True, False]
    trained = []
    from danskin.recipes import work

    real = work.judge
    monkeypatch.setattr(work, "judge", lambda config, *rest: trained.append(config.seed) or real(config, *rest))
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        reproduce(plan, out, jobs=1, quiet=True)
    again = reproduce(plan, out, jobs=1, resume=True, quiet=True)
    assert trained == [1]
    keep = ("case", "method", "column", "weights", "values")
    numbers = [{k: r[k] for k in keep} for r in again["measured"] if r["unit"] == "share"]
    assert numbers == [{k: r[k] for k in keep} for r in result["measured"] if r["unit"] == "share"]


def test_another_plan_is_not_mixed_in(done):
    _, out, _ = done
    with pytest.raises(ConfigError, match="got another plan"):
        reproduce(small(plan_of("C10", "smoke")), out, resume=True, quiet=True)


def test_a_folder_from_before_a_setting_existed_goes_on(done):
    plan, out, result = done
    path = out / "plan.yaml"
    text = path.read_text()
    older = "".join(line for line in text.splitlines(keepends=True) if line.strip() != "weights: null")
    assert older != text
    path.write_text(older)
    assert reproduce(plan, out, resume=True, quiet=True)["claims"] == result["claims"]
    path.write_text(older.replace("seed: 0", "sead: 0", 1))
    with pytest.raises(ConfigError, match="got another plan"):
        reproduce(plan, out, resume=True, quiet=True)
    path.write_text(text)


def test_a_claim_that_fails_is_exit_code_3(tmp_path, monkeypatch, cli):
    from danskin.recipes.claims import Claims

    claim = {"name": "impossible", "says": "FGSM is above 100 %.", "at_least": 101, "scales": ["smoke"],
             "more": {"method": "fgsm", "column": "clean", "weights": "last"}}  # fmt: skip
    known = Claims.read({"claims": [claim]})
    monkeypatch.setattr(Claims, "of", staticmethod(lambda row: known))
    monkeypatch.setattr("danskin.recipes.rows.plan_of", lambda *words, real=plan_of: small(real(*words)))
    found = cli("reproduce", "C10", "--jobs", "1", "--out", tmp_path / "run", "-q")
    assert found.code == 3
    assert "does not hold: FGSM is above 100 %" in found.out and "impossible" in found.err
    assert module.reproduce is reproduce


def test_wrong_words(cli):
    for words, message in ((["C88"], "did you mean 'C8'"), (["C8", "--scale", "huge"], "expected one of smoke")):
        found = cli("reproduce", *words)
        assert found.code == 2 and message in found.err


def test_plans_can_be_read_before_they_run(cli):
    found = cli("reproduce", "C14", "--scale", "smoke", "--dry-run", "--json")
    assert json.loads(found.out)["row"] == "C14"


def test_missing_data_have_a_code_of_their_own(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("DANSKIN_DATA", str(tmp_path))
    found = cli("reproduce", "C8", "--scale", "small", "--out", tmp_path / "run")
    assert found.code == 4 and "cifar10" in found.err and not (tmp_path / "run").exists()


def test_misalignment_of_a_model_without_gradient_is_left_out(tmp_path):
    plan = plan_of("C10", "smoke")
    column = next(c for c in plan.columns[""] if c.measure)
    x, y = torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64)
    cell = look(lambda x: 0 * x.flatten(1)[:, :10], x, y, column, plan.cases[""], 10)
    assert cell["value"] is None and cell["n"] == 0
    assert measured(plan, run_of(plan, tmp_path, cell | {"method": "fgsm", "column": "m", "weights": "last"})) == {}


def run_of(plan, out, cell):
    """A folder in which a run left one cell."""
    (out / "seed-0").mkdir()
    (out / "seed-0" / FILE).write_text(json.dumps(cell) + "\n")
    (out / "seed-0" / "result.json").write_text('{"models": {}}')
    return out


RUN = """
import sys
from dataclasses import replace
from pathlib import Path
from danskin.recipes.rows import plan_of
from danskin.recipes.reproduce import reproduce
plan = plan_of("C8", "smoke", seeds=2)
case = plan.cases[""]
case = replace(case, objectives={"fgsm": case.objectives["fgsm"]}, trainer=replace(case.trainer, epochs=EPOCHS))
plan = replace(plan, cases={"": case}, names={"fgsm": "FGSM"})
try:
    reproduce(plan, Path(sys.argv[1]), jobs=2, resume=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_parallel_it_goes_on_to_the_same_end(sent, tmp_path):
    """Two runs at a time; the stop comes when both train. No process stays behind, and numbers are those of one go."""
    words = [sys.executable, "-c", RUN.replace("EPOCHS", "150"), str(tmp_path / "cut")]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as done:
        seen = set()
        for line in done.stderr:
            seen.add(line[:6])
            if {"seed 0", "seed 1"} <= seen:
                break
        done.send_signal(sent)
        rest = done.stderr.read()  # until the last process has closed it
        assert done.wait(60) == (-9 if sent == signal.SIGKILL else 130), rest
    assert not (tmp_path / "cut/result.json").exists()
    for seed in (0, 1) if sent != signal.SIGKILL else ():
        state = json.loads((tmp_path / f"cut/seed-{seed}/status.json").read_text())["state"]
        assert state == "interrupted"
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    words[-1] = str(tmp_path / "whole")
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    cut, whole = (read_cells(tmp_path / name / "seed-1") for name in ("cut", "whole"))
    assert [c["per_class"] for c in cut] == [c["per_class"] for c in whole]


@pytest.mark.slow
@pytest.mark.parametrize("row", ["C4", "C8", "C10", "C14", "C15"])
def test_every_row_runs_at_smoke_scale(row, tmp_path):
    result = reproduce(plan_of(row, "smoke"), tmp_path / "run", jobs=1, quiet=True)
    assert {r["method"] for r in result["measured"]} == set(result["methods"])
    assert not any(claim["outside"] for claim in result["claims"])
