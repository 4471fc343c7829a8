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


def test_measures_are_played_with_their_gap_along_the_way_and_particles_in_the_figure(cli, tmp_path):
    done = cli("play", "square_distance", "step_weights=0.5", "step_points=0.05", "--starts", "20", "--steps", "600",
               "--out", tmp_path / "s")  # fmt: skip
    assert done.code == 0, done.err
    assert "y: 0.500 at -1.000, 0.500 at +1.000" in done.out and "payoff 1.0000 (the game's value: 1)" in done.out
    found = json.loads((tmp_path / "s/result.json").read_text())["solvers"]["particles"]
    assert found["gaps"][-1] == [600, found["gap"]["found"]] and found["gap"]["found"] < 1e-6 < found["gaps"][0][1]
    assert found["gap"]["found"] < found["gap"]["bound"]
    with np.load(tmp_path / "s/particles.npz") as arrays:
        assert arrays["particles.x.points"].shape == (len(arrays["particles.steps"]), 20)
        assert arrays["particles.y.weights"].sum(1) == pytest.approx(1)
    for name in ("gap", "particles"):
        assert (tmp_path / f"s/figures/{name}.svg").read_text().startswith("<?xml")


def test_forsaken_whose_critical_point_is_no_equilibrium_has_a_mixed_one(cli, tmp_path):
    done = cli("play", "forsaken", "--solver", "particles", "--steps", "800", "--json", "--out", tmp_path / "f")
    found = json.loads(done.out)["solvers"]["particles"]
    assert found["gap"]["found"] < 1e-6
    (low, share), (high, rest) = found["y"]
    edge = (1 + 0.5**0.5) ** 0.5  # where phi' = s/2 - 2 s^3 + s^5 is 0: the least of phi
    assert [low, high] == pytest.approx([-edge, edge], abs=1e-3)
    assert share * low + rest * high == pytest.approx(0.45, abs=1e-3)  # x is indifferent: the mean of y is the shift
    assert sum(p * w for p, w in found["x"]) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("words", "text"), [
    (["square_distance", "--solver", "gda"], "solvers of measures only (particles) with square_distance, got gda"),
    (["forsaken", "--solver", "gda", "--solver", "particles"], "with particles, got gda, which moves points"),
    (["forsaken", "--solver", "partcles"], "did you mean 'particles'?"),
    (["circl"], "did you mean 'circle'?"),
    (["circle", "step_weigth=1"], "did you mean 'step_weights'?"),
    (["circle", "step_weights=-1"], "step_weights: expected a step >= 0"),
    (["circle", "--starts", "0"], "1 start (a particle of each player)"),
    (["bilinear", "--solver", "particles"], "expected a game with a payoff on a box, got one with the set None"),
    (["polar_game", "--solver", "particles"], "got one with no payoff"),
    (["matrix", "--solver", "particles"], "expected a game with a payoff on a box"),
    (["bilinear", "size=2", "radius=1", "--solver", "particles"], "expected one number for each player, got 2"),
])  # fmt: skip
def test_measures_are_refused_with_a_sentence_where_they_do_not_fit(words, text, cli, tmp_path):
    done = cli("play", *words, "--out", tmp_path / "x")
    assert done.code == 2 and text in done.err and "Traceback" not in done.err, (done.out, done.err)
    assert not (tmp_path / "x").exists()
