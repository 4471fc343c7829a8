"""`danskin play`: a folder with numbers and figures, warnings about attractors, errors in a sentence."""

import json

import numpy as np
import pytest


def test_a_play_writes_its_folder_and_warns_of_what_attracts(cli, tmp_path):
    words = ["play", "forsaken", "--solver", "extragradient", "--solver", "curvature_eg_plus"]
    done = cli(*words, "--steps", "1500", "--starts", "3", "--out", tmp_path / "one")
    assert done.code == 0, done.err
    assert "forsaken(shift=0.45)" in done.out and "0.08063" in done.out and "3 cycle" in done.out
    assert "L = 12.403, weak Minty rho at most -1.52" in done.out
    assert "extragradient with step 0.08063: 3 of 3 starts: circles where F is not 0" in done.err
    assert "no equilibrium: a player gains by moving" in done.err
    found = json.loads((tmp_path / "one/result.json").read_text())
    assert found["solvers"]["curvature_eg_plus"]["distance"]["max"] < 1e-10
    assert found["solvers"]["extragradient"]["gap"]["min"] > 0
    with np.load(tmp_path / "one/points.npz") as points:
        assert points["extragradient.points"].shape[1:] == (3, 2)
    for name in ("phase", "distance"):
        assert (tmp_path / f"one/figures/{name}.svg").read_text().startswith("<?xml")
    again = cli(*words, "--out", tmp_path / "one")
    assert again.code == 2 and "expected a new or empty folder" in again.err


def test_settings_reach_the_game_and_the_solvers_that_have_them(cli, tmp_path):
    done = cli("play", "polar_game", "a=1/3", "alpha=0.25", "--solver", "eg_plus", "--solver", "gda", "--steps", "20",
               "--step", "0.5/L", "--out", tmp_path / "p", "--json")  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["parameters"]["a"] == pytest.approx(1 / 3)
    assert "alpha=0.25" in found["solvers"]["eg_plus"]["solver"] and "alpha" not in found["solvers"]["gda"]["solver"]
    assert found["solvers"]["gda"]["step"] == pytest.approx(0.5 / found["lipschitz"])
    done = cli("play", "bilinear", "base=optimistic", "k=3", "--solver", "lookahead", "--steps", "9", "--json",
               "--out", tmp_path / "l")  # fmt: skip
    assert "base=OptimisticGDA" in json.loads(done.out)["solvers"]["lookahead"]["solver"], done.err


def test_the_law_of_the_cycle_is_printed_beside_what_was_seen(cli, tmp_path):
    done = cli("play", "almost_bilinear", "eps=0.1", "--solver", "gda", "--step", "0.05", "--steps", "3000",
               "--out", tmp_path / "a")  # fmt: skip
    assert "eps=0.1" in done.out and "law puts the cycle at radius 1.4142" in done.out


def test_the_certificate_is_shown_beside_what_was_measured(cli, tmp_path):
    done = cli("play", "bilinear", "--solver", "extragradient", "--steps", "50", "--out", tmp_path / "c")
    assert "certificate (PEPit, bilinear games): after 8 steps" in done.out and "below the bound" in done.out
    found = json.loads((tmp_path / "c/result.json").read_text())["solvers"]["extragradient"]["certificate"]
    assert found["holds"] and len(found["bounds"]) == len(found["measured"]) == 8
    assert (tmp_path / "c/figures/certificate.svg").is_file()


def test_a_payoff_matrix_comes_from_a_file(cli, tmp_path):
    (tmp_path / "A.csv").write_text("0,2\n1,0\n")
    done = cli("play", "matrix", f"payoff={tmp_path / 'A.csv'}", "--solver", "mirror_prox", "--steps", "200",
               "--starts", "2", "--out", tmp_path / "m", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["solvers"]["mirror_prox"]["gap_of_average"]["max"] < 0.05
    (tmp_path / "B.csv").write_text("0,nan\n1,0\n")
    done = cli("play", "matrix", f"payoff={tmp_path / 'B.csv'}", "--solver", "mirror_prox", "--out", tmp_path / "n")
    assert done.code == 2 and "got nan in row 0, column 1" in done.err and not (tmp_path / "n").exists()


@pytest.mark.parametrize(("words", "code", "text"), [
    (["forsakn"], 2, "expected a known game, got 'forsakn'; did you mean 'forsaken'?"),
    (["forsaken", "--solver", "extragradent"], 2, "got 'extragradent'; did you mean 'extragradient'?"),
    (["forsaken", "shft=1"], 2, "did you mean 'shift'?"),
    (["forsaken", "shift"], 2, "expected key=value, got 'shift'"),
    (["almost_bilinear", "eps=2"], 2, "eps: expected a number in (0, 1), got 2"),
    (["almost_bilinear", "--step", "1/L"], 2, "no L is known of this F"),
    (["bilinear", "--step", "-1"], 2, "expected a number above 0"),
    (["bilinear", "--solver", "mirror_prox"], 2, "mirror_prox: expected a game on simplices"),
    (["bilinear", "--steps", "0"], 2, "at least 1 step"),
    (["matrix", "payoff=[[0, .nan], [1, 0]]"], 2, "got nan in row 0"),
    (["matrix", "payoff=nowhere.csv"], 4, "payoff: expected a file"),
    (["bilinear", "base=nobody", "--solver", "lookahead"], 2, "base: expected another solver, got 'nobody'"),
])  # fmt: skip
def test_wrong_words_end_with_a_sentence(words, code, text, cli, tmp_path):
    done = cli("play", *words, "--out", tmp_path / "x")
    assert done.code == code, (done.out, done.err)
    assert text in done.err and "Traceback" not in done.err
