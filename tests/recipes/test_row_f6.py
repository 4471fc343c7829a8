"""Row F6: critics that differ in their activation, carried out, told with claims that can come out false."""

from dataclasses import replace

import pytest

from danskin.recipes.cells import gathered
from danskin.recipes.claims import Claims
from danskin.recipes.sampling_study import plan_of, run_study

pytest.importorskip("ot")
_CASE = "8 Gaussians, width 8"


@pytest.fixture(scope="module")
def f6(tmp_path_factory):
    plan = plan_of("F6", "smoke")
    kept = {m: s | {"n": 40, "steps": 8} for m, s in plan.cases[_CASE].items()}
    out = tmp_path_factory.mktemp("f6") / "run"
    return out, run_study(replace(plan, cases={_CASE: kept}), out)


def test_what_is_proved_is_below_the_distance_and_every_constant_is_one(f6):
    out, result = f6
    found = {(m["method"], m["column"]): m["mean"] for m in result["measured"]}
    for method in ("relu", "abs", "group_sort", "spline"):
        assert 0 <= found[method, "certified of exact"] <= 1 + 1e-9
        assert found[method, "Lipschitz constant"] == pytest.approx(1, abs=1e-6)
        assert found[method, "certified of exact"] == pytest.approx(abs(found[method, "raw gap / exact"]), rel=1e-6)
    assert found["relu", "certified of exact"] != found["abs", "certified of exact"]
    assert (out / "figures/gap-8-gaussians-width-8.svg").is_file() and "splines" in (out / "table.md").read_text()
    assert [step for step, _ in result["curves"][_CASE]["spline"]] == [0]  # a gap every 50 steps


@pytest.mark.parametrize("scale", ["smoke", "small", "full"])
def test_plans_have_the_activations_of_the_lecture(scale):
    plan = plan_of("F6", scale)
    for methods in plan.cases.values():
        assert {s["activation"] for s in methods.values()} == {"relu", "abs", "group_sort", "spline"}
    assert (plan.status == "not run") == (scale == "full")


def test_claims_can_come_out_false():
    plan = plan_of("F6", "small")

    def judged(share):
        told = {"shares": {"certified of exact": share}}
        cells = [{"case": c, "method": m, "seed": s} | told for c, m, s in plan.tasks()]
        return {c["name"]: c for c in gathered(plan, cells, configs={}, note="")["claims"]}

    assert not judged(0.97)["splines"]["outside"] and judged(0.97)["ReLU loses a quarter"]["outside"]
    assert judged(0.5)["splines"]["outside"]
    for claim in Claims.of("F6").claims:
        for part in (claim["more"], claim.get("less")):
            assert part is None or part["method"] in plan.cases[part["case"]]
