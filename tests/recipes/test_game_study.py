"""`danskin reproduce G1 | G2`: numbers of every start and seed, claims, resume, errors."""

import json

import pytest
import torch

from danskin.errors import ConfigError
from danskin.games import Forsaken
from danskin.recipes.claims import Claims
from danskin.recipes.game_plan import STUDIES, study_of
from danskin.recipes.game_study import minimised, run_study
from danskin.recipes.scales import SCALES
from danskin.run.recipe import read_mapping


def tiny(row, cases, methods, steps=None, seeds=None):
    """A study cut down to some cases and methods."""
    from dataclasses import replace

    study = study_of(row, "smoke", seeds)
    kept = {}
    for case in cases:
        told = dict(study.cases[case], methods=methods)
        told.pop("figure", None)
        kept[case] = told | ({"steps": steps} if steps else {})
    return replace(study, cases=kept, names={m: study.names[m] for m in methods})


@pytest.fixture(scope="module")
def g1(tmp_path_factory):
    out = tmp_path_factory.mktemp("g1") / "run"
    study = tiny("G1", ["forsaken"], ["gda", "curvature", "minimise"])
    return study, out, run_study(study, out)


def test_shares_are_counts_of_starts(g1):
    _, out, result = g1
    found = {(m["method"], m["column"]): m["mean"] for m in result["measured"]}
    assert found["gda", "circling"] == 1 and found["gda", "at the solution"] == 0
    assert found["curvature", "at the solution"] == 1 and found["curvature", "distance"] < 1e-6
    assert found["minimise", "at a critical point"] == 1 and ("minimise", "distance") not in found
    assert json.loads((out / "result.json").read_text())["measured"] == result["measured"]
    assert "| CurvatureEG+ | 100.0" in (out / "table.md").read_text()
    assert "passes per step" not in (out / "table.md").read_text()
    page = (out / "report.html").read_text()
    assert "Phase portrait: forsaken" in page and "<svg" in page


def test_what_is_there_is_not_run_again_and_another_study_is_refused(g1):
    study, out, result = g1
    before = (out / "cells.jsonl").read_bytes()
    again = run_study(study, out, resume=True)
    assert (out / "cells.jsonl").read_bytes() == before
    assert {k: v for k, v in again.items() if k != "environment"} == {
        k: v for k, v in result.items() if k != "environment"
    }
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        run_study(study, out)
    with pytest.raises(ConfigError, match="another plan"):
        run_study(tiny("G1", ["forsaken"], ["gda"]), out, resume=True)


def test_a_half_written_cell_is_run_again(g1, tmp_path):
    study, out, result = g1
    lines = (out / "cells.jsonl").read_bytes()
    folder = tmp_path / "torn"
    folder.mkdir()
    (folder / "plan.yaml").write_bytes((out / "plan.yaml").read_bytes())
    (folder / "cells.jsonl").write_bytes(lines[: len(lines) // 2])
    assert run_study(study, folder, resume=True)["measured"] == result["measured"]


def test_games_of_other_seeds_are_other_games(tmp_path):
    study = tiny("G2", ["random 20x30"], ["mp"], seeds=2)
    games = [study.play("random 20x30", "mp", seed).game for seed in (0, 1)]
    assert not torch.equal(games[0].matrix, games[1].matrix)
    result = run_study(study, tmp_path / "g2")
    gap = {m["column"]: m["mean"] for m in result["measured"] if m["method"] == "mp"}
    assert gap["gap, T=100"] < gap["gap, T=10"] and 0.4 < gap["exponent"] < 1.3


def test_a_method_with_inner_steps_may_evaluate_as_often_as_the_others_and_no_more(tmp_path):
    study = tiny("G2", ["toy, one start"], ["gda", "eg", "ld_03", "ld_frozen"], seeds=2)
    steps = {m: study.play("toy, one start", m, 0).steps for m in study.names}
    assert steps == {"gda": 1000, "eg": 500, "ld_03": 10, "ld_frozen": 5}
    result = run_study(study, tmp_path / "toy")
    found = {(m["method"], m["column"]): m for m in result["measured"]}
    assert found["gda", "near the equilibrium"]["mean"] == 0 and found["gda", "payoff"]["mean"] == pytest.approx(0.25)
    for method, curve in result["curves"]["toy, one start"].items():
        assert curve[0] == [0, 0] and curve[-1][0] == pytest.approx(1000, abs=10)
        assert curve[-1][1] == pytest.approx(found[method, "near the equilibrium"]["mean"])
    page = (tmp_path / "toy/report.html").read_text()
    assert page.count('<figure class="wide">') == 1
    assert "toy, one start: share" in page and "Phase portrait: toy, one start" in page


def test_starts_are_the_point_asked_for_or_in_the_square_asked_for():
    study = study_of("G2", "smoke")
    for case, seed in (("toy, one start", 0), ("toy, random starts", 3)):
        play = study.play(case, "gda", seed)
        z = study.start(case, play)
        assert z.shape == (20, 2)
        if "one" in case:
            assert (z == torch.tensor([0.926, 0.941], dtype=torch.float64)).all()
        else:
            assert 1.2 < float(z.abs().max()) < 1.5 and len(z.unique(dim=0)) == 20


def test_both_minimising_is_the_gradient():
    saddle = Forsaken().saddle()
    z = Forsaken().starts(5).requires_grad_()
    (wanted,) = torch.autograd.grad(saddle.payoff(z).sum(), z)
    torch.testing.assert_close(minimised(saddle)(z.detach()), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("row", STUDIES)
def test_every_claim_and_published_number_names_what_is_measured(row):
    claims = Claims.read(read_mapping(STUDIES[row] / "claims.yaml"))
    for scale in SCALES:
        study = study_of(row, scale)
        assert study.says and list(study.tasks())
    study = study_of(row, "small")
    named = [(k[0], k[1]) for k in claims.published]
    named += [(c[side]["case"], c[side]["method"]) for c in claims.claims for side in ("more", "less") if side in c]
    for case, method in named:
        assert method in study.cases[case]["methods"]


def test_the_command_says_what_is_wrong(cli, tmp_path):
    for words, text in ((["--scale", "smal"], "did you mean"), (["--seeds", "0"], "at least 1"),
                        (["--jobs", "2"], "--jobs: expected none")):  # fmt: skip
        done = cli("reproduce", "G1", *words, "--out", tmp_path / "x")
        assert done.code == 2 and text in done.err, done.err
    done = cli("reproduce", "g2", "--dry-run")
    assert done.code == 0 and "mirror_prox" in done.out and "18 runs" in done.err
