"""`danskin reproduce E4`: critics beside the exact distance."""

import re
from dataclasses import replace

import pytest

from danskin.recipes.claims import Claims
from danskin.recipes.rows import CELLS
from danskin.recipes.sampling_study import plan_of, run_study
from danskin.run.recipe import parse_yaml, read_mapping

pytest.importorskip("ot")


@pytest.fixture(scope="module")
def e4(tmp_path_factory):
    study = plan_of("E4", "smoke")
    plane, ten, _ = study.cases
    kept = {plane: study.cases[plane], ten: {m: study.cases[ten][m] for m in ("exact", "held_out")}}
    kept = {
        case: {m: s | {"n": 40, "steps": 8, "width": 8} for m, s in methods.items()} for case, methods in kept.items()
    }
    out = tmp_path_factory.mktemp("e4") / "run"
    return out, run_study(replace(study, cases=kept), out)


def test_nothing_certified_is_above_the_exact_distance_and_gaps_stand_beside(e4):
    out, result = e4
    found = {(m["case"], m["method"], m["column"]): m["mean"] for m in result["measured"]}
    plane, ten = result["cases"]
    exact = found[plane, "exact", "exact W1"]
    critics = [m for m in result["methods"] if (plane, m, "certified bound") in found]
    assert len(critics) == 6
    for method in critics:
        certified, gap, constant = (
            found[plane, method, c] for c in ("certified bound", "raw critic gap", "Lipschitz constant")
        )
        assert 0 <= certified <= exact and certified == pytest.approx(abs(gap) / constant, rel=1e-6)
        assert found[plane, method, "certified of exact"] == pytest.approx(certified / exact)
    assert found[plane, "ortho_abs", "Lipschitz constant"] == pytest.approx(1, abs=1e-6)
    assert found[ten, "held_out", "populations, 95 % bound"] <= found[ten, "held_out", "populations, 95 % bootstrap"]
    assert [c["name"] for c in result["claims"] if c["outside"]] == ["certified on images"]  # that case is left out
    assert "Witness functions" in (out / "report.html").read_text() and (out / "figures/witness.svg").is_file()


def test_claims_name_what_the_study_measures():
    cases = plan_of("E4", "small").cases
    claims = Claims.read(read_mapping(CELLS["E4"] / "claims.yaml")).claims
    for claim in claims:
        for part in (claim["more"], claim.get("less")):
            assert part is None or part["method"] in cases[part["case"]]
    assert len(claims) >= 9


def test_a_dry_run_tells_the_work_and_writes_nothing(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("reproduce", "E4", "--dry-run")
    assert parse_yaml(done.out, "out")["cases"]["digits 0-4 against 5-9"]["gp"]["penalty"] == 10
    assert re.fullmatch(r"24 cells, about [0-9.]+ min of training", done.err.strip())
    assert not list(tmp_path.iterdir())
