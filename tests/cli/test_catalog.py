"""What is listed without torch is what the classes say; every row of the lecture has a command that is understood."""

import json
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from danskin.attacks import FGSM
from danskin.cli import catalog, collected
from danskin.recipes.rows import plan_of
from danskin.recipes.ways import way_of
from danskin.run.config import load_config
from danskin.run.distance import read_sample
from danskin.run.gan import load_gan_config
from danskin.run.play import play_of
from danskin.run.recipe import GAN_RECIPES, RECIPES

ROOT = Path(__file__).parents[2]
ROWS = catalog.listing("rows")
REFRESH = "run python -m danskin.cli.collected"


def test_the_catalog_is_what_the_classes_say():
    assert json.loads(collected.FILE.read_text(encoding="utf-8")) == collected.collected(), REFRESH


def test_the_page_of_rows_is_written_from_them():
    assert (ROOT / "docs/rows.md").read_text(encoding="utf-8") == collected.page(), REFRESH


def test_every_row_is_there():
    wanted = [f"{part}{k}" for part, last in (("A", 2), ("B", 9), ("C", 16)) for k in range(1, last + 1)]
    later = "D1 D2 D3 D4 D5 E1 E2 E3 E4 E5 E6 E7 E8 F1 F2 F3 F4 F5 F6 F7 G1 G2 G3"
    assert [row["name"] for row in ROWS] == [*wanted, *later.split()]
    named = {row for row in wanted if row not in {r["name"] for r in ROWS if r["code"]}}
    assert named <= {"B9", "C9"}  # pages, not classes


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_the_command_of_a_row_is_understood(row):
    program, *words = shlex.split(row["command"])
    if program == "python":
        assert (ROOT / words[0]).is_file()
    elif words[0] == "train":
        assert words[1] in RECIPES and load_config(words[1], words[2:])
    elif words[0] == "play":
        solvers = [after for word, after in pairwise(words) if word == "--solver"]
        assert play_of(words[1], solvers, [w for w in words[2:] if "=" in w], None, 1, 0)
    elif words[0] == "reproduce":
        way = way_of(words[1])
        assert (way.plan_of(words[1], "smoke", None) if way else plan_of(words[1])).title
    elif words[0] == "gan":
        assert words[1] in GAN_RECIPES and load_gan_config(words[1], words[2:])
    elif words[0] == "distance":
        assert all(len(read_sample(source, None, 10, 0).measure) == 10 for source in words[1:3])
    elif words[0] == "lipschitz":
        assert words[1] in catalog.names("models")
    elif words[0] == "sharpness":
        assert words[1:] == ["RUN"]
    else:
        assert words[0] == "list" and (words[1] == "--template" or catalog.listing(words[1]))


def test_rows_are_read_out_of_docstrings():
    assert collected.named_rows("... Lecture: rows C11 to C13 and B2. See C1.") == ["C11", "C12", "C13", "B2"]
    assert collected.named_rows("as LECTURE row B9 has it, row B8") == ["B9"]
    assert {"FGSM"} <= set(next(r for r in ROWS if r["name"] == "B2")["code"].split(", "))
    assert "(Lecture" not in (FGSM.__doc__ or "")


@pytest.mark.parametrize("words", [["list", "attacks"], ["list"], ["list", "--template", "--json"], ["show", "C8"]])
def test_listing_loads_no_torch(words):
    code = (
        f"import sys\nsys.argv = ['danskin', *{words}]\nfrom danskin.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "sys.exit(f'{heavy}' if (heavy := {'torch', 'numpy', 'ruamel'} & set(sys.modules)) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout, done.stderr


def complete(*words):
    """What a shell is told when tab is pressed behind the last word."""
    asked = {"_DANSKIN_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["danskin", *words]),
             "COMP_CWORD": str(len(words))}  # fmt: skip
    command = [sys.executable, "-m", "danskin"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | asked, timeout=60)
    return done.stdout.split()


def test_a_shell_completes_commands_and_names():
    assert complete("eval") == ["evaluate"]
    assert "pgd" in complete("show", "pg")
    assert complete("reproduce", "C1") and set(complete("reproduce", "C1")) >= {"C10", "C14", "C15"}
    assert "two_moons" in complete("train", "two")


@pytest.mark.parametrize(("word", "text"), [
    ("C3", "'C3'; it is shown by: python examples/not_a_descent_direction.py"),
    ("B7", "it is shown by: danskin train linear"),
    ("C88", "did you mean 'C8'?"),
])  # fmt: skip
def test_rows_without_a_recipe_name_their_command(word, text, cli):
    done = cli("reproduce", word)
    assert done.code == 2 and text in done.err


def test_show_of_a_row(cli):
    done = cli("show", "b7")
    assert done.code == 0
    assert "command: danskin train linear" in done.out and "LinearRobustTraining" in done.out


@pytest.mark.parametrize("recipe", ["two_moons", "linear"])
def test_one_output_and_signs_train_and_are_attacked_from_the_command_line(recipe, cli, tmp_path):
    few = ["data.validation=50", "data.train=300", "data.test=60", "trainer.epochs=3", "threads=1"]
    done = cli("train", recipe, *few, "--out", tmp_path / "run", "--json", "-q")
    assert done.code == 0, done.err
    models = json.loads(done.out)["models"]
    if recipe == "linear":  # no attack finds more than the closed form
        for found in models.values():
            exact, pgd = (next(r for k, r in found["attacks"].items() if k.startswith(n)) for n in ("Linear", "PGD"))
            assert exact["accuracy"]["hits"] <= pgd["accuracy"]["hits"]
    attacked = cli("attack", tmp_path / "run", "--n", "20", "--json")
    assert attacked.code == 0 and json.loads(attacked.out)["n"] == 20, attacked.err
    assert cli("evaluate", tmp_path / "run", "-q").code == 0


def test_signs_need_two_classes(cli):
    done = cli("train", "digits", "data.labels=signs", "--dry-run")
    assert done.code == 2 and "data.labels: expected two classes for signs, got 10" in done.err


def test_formulas_are_shown_without_the_marks_of_tex():
    class Ball:
        r"""All y with :math:`\|y\|_2 \le \epsilon`.

        .. math:: \max_{\delta}\; \left( L(x + \delta) \right)
        """

    shown = collected.documentation(Ball)
    assert shown.splitlines()[0] == "All y with ||y||_2 <= epsilon."
    assert "\\" not in shown and "max_{delta}" in shown
