"""`danskin distance A B`: files, data sets, weights, the floor, and errors in a sentence."""

import json

import numpy as np
import pytest
import torch

from danskin.data import load
from danskin.transport import wasserstein


@pytest.fixture
def clouds(tmp_path):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 2)), draw.normal(size=(50, 2)) + 1
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "y.npz", points=y)
    return tmp_path, x, y


def run(cli, *words):
    done = cli("distance", *words, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_files_give_the_distance_of_the_library(cli, clouds):
    folder, x, y = clouds
    wanted = wasserstein(x, y, 2, p="inf").bracket.value
    found = run(cli, folder / "x.npy", folder / "y.npz", "--q", 2, "--p", "inf")
    assert found["upper"] == wanted and found["closed"] and found["dimension"] == 2
    assert [s["points"] for s in found["samples"]] == [40, 50]
    assert found["floor"]["points"] == 20 and 0 < found["floor"]["upper"] < wanted
    done = cli("distance", folder / "x.npy", folder / "y.npz", "--q", 2, "--p", "inf")
    assert f"W_2, linf norm: {wanted:.6g} (exact, network simplex)" in done.out
    assert "(two halves of A, 20 points each)" in done.out


def test_sinkhorn_prints_a_bracket_and_sliced_distances_are_below_it(cli, clouds):
    folder, x, y = clouds
    words = (folder / "x.npy", folder / "y.npz", "--method", "sinkhorn", "--sliced", 20)
    found = run(cli, *words)
    exact = wasserstein(x, y).bracket.value
    assert found["lower"] <= exact <= found["upper"] <= found["lower"] / (1 - 1e-3) and not found["closed"]
    assert 0 < found["sliced"]["mean"] <= found["sliced"]["max"] <= exact
    done = cli("distance", *words)
    assert "between" in done.out and "certified, sinkhorn" in done.out and "a lower bound of W_1 in l2" in done.out


def test_a_table_may_have_a_header_and_weights(cli, tmp_path):
    (tmp_path / "a.csv").write_text("u,v,weight\n0,0,0.25\n4,0,0.75\n")
    (tmp_path / "b.csv").write_text("0,0\n")
    found = run(cli, tmp_path / "a.csv", tmp_path / "b.csv")
    assert found["upper"] == pytest.approx(3) and found["samples"][0]["weights"]
    (tmp_path / "c.csv").write_text("0;0\n4;0\n")
    np.save(tmp_path / "w.npy", np.array([0.5, 0.5]))
    again = run(cli, tmp_path / "c.csv", tmp_path / "b.csv", "--weights", tmp_path / "w.npy")
    assert again["upper"] == pytest.approx(2) and again["floor"] is None


def test_data_sets_and_their_parts_are_read(cli):
    found = run(cli, "digits:train", "digits", "--points", 60, "--seed", 3)
    assert found["dimension"] == 64 and [s["of"] for s in found["samples"]] == [1437, 360]
    assert found["samples"][0]["points"] == 60
    said = cli("distance", "digits:train", "digits", "--points", "60").err
    assert "digits:train: 60 of 1437 points" in said
    same = run(cli, "two_moons:test", "two_moons:test", "--points", 1000)
    assert same["upper"] == 0 and same["floor"]["upper"] > 0
    points = load("two_moons").x_test
    assert torch.equal(points, points.clamp(0, 1))


@pytest.mark.parametrize(("words", "code", "text"), [
    (["digts", "digits"], 2, "got 'digts'; did you mean 'digits'?"),
    (["digits", "two_moons"], 2, "expected points of one space, got 64 and 2"),
    (["nowhere.npy", "digits"], 4, "nowhere.npy: expected a file, got nothing"),
    (["two_moons", "two_moons", "--q", "0.5"], 2, "q: expected a number of at least 1, got 0.5"),
    (["two_moons", "two_moons", "--p", "3"], 2, "p: expected the norm 1, 2 or inf, got '3'"),
    (["two_moons", "two_moons", "--method", "emd"], 2, "method: expected one of exact"),
    (["two_moons", "two_moons", "--points", "1"], 2, "--points: expected at least 2"),
    (["nan.csv", "ok.csv"], 2, "nan.csv: expected finite numbers, got NaN in row 1"),
    (["words.csv", "ok.csv"], 2, "row 1: expected 2 numbers, got 'x'"),
    (["ragged.csv", "ok.csv"], 2, "row 1: expected 2 numbers, got 1 of them"),
    (["empty.csv", "ok.csv"], 2, "expected lines of numbers, got none"),
    (["ok.csv", "ok.csv", "--weights", "bad.csv"], 2, "weights of ok.csv: expected none below 0"),
    (["ok.csv", "ok.csv", "--weights", "none.npy"], 4, "--weights: expected a file"),
    (["torn.npz", "ok.csv"], 2, "torn.npz: expected a numpy archive"),
    (["many.npz", "ok.csv"], 2, "expected an array named points, got u, v"),
    (["text.npy", "ok.csv"], 2, "expected an array of real numbers, got <U1"),
])  # fmt: skip
def test_wrong_words_and_files_end_with_a_sentence(words, code, text, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (("ok.csv", "0,1\n1,0\n"), ("nan.csv", "0,1\nnan,0\n"), ("words.csv", "0,1\nx,0\n"),
                          ("ragged.csv", "0,1\n2\n"), ("empty.csv", "a,b\n"), ("bad.csv", "1.5\n-0.5\n"),
                          ("torn.npz", "PK torn")):  # fmt: skip
        (tmp_path / name).write_text(content)
    np.savez(tmp_path / "many.npz", u=np.zeros((2, 2)), v=np.zeros((2, 2)))
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    done = cli("distance", *words)
    assert done.code == code and text in done.err and "Traceback" not in done.err, done.err
