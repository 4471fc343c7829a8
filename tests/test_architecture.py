"""The arrows of the design: who may import whom, read from the source."""

import ast
import sys
from pathlib import Path

import pytest

import danskin

ROOT = Path(danskin.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
DIRECT = {
    "errors": set(),
    "files": set(),
    "inputs": {"errors"},
    "callables": {"errors"},
    "minmax": {"errors"},
    "losses": {"minmax", "inputs"},
    "lipschitz": {"callables", "inputs", "minmax"},
    "transport": {"minmax"},
    "optim": {"minmax"},
    "metrics": {"callables", "losses", "minmax"},
    "attacks": {"callables", "losses", "minmax"},
    "regularizers": {"attacks", "losses"},
    "training": {"attacks", "regularizers", "losses", "metrics", "optim", "data"},
    "critics": {"lipschitz", "transport"},
    "gan": {"critics", "games", "metrics", "optim", "minmax"},
    "games": {"minmax", "optim"},
    "evaluation": {"attacks", "lipschitz", "metrics"},
    "data": {"errors", "inputs"},
    "models": {"errors", "lipschitz"},
}
LIBRARY = set(DIRECT)
DIRECT |= {
    "foreign": {"models", "evaluation"},
    "report": {"files"},
    "run": LIBRARY | {"files", "foreign", "report"},
    "recipes": LIBRARY | {"run", "report"},
    "cli": LIBRARY | {"run", "recipes", "report"},
    "testing": LIBRARY,
}
DRAWING, ASKING, READING = {"matplotlib", "jinja2"}, {"typer", "rich"}, {"yaml", "ruamel"}
#: Tools that only some packages may use.
TOOLS = {package: DRAWING | ASKING | READING for package in (*LIBRARY, "foreign", "testing")} | {
    "report": ASKING,
    "run": DRAWING,
    "recipes": DRAWING,
    "cli": DRAWING,
}


def allowed(package):
    """All that a package may import: what its arrows reach, the errors, the version."""
    reached, todo = {"errors", package}, [package]
    while todo:
        for other in DIRECT[todo.pop()] - reached:
            reached.add(other)
            todo.append(other)
    return reached


def package_of(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(file, top_level_only=False):
    """Full names of the modules a file imports; what stands under TYPE_CHECKING counts too."""
    tree = ast.parse(file.read_text())
    skipped = set()
    if top_level_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                skipped |= {id(n) for n in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = file.relative_to(ROOT.parent).with_suffix("").parts
            base = ".".join(parts[: -node.level]) + "." if node.level else ""
            name = (base + (node.module or "")).strip(".")
            yield from (f"{name}.{alias.name}" for alias in node.names) if name == "danskin" else [name]


def ids(file):
    return str(file.relative_to(ROOT))


def test_arrows_have_no_cycle():
    for package in DIRECT:
        assert all(package not in allowed(other) for other in allowed(package) - {package}), package


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_imports_follow_the_arrows(file):
    package = package_of(file)
    if package in ("__init__", "__main__"):
        pytest.skip("the front door names everything, lazily")
    assert package in DIRECT, f"{package}: add it to the arrows of the design"
    for name in imports(file):
        if name.startswith("danskin."):
            target = name.split(".")[1]
            is_module = (ROOT / target).is_dir() or (ROOT / f"{target}.py").exists()
            assert not is_module or target in allowed(package), f"{package} must not import {name}"


@pytest.mark.parametrize("file", [f for f in FILES if package_of(f) in TOOLS], ids=ids)
def test_tools_of_drawing_and_of_asking_stay_in_their_rooms(file):
    assert not {name.split(".")[0] for name in imports(file)} & TOOLS[package_of(file)]


@pytest.mark.parametrize("file", [f for f in FILES if package_of(f) == "minmax"], ids=ids)
def test_spine_imports_torch_only(file):
    outside = {name.split(".")[0] for name in imports(file)} - set(sys.stdlib_module_names)
    assert outside <= {"torch", "danskin"}


@pytest.mark.parametrize("file", [f for f in FILES if package_of(f) in ("data", "models")], ids=ids)
def test_data_and_models_import_torch_and_numpy_only(file):
    outside = {name.split(".")[0] for name in imports(file, top_level_only=True)} - set(sys.stdlib_module_names)
    assert outside <= {"torch", "numpy", "danskin"}


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_modules_are_short(file):
    assert len(file.read_text().splitlines()) <= 460


def test_testing_does_not_need_pytest():
    for file in FILES:
        if package_of(file) == "testing":
            assert "pytest" not in {name.split(".")[0] for name in imports(file, top_level_only=True)}
