"""Row F6: critics of every activation, carried out, gone on with, told with claims that can come out false."""

import pytest

from danskin.errors import ConfigError
from danskin.lipschitz import product_bound
from danskin.recipes.f6.cost import estimate
from danskin.recipes.f6.critics import critic_of, dual_of, points_of
from danskin.recipes.f6.plan import CriticPlan, plan_of
from danskin.recipes.f6.study import gathered, run_study

pytest.importorskip("ot")


@pytest.mark.slow
def test_smoke_runs_goes_on_and_refuses_another_plan(tmp_path):
    plan = plan_of("F6", "smoke")
    said = []
    result = run_study(plan, tmp_path / "f6", resume=False, say=said.append)
    assert len(said) == 1 + 3 * 6
    for m in result["measured"]:
        if m["column"] == "proved":
            assert 0 < m["mean"] <= 1 + 1e-9, m  # a lower bound of W1, whatever was trained
    assert (tmp_path / "f6/report.html").is_file() and "spline" in (tmp_path / "f6/table.md").read_text()
    lines = (tmp_path / "f6/cells.jsonl").read_text().splitlines()
    (tmp_path / "f6/cells.jsonl").write_text("\n".join(lines[:-2]) + "\n")
    said.clear()
    again = run_study(plan, tmp_path / "f6", resume=True, say=said.append)
    assert len(said) == 3
    for a, b in zip(again["measured"], result["measured"], strict=True):
        assert a["column"] == "seconds" or a["mean"] == b["mean"]
    with pytest.raises(ConfigError, match="new or empty"):
        run_study(plan, tmp_path / "f6", resume=False, say=said.append)
    with pytest.raises(ConfigError, match="another plan"):
        run_study(plan_of("F6", "small"), tmp_path / "f6", resume=True, say=said.append)


@pytest.mark.parametrize("scale", ["smoke", "small", "full"])
def test_plans_have_the_activations_of_the_lecture(scale):
    plan = plan_of("F6", scale)
    assert {m["activation"] for m in plan.methods.values()} == {"relu", "abs", "group_sort", "spline"}
    assert len(list(plan.tasks())) == plan.seeds * 3 * 6 and plan.says
    assert (plan.status == "not run") == (scale == "full")


def test_constrained_critics_have_constant_one_and_others_have_not():
    plan = plan_of("F6", "smoke")
    case = plan.cases["8 Gaussians"]
    for label, method in plan.methods.items():
        critic = critic_of(method, case, 2, 0).double()
        if method["layer"] == "orthogonal":
            assert product_bound(critic, (2,)).value == pytest.approx(1, abs=1e-5), label
    assert dual_of(plan.methods["gp"], case, 2, 0).ascent.penalty == 10


def test_points_are_fixed_by_the_seed_and_of_both_kinds():
    for told in plan_of("F6", "smoke").cases.values():
        x, y = points_of(told, 0)
        assert x.shape == y.shape == (100, x.shape[1])
        assert (x == points_of(told, 0)[0]).all() and not (x == points_of(told, 1)[0]).all()


def test_claims_can_come_out_false():
    plan = plan_of("F6", "small")

    def cells(share):
        return [
            {"case": c, "method": m, "seed": s, "proved": share, "gap / W1": share, "constant": 1.0, "W1": 1.0,
             "seconds": 1.0, "history": []}
            for c, m, s in plan.tasks()
        ]  # fmt: skip

    claims = {c["name"]: c for c in gathered(plan, cells(0.97))["claims"]}
    assert not claims["splines"]["outside"] and claims["ReLU loses a third"]["outside"]
    assert gathered(plan, cells(0.5))["claims"][0]["outside"]


def test_work_is_told_before_it_is_done():
    plan = plan_of("F6", "smoke")
    few = CriticPlan(**vars(plan) | {"cases": {"8 Gaussians": plan.cases["8 Gaussians"]}})
    assert "1 seed of each: about" in estimate(few)
