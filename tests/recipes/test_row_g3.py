"""Row G3: it runs, survives a kill, and its intervals are of pairs."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from danskin.errors import ConfigError
from danskin.recipes.g3.cost import estimate
from danskin.recipes.g3.plan import plan_of
from danskin.recipes.g3.study import gathered, run_study
from danskin.run import checkpoint
from danskin.run.recipe import parse_yaml
from danskin.run.robust_rl import run_robust_rl

_RUN = """
import sys; from pathlib import Path
from danskin.recipes.g3.cost import estimate
from danskin.recipes.g3.plan import plan_of
from danskin.run.robust_rl import run_robust_rl
run_robust_rl(plan_of("G3", "smoke").methods["ld"], Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_run_that_was_killed_ends_bit_for_bit_as_one_that_was_not(tmp_path):
    config = plan_of("G3", "smoke").methods["ld"]
    process = subprocess.Popen([sys.executable, "-c", _RUN, str(tmp_path / "killed")], env=dict(os.environ))
    last = tmp_path / "killed" / "checkpoints" / "last.pt"
    for _ in range(6000):
        if last.is_file() and checkpoint.load(last)["state"]["t"] >= 200:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "result.json").is_file()
    resumed, whole = run_robust_rl(config, tmp_path / "killed"), run_robust_rl(config, tmp_path / "whole")
    assert resumed == whole
    one, two = (checkpoint.load(tmp_path / d / "checkpoints" / "last.pt")["state"] for d in ("killed", "whole"))
    assert torch.equal(one["replay"]["content"], two["replay"]["content"])
    for name, weights in one["players"]["networks"].items():
        assert all(torch.equal(w, two["players"]["networks"][name][k]) for k, w in weights.items())
    lines = [(tmp_path / d / "metrics.jsonl").read_text() for d in ("killed", "whole")]
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_smoke_runs_and_another_plan_is_refused(tmp_path):
    result = run_study(plan_of("G3", "smoke"), tmp_path / "g3", resume=False, say=lambda text: None)
    assert (tmp_path / "g3" / "table.md").is_file() and len(result["returns"]) == 3
    with pytest.raises(ConfigError, match="another plan"):
        run_study(plan_of("G3", "smoke", 3), tmp_path / "g3", resume=True, say=lambda text: None)
    with pytest.raises(ConfigError, match="new or empty"):
        run_study(plan_of("G3", "smoke"), tmp_path / "g3", resume=False, say=lambda text: None)


@pytest.mark.parametrize("scale", ["smoke", "small", "mujoco", "full"])
def test_the_row_resolves_at_every_scale_and_the_control_differs_in_its_adversary_alone(scale):
    plan = plan_of("G3", scale)
    assert plan.says.endswith(".") and (plan.status == "not run") == (scale == "full")
    assert {config.environment == "pendulum" for config in plan.methods.values()} == {scale in ("smoke", "small")}
    if scale != "smoke":
        learned, control = plan.methods["pr_gda"], plan.methods["pr_random"]
        assert control.rule.adversary == "random" and control.rule.alpha == learned.rule.alpha
        assert replace(control, name=learned.name, rule=learned.rule) == learned
        assert ("pr_gda", "pr_random") in plan.pairs
    with pytest.raises(ConfigError, match="did you mean 'mujoco'"):
        plan_of("G3", "mujocco")


def test_differences_are_of_pairs_so_a_shift_that_all_seeds_share_has_no_width():
    plan = plan_of("G3", "small")
    conditions = [{"kind": k, "name": str(c)} for k, c in next(iter(plan.methods.values())).sweep.conditions()]
    base = torch.randn(12, len(conditions), generator=torch.Generator().manual_seed(0)) * 100
    runs = {
        label: {"conditions": conditions, "returns": (base + (7 if label == "gda" else 0)).tolist()}
        for label in plan.methods
    }
    found = {(m["case"], m["method"], m["column"]): m for m in gathered(plan, runs)["measured"]}
    for (case, method, _), number in found.items():
        if case != "returns" and method == "gda - plain":
            assert number["mean"] == pytest.approx(7, abs=1e-3) and number["interval"] == pytest.approx(
                [7, 7], abs=1e-3
            )
    nominal = found["returns", "plain", "nominal"]
    assert nominal["mean"] == pytest.approx(float(base[:, 0].mean()), rel=1e-4)
    assert nominal["interval"][1] - nominal["interval"][0] > 50


def test_a_dry_run_prints_the_plan_and_what_it_will_cost_and_writes_nothing(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("reproduce", "G3", "--dry-run")
    assert parse_yaml(done.out, "out")["methods"]["ld"]["mover"]["name"] == "mixed_ne_ld"
    lines = done.err.strip().splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["plain", "gda", "ld"]
    seconds = [float(re.search(r"150 of them without learning, ([0-9.]+) s each", line)[1]) for line in lines[:-1]]
    minutes = float(re.fullmatch(r"about ([0-9.]+) min of training.*", lines[-1])[1])
    assert min(seconds) > 0 and minutes == pytest.approx(sum(seconds) * 300 / 60, abs=0.051 + 3 * 5e-5 * 5)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_timed_here_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "danskin.games.rl.environments", raising=False)
    assert estimate(plan_of("G3", "full")).splitlines()[-1].startswith("not timed: robust RL: gymnasium is needed")
