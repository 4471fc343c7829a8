"""`danskin reproduce E1 | E3`: cells, claims, resume, errors."""

import json
from dataclasses import replace

import pytest

from danskin.errors import ConfigError
from danskin.recipes.claims import Claims
from danskin.recipes.rows import CELLS
from danskin.recipes.sampling_study import plan_of, run_study
from danskin.recipes.scales import SCALES
from danskin.run.recipe import read_mapping

pytest.importorskip("ot")


@pytest.fixture(scope="module")
def e3(tmp_path_factory):
    study = plan_of("E3", "smoke")
    kept = {
        "flat torus": {m: study.cases["flat torus"][m] | {"sizes": [8, 16, 32]} for m in ("torus1", "torus4")},
        "two normal laws, W1 = 1": {
            "shift10": study.cases["two normal laws, W1 = 1"]["shift10"] | {"sizes": [64]},
        },
    }
    out = tmp_path_factory.mktemp("e3") / "run"
    study = replace(study, cases=kept)
    return study, out, run_study(study, out)


def test_slopes_stand_beside_theory_and_samples_are_too_far_from_each_other(e3):
    _, out, result = e3
    found = {(m["method"], m["column"]): m for m in result["measured"]}
    assert found["torus4", "slope"]["mean"] == pytest.approx(-0.25, abs=0.1)
    assert found["torus4", "slope"]["published"] == -0.25 and len(found["torus4", "slope"]["interval"]) == 2
    assert found["torus1", "n = 8"]["mean"] > found["torus1", "n = 32"]["mean"]
    shift = {column: found["shift10", column]["mean"] for column in ("W1 of two samples", "error", "triangle bound")}
    assert shift["W1 of two samples"] > 1.5 and shift["error"] < shift["triangle bound"]
    assert json.loads((out / "result.json").read_text())["measured"] == result["measured"]
    page = (out / "report.html").read_text()
    assert "W1 against sample size" in page and (out / "figures/rates.svg").is_file()
    assert [c["name"] for c in result["claims"] if c["outside"]] == []


def test_what_is_there_is_not_run_again_and_another_study_is_refused(e3):
    study, out, result = e3
    before = (out / "cells.jsonl").read_bytes()
    assert run_study(study, out, resume=True)["measured"] == result["measured"]
    assert (out / "cells.jsonl").read_bytes() == before
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        run_study(study, out)
    with pytest.raises(ConfigError, match="another plan"):
        run_study(plan_of("E3", "smoke"), out, resume=True)


def test_every_claim_of_e1_holds_at_its_smoke_scale(cli, tmp_path):
    done = cli("reproduce", "e1", "--out", tmp_path / "e1", "--json", "-q")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert all(claim["holds"] and claim["checked"] for claim in result["claims"])
    assert (tmp_path / "e1/figures/densities.svg").is_file()


@pytest.mark.parametrize("row", ["E1", "E3"])
def test_every_claim_and_published_number_names_what_is_measured(row):
    claims = Claims.read(read_mapping(CELLS[row] / "claims.yaml"))
    for scale in SCALES:
        study = plan_of(row, scale)
        assert study.says and list(study.tasks())
    named = [(k[0], k[1]) for k in claims.published]
    named += [(c[side]["case"], c[side]["method"]) for c in claims.claims for side in ("more", "less") if side in c]
    assert all(method in study.cases[case] for case, method in named)


def test_the_command_says_what_is_wrong_and_what_it_will_cost(cli, tmp_path):
    for words, text in ((["--scale", "smal"], "did you mean"), (["--seeds", "0"], "at least 1"),
                        (["--jobs", "2"], "--jobs: expected none")):  # fmt: skip
        done = cli("reproduce", "E3", *words, "--out", tmp_path / "x")
        assert done.code == 2 and text in done.err, done.err
    done = cli("reproduce", "E1", "--dry-run")
    assert done.code == 0 and "polar" in done.out and "33 cells, about" in done.err
