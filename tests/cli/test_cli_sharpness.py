"""`danskin sharpness`: numbers are the library's, folders are complete, runs stay as they are, bad input is told."""

import json
from pathlib import Path

import pytest
import torch

from danskin.data import to_float
from danskin.metrics import hessian_eigenvalues, hessian_trace, m_sharpness
from danskin.run.source import open_source

FEW = ["--examples", 40, "--m", 10, "--steps", 2, "--draws", 3, "--lines", 2, "--points", 3, "--eigenvalues", 1, "-q"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_words):
    """A finished run of two models."""
    import contextlib
    import io
    import sys
    from unittest import mock

    from danskin.cli import main

    folder = tmp_path_factory.mktemp("sharp") / "run"
    words = ["danskin", "train", *small_words, "objectives=[standard, adversarial]", "--out", str(folder), "-q"]
    with (
        mock.patch.object(sys, "argv", words),
        contextlib.suppress(SystemExit),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        main()
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def test_numbers_are_those_of_the_library_and_the_run_is_left_alone(cli, run, tmp_path):
    before = contents(run)
    got = cli("sharpness", run, *FEW, "--plane", 3, "--out", tmp_path / "out", "--json")
    assert got.code == 0, got.err
    result = json.loads(got.out)
    assert contents(run) == before
    assert list(result["models"]) == ["standard", "adversarial"]
    _, split, models = open_source(run, [], torch.device("cpu"))
    x, y = to_float(split.train[0][:40]), split.train[1][:40]
    for name, model in models.items():
        found = result["models"][name]
        top = hessian_eigenvalues(model, x, y)
        assert found["eigenvalues"]["values"] == pytest.approx(top.values.tolist(), rel=1e-6)
        assert found["trace"]["value"] == pytest.approx(hessian_trace(model, x, y, 3).value, rel=1e-5)
        for key, options in (("m_sharpness", {}), ("m_sharpness_ascent", {"steps": 2}),
                             ("adaptive_m_sharpness", {"radius": 0.5, "adaptive": True})):  # fmt: skip
            wanted = m_sharpness(model, x, y, **({"radius": 0.05, "m": 10} | options)).value
            assert found[key]["at_least"] == pytest.approx(wanted, rel=1e-4, abs=1e-9)
        assert found["plane"]["loss"][1][1] == pytest.approx(found["loss"], rel=1e-5)
        assert found["line"]["loss"][0][1] == pytest.approx(found["loss"], rel=1e-5)
    assert json.loads((tmp_path / "out/sharpness.json").read_text()) == {
        k: v for k, v in result.items() if k != "folder"
    }
    written = {path.name for path in contents(tmp_path / "out")}
    assert written == {"sharpness.json", "sharpness.md", "loss-line.svg", "loss-plane.svg"}
    assert "standard" in (tmp_path / "out/figures/loss-plane.svg").read_text()


def test_the_table_names_models_of_several_sources_apart_and_says_lower_bound(cli, run, tmp_path):
    weights = run / "checkpoints/standard/best.safetensors"
    got = cli("sharpness", run, weights, *FEW, "--split", "test", "--out", tmp_path)
    assert got.code == 0, got.err
    table = (tmp_path / "sharpness.md").read_text()
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(set(rows)) == 3
    assert all(name.endswith(("standard", "adversarial")) for name in rows)
    assert "a lower bound" in table
    assert "40 test examples" in table
    assert "(× 1.00)" in table  # the same weights again
    assert "do not compare" not in got.err + table


def test_models_judged_on_other_data_or_of_other_shape_are_not_compared_silently(cli, run, small_words, tmp_path):
    other = tmp_path / "other"
    assert cli("train", *small_words, "seed=5", "model.options={width: 6}", "--out", other, "-q").code == 0
    got = cli("sharpness", run, other, *FEW, "--out", tmp_path / "out")
    assert got.code == 0, got.err
    assert "do not compare" in got.err  # another seed holds out other examples
    assert "different shapes" in got.err


def test_models_with_one_output_are_judged_by_the_logistic_loss_and_small_ones_have_few_eigenvalues(cli, tmp_path):
    words = ["linear", "trainer.epochs=1", "trainer.watch.every=0", "threads=1", "evaluation.curve=[]"]
    assert cli("train", *words, "--out", tmp_path / "run", "-q").code == 0
    got = cli("sharpness", tmp_path / "run", *FEW, "--eigenvalues", 200, "--out", tmp_path / "out", "--json")
    assert got.code == 0, got.err
    for found in json.loads(got.out)["models"].values():
        assert found["loss_name"] == "logistic"
        assert len(found["eigenvalues"]["values"]) == found["weights"] < 200


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [(["--m", 99], 2, "--m"), (["--points", 4], 2, "--points"), (["--plane", 4], 2, "--plane"),
     (["--radius", "0"], 2, "--radius"), (["--radius", "wide"], 2, "wide"), (["--split", "dev"], 2, "--split"),
     (["--span", "-1"], 2, "--span"), (["--out", __file__], 2, "folder")],
)  # fmt: skip
def test_bad_options_are_told_before_any_work(cli, run, options, code, told):
    got = cli("sharpness", run, *FEW, *options)
    assert got.code == code, got.err
    assert told in got.err
    assert "Traceback" not in got.err


def test_what_is_no_run_is_missing(cli, tmp_path):
    got = cli("sharpness", tmp_path / "none", "--out", tmp_path / "out")
    assert got.code == 4
    assert "expected" in got.err
