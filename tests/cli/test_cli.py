"""The command line: exit codes, one JSON document on stdout, errors in a sentence, files that can be trusted."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from danskin.attacks import ATTACKS
from danskin.cli import catalog
from danskin.data import load
from danskin.run.config import load_config
from danskin.run.recipe import parse_yaml
from danskin.run.schema import plain


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, request):
    """A finished small run with two models, made once."""
    from danskin.cli.training import train

    small = request.getfixturevalue("small_words")
    folder = tmp_path_factory.mktemp("runs") / "one"
    words = [w if not w.startswith("objectives") else "objectives=[standard, adversarial]" for w in small]
    train(words, None, folder, folder.parent, False, False, True)
    return folder


def ends(done, code, *texts):
    """The exit code, a sentence on stderr that holds the texts, and no traceback."""
    assert done.code == code, (done.out, done.err)
    assert "Traceback" not in done.err
    for text in texts:
        assert text in done.err, done.err


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        (["trian"], 2, ["No such command 'trian'"]),
        (["train", "--epochs", "3"], 2, ["No such option"]),
        (["train", "digit"], 4, ["recipe: expected a file or one of", "got 'digit'; did you mean 'digits'?"]),
        (["train", "digits", "trainer.epoch=3"], 2, ["trainer.epoch: expected a known key", "did you mean 'epochs'?"]),
        (["train", "digits", "epochs"], 2, ["override: expected key=value, got 'epochs'"]),
        (["train", "digits", "attack.ball.radius=-1"], 2, ["attack.ball: ", "-1"]),
        (["train", "digits", "attack.ball.radius=8", "--dry-run"], 2, ["radius: expected at most 1", "'8/255'"]),
        (["train", "digits", "data.name=digit"], 2, ["data.name: expected a known data set", "'digits'"]),
        (["train", "digits", "device=gpu"], 2, ["device: expected auto, cpu, cuda, cuda:N or mps, got 'gpu'"]),
        (["train", "--resume", "nowhere"], 4, ["nowhere: expected the folder of a run", "ls runs/*"]),
        (["train", "digits", "--resume", "nowhere"], 2, ["train: expected --resume alone"]),
        (["evaluate", "nowhere"], 4, ["nowhere: expected a run folder or a weights file, got nothing there"]),
        (["report", "nowhere"], 4, ["nowhere: expected the folder of a run"]),
        (["list", "atacks"], 2, ["list: expected a kind of thing, got 'atacks'; did you mean 'attacks'?"]),
        (["show", "pdg"], 2, ["show: expected a known name, got 'pdg'; did you mean 'pgd'?"]),
        (["attack", "nowhere", "--n", "0"], 2, ["--n"]),
    ],
)
def test_mistakes(words, code, texts, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ends(cli(*words), code, *texts)
    assert not (tmp_path / "nowhere").exists()


def test_missing_data_set_names_the_command_that_brings_it(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("DANSKIN_DATA", str(tmp_path))
    done = cli("train", "mnist", "--runs", tmp_path / "runs", "-q")
    ends(done, 4, "mnist was not found; looked in", "python -c \"import danskin.data; danskin.data.download('mnist')\"")


def test_missing_package_names_the_extra(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "danskin.cli.app", None)
    assert cli("list").code == 4
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "danskin.cli.app")
    ends(cli("list"), 4, "danskin: the command line needs typer; pip install 'danskin[run]'")


def test_unexpected_failure_keeps_its_traceback(cli, monkeypatch):
    """Python then ends with exit code 1."""
    monkeypatch.setattr(catalog, "listing", None)
    with pytest.raises(TypeError):
        cli("list")


def test_help_imports_no_torch():
    code = (
        "import sys\nsys.argv = ['danskin', '--help']\nfrom danskin.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'pydantic', 'ruamel'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout and "evaluate" in done.stdout


@pytest.mark.parametrize("command", ["train", "evaluate", "attack", "report", "list", "show", "doctor"])
def test_each_command_has_help(command, cli):
    done = cli(command, "--help")
    assert done.code == 0
    assert "Usage" in done.out


def test_version(cli):
    import danskin

    assert cli("--version").out == f"danskin {danskin.__version__}\n"


def test_list_as_json(cli):
    rows = json.loads(cli("list", "--json").out)
    assert {r["kind"] for r in rows} >= {"attacks", "balls", "data", "losses", "models", "recipes", "schedules"}
    assert all(r["what"] for r in rows)
    assert {r["name"] for r in json.loads(cli("list", "attacks", "--json").out)} == set(ATTACKS)


def test_list_as_table(cli):
    out = cli("list", "attacks").out
    assert all(name in out for name in ATTACKS)


def test_template_tells_who_is_who_for_every_attack_and_objective(cli):
    rows = json.loads(cli("list", "--template", "--json").out)
    assert set(rows[0]) == {"package", "name", "x", "y", "Y", "Phi", "how they move"}
    assert {r["name"] for r in rows if r["package"] == "attacks"} == set(ATTACKS)
    assert {r["x"] for r in rows if r["package"] == "objectives"} == {"weights", "generator"}
    assert all(all(r.values()) for r in rows)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("pgd", ["pgd (attacks)", "random_start: True", "ball: (needed)"]),
        ("config", ["A whole training run", "Defaults:", "objectives: [adversarial]"]),
        ("small_cnn", ["small_cnn (models)", "width: 16"]),
        ("digits", ["digits (data)", "digits (recipes)", "objectives: [standard, adversarial]"]),
        ("cross_entropy", ["cross_entropy (losses)", "-log softmax"]),
        ("one_cycle", ["one_cycle (schedules)", "peak: 0.4"]),
    ],
)
def test_show(name, texts, cli):
    done = cli("show", name)
    assert done.code == 0
    assert all(text in done.out for text in texts), done.out


def test_doctor(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("DANSKIN_DATA", str(tmp_path))
    done = cli("doctor", "--json")
    rows = {row["what"]: row for row in json.loads(done.out)}
    assert done.code == 0
    assert rows["torch"]["ok"] and rows["data: digits"]["ok"] and not rows["data: mnist"]["ok"]
    assert "download('mnist')" in rows["data: mnist"]["detail"]
    assert "torch" in cli("doctor").out


def test_doctor_says_4_when_something_essential_is_missing(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    done = cli("doctor", "--json")
    assert done.code == 4
    row = next(r for r in json.loads(done.out) if r["what"] == "safetensors")
    assert (row["ok"], row["detail"]) == (False, "pip install 'danskin[run]'")


def test_dry_run_prints_the_config_and_writes_nothing(cli, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli(*small, "--dry-run")
    assert done.code == 0
    assert parse_yaml(done.out, "out") == plain(load_config("digits", small[2:-1]))
    assert "adversarial: 10 steps of 40 examples" in done.err
    assert list(tmp_path.iterdir()) == []
    assert json.loads(cli(*small, "--dry-run", "--json").out) == parse_yaml(done.out, "out")


def test_train_as_json_is_one_document(cli, small, tmp_path):
    done = cli(*small, "--runs", tmp_path, "--json")
    result = json.loads(done.out)
    assert result["run"].startswith(str(tmp_path / "digits"))
    assert set(result["models"]) == {"adversarial"}
    assert result["report"].endswith("report.html")


def test_progress_goes_to_stderr(cli, small, tmp_path):
    done = cli(*small[:-1], "--out", tmp_path / "run", "--json")
    assert "adversarial: epoch 2/2" in done.err
    json.loads(done.out)


def test_evaluate_repeats_the_runs_result(cli, run_folder):
    done = cli("evaluate", run_folder, "--json", "-q")
    assert done.code == 0, done.err
    again, first = json.loads(done.out), json.loads((run_folder / "result.json").read_text())
    for label in ("standard", "adversarial"):
        assert again["models"][label]["clean"] == first["models"][label]["clean"]
        assert again["models"][label]["worst_case"] == first["models"][label]["worst_case"]


def test_evaluate_one_model_and_write_it(cli, run_folder, tmp_path):
    done = cli("evaluate", run_folder, "--model", "standard", "--out", tmp_path / "r.json", "-q")
    assert done.code == 0, done.err
    assert "standard" in done.out and "adversarial" not in done.out
    assert set(json.loads((tmp_path / "r.json").read_text())["models"]) == {"standard"}
    ends(cli("evaluate", run_folder, "--model", "robust"), 2, "--model: expected one of standard, adversarial")


def test_evaluate_a_weights_file(cli, run_folder):
    folder = cli("evaluate", run_folder, "--json", "-q")
    file = cli("evaluate", run_folder / "checkpoints/adversarial/best.safetensors", "--json", "-q")
    assert file.code == 0, file.err
    assert list(json.loads(file.out)["models"]) == ["adversarial"]
    known, found = (json.loads(d.out)["models"]["adversarial"]["worst_case"] for d in (folder, file))
    assert known == found


def test_larger_radius_never_helps(cli, run_folder):
    listed = "evaluation.attacks=[{name: pgd, ball: {name: linf, radius: %s}, steps: 5}]"
    shares = []
    for radius in ("0.01", "0.1", "0.5"):
        done = cli("evaluate", run_folder, listed % radius, "--model", "adversarial", "--json", "-q")
        shares.append(json.loads(done.out)["models"]["adversarial"]["worst_case"]["hits"])
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("radius", [0.15, 0.05])
def test_attack_writes_points_that_pass_the_audit(radius, cli, run_folder, tmp_path):
    out = tmp_path / "a.npz"
    words = ["attack.name=fgsm", f"attack.ball.radius={radius}", "--n", 30, "--out", out, "--json"]
    done = cli("attack", run_folder, *words)
    assert done.code == 0, done.err
    summary, a = json.loads(done.out), dict(np.load(out))
    data = load("digits")
    assert set(a) == {"x", "y", "adversarial", "clean_prediction", "prediction", "success", "loss"}
    assert np.array_equal(a["x"], data.x_test[:30].numpy().astype(np.float32) / 255)
    assert np.array_equal(a["y"], data.y_test[:30].numpy())
    assert np.abs(a["adversarial"].astype(np.float64) - a["x"]).max() <= radius * (1 + 1e-5)
    assert np.abs(a["adversarial"] - a["x"]).max() > 0.99 * radius
    assert a["adversarial"].min() >= 0 and a["adversarial"].max() <= 1
    assert np.array_equal(a["success"], a["prediction"] != a["y"])
    assert summary["success"] == a["success"].sum() and summary["n"] == 30
    assert summary["wrong_before"] == (a["clean_prediction"] != a["y"]).sum()
    assert summary["attack"].startswith("FGSM(")
    assert summary["model"] == "adversarial"


def test_attack_in_words(cli, run_folder):
    done = cli("attack", run_folder, "--n", "5", "--model", "standard")
    assert done.code == 0, done.err
    assert "wrong before:" in done.out and "of 5" in done.out and "model:        standard" in done.out


def test_hostile_weights_file_is_refused(cli, tmp_path):
    class Hostile:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    (tmp_path / "best.safetensors").write_bytes(pickle.dumps(Hostile()))
    ends(cli("evaluate", tmp_path / "best.safetensors"), 2, "best.safetensors: expected safetensors, got a file that")
    assert not (tmp_path / "owned").exists()


def test_weights_without_a_card(cli, tmp_path):
    save_file({"w": np.zeros(2, np.float32)}, tmp_path / "a.safetensors")
    ends(cli("evaluate", tmp_path / "a.safetensors"), 2, "a.safetensors: expected weights that danskin wrote")


def test_card_that_belongs_to_other_weights(cli, run_folder, tmp_path):
    with safe_open(run_folder / "checkpoints/adversarial/best.safetensors", framework="np") as file:
        card = file.metadata()
    save_file({"w": np.zeros(2, np.float32)}, tmp_path / "a.safetensors", metadata=card)
    ends(cli("evaluate", tmp_path / "a.safetensors"), 2, "a.safetensors: expected weights of this architecture")


def test_run_without_weights(cli, run_folder, tmp_path):
    (tmp_path / "config.yaml").write_text((run_folder / "config.yaml").read_text())
    ends(cli("evaluate", tmp_path), 4, "best.safetensors: expected weights, got nothing there")
    assert not (tmp_path / "checkpoints").exists()


def test_report_prints_its_path(cli, run_folder):
    assert cli("report", run_folder).out.strip() == str(run_folder / "report.html")
