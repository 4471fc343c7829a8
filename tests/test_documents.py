"""README, examples and docstrings say what is so."""

import doctest
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import danskin
from danskin.cli.catalog import template
from danskin.report.training import markdown_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = [m.name for m in pkgutil.walk_packages(danskin.__path__, "danskin.") if not m.name.endswith("__main__")]


@pytest.mark.parametrize("name", MODULES)
def test_doctests_hold(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_template_table_of_the_readme_is_that_of_the_classes():
    listed = [line.split("|")[2:-1] for line in README.splitlines() if line.startswith("| `")]
    listed = {tuple(cell.strip() for cell in row) for row in listed}
    told = {(row["x"], row["y"], row["Y"], row["Phi"], row["how they move"]) for row in template()}
    assert listed == told


def test_every_attack_and_objective_says_who_is_who():
    names = {row["name"] for row in template()}
    assert {"fgsm", "pga", "pgd", "majorize_minimize", "linear_worst_case", "standard", "adversarial"} <= names


def test_the_readme_shows_the_committed_result():
    result = json.loads((ROOT / "docs/results/digits/result.json").read_text(encoding="utf-8"))
    assert markdown_table(result) in README


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(script, tmp_path):
    subprocess.run([sys.executable, script, tmp_path], check=True, timeout=120, capture_output=True)
    assert list(tmp_path.iterdir())


def test_links_of_the_documents_lead_somewhere():
    for document in (ROOT / "README.md", ROOT / "docs/results/README.md", ROOT / "bench/README.md"):
        for part in document.read_text(encoding="utf-8").split("](")[1:]:
            link = part.split(")")[0].split("#")[0]
            assert not link or "://" in link or (document.parent / link).exists(), f"{document.name}: {link}"
