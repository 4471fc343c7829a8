"""Models from code that the user names: packages, factories, danskin's own networks."""

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from danskin.errors import ConfigError, DanskinWarning, InputError, MissingError, ModelError
from danskin.evaluation.fingerprint import model_hash
from danskin.foreign import check_model, open_model
from danskin.models import build

CPU = torch.device("cpu")
X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))

CODE = """
import torch
from torch import nn

def make(width=4, classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))

instance = make()
number = 3

class Nets:
    @staticmethod
    def small():
        return make(2)

def with_meta():
    return make(), {"accuracy": 1}

def broken():
    raise ZeroDivisionError("no such layer")

def leaves():
    raise SystemExit(2)

def predict(x):
    return x.flatten(1)[:, :3]

def function():
    return predict

def meta():
    return make().to("meta")

def anything(**options):
    return make(**options)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with module `mynets` and package `mypack`."""
    (tmp_path / "mynets.py").write_text(CODE)
    (tmp_path / "mypack").mkdir()
    (tmp_path / "mypack/__init__.py").write_text("")
    (tmp_path / "mypack/inner.py").write_text(CODE)
    (tmp_path / "needy.py").write_text("import no_such_package.part\n")
    (tmp_path / "faulty.py").write_text("1 / 0\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before
    for name in [n for n in sys.modules if n.partition(".")[0] in ("mynets", "mypack", "needy", "faulty", "script")]:
        del sys.modules[name]


def opened(spec, **options):
    return open_model(spec, device=CPU, **options)


@pytest.mark.parametrize("spec", ["mynets:make", "mypack.inner:make", "mynets:instance"])
def test_a_factory_or_a_module(folder, spec):
    found = check_model(opened(spec, classes=3), X)
    with torch.no_grad():
        torch.manual_seed(0)
        wanted = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 3))
        assert torch.equal(found.model(X), wanted(X))
    assert found.hash == model_hash(wanted) and found.differentiable and found.name == spec
    assert found.note == "put into eval mode" and not any(m.training for m in found.model.modules())


def test_arguments_reach_the_factory(folder):
    assert opened("mynets:make", arguments={"width": 7}).model[1].out_features == 7
    assert opened("mynets:anything", arguments={"width": 7}).model[1].out_features == 7
    assert opened("mynets:Nets.small").model[1].out_features == 2


def test_a_plain_callable_has_no_hash(folder):
    found = check_model(opened("mynets:function"), X)
    assert found.hash is None and found.differentiable and "plain callable" in found.note


REFUSED = {
    "mynetz:make": (MissingError, r"no.*mynetz.*did you mean 'mynets'\?"),
    "mypack.iner:make": (MissingError, r"nothing called mypack.iner.*did you mean 'inner'\?"),
    "zzz.qqq:make": (MissingError, "expected a module zzz.qqq, got nothing called zzz"),
    "needy:make": (MissingError, r"needy imports no_such_package, which is not installed; pip install no_such_package"),
    "faulty:make": (ModelError, r"expected to import faulty, got ZeroDivisionError.*python -c 'import faulty'"),
    "script:make": (ModelError, "expected to import script, got SystemExit: 3"),
    "mynets:mak": (ConfigError, r"expected a name in mynets, got 'mak'; did you mean 'make'\?"),
    "mynets:Nets.smal": (ConfigError, r"expected a name in Nets, got 'smal'; did you mean 'small'\?"),
    "mynets:number": (ConfigError, "expected a factory or a torch module, got int"),
    "mynets:broken": (ModelError, "expected a model, got ZeroDivisionError: no such layer"),
    "mynets:leaves": (ModelError, "expected a model, got SystemExit: 2"),
    "mynets:with_meta": (ModelError, "got tuple of Sequential, dict; return the model only"),
    "mynets:predict": (ConfigError, "expected a value for x, got none.*name a function that returns it"),
    "mynets:meta": (ModelError, "expected weights, got a model on the meta device"),
    "mynets.py:make": (ConfigError, "write for example mynets:make"),
    "./mypack/inner.py:make": (ConfigError, "write for example mypack.inner:make"),
    "mynets:": (ConfigError, "expected package.module:factory, got 'mynets:'"),
    "mynets": (ConfigError, "name the factory, too: mynets:make"),
    "mypack.inner": (ConfigError, "name the factory, too: mypack.inner:make"),
    "mypack": (ConfigError, "got the folder 'mypack'; did you mean 'mypack:factory'"),
    "small_cn": (ConfigError, r"did you mean 'small_cnn'\?"),
    "model.pt2": (MissingError, "model.pt2: expected a model, got nothing there"),
    "hf:": (ConfigError, "expected a name after hf:, got none"),
    "hf:./none": (MissingError, "expected a folder or organisation/model, got nothing there"),
}


@pytest.mark.parametrize("spec", REFUSED)
def test_what_cannot_be_opened(folder, spec):
    kind, words = REFUSED[spec]
    with pytest.raises(kind, match=words):
        opened(spec)


def test_the_cause_is_kept(folder):
    with pytest.raises(ModelError) as caught:
        opened("mynets:broken")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "broken" in [frame.name for frame in _frames(caught.value.__cause__)]


def _frames(error):
    import traceback

    return traceback.extract_tb(error.__traceback__)


@pytest.mark.parametrize(
    "spec, arguments, words",
    [
        ("mynets:make", {"widht": 3}, r"got 'widht'; did you mean 'width'\?"),
        ("mynets:broken", {"a": 3}, "got 'a'; it takes none"),
        ("mynets:instance", {"width": 3}, "got a module that is made already"),
    ],
)
def test_wrong_arguments(folder, spec, arguments, words):
    with pytest.raises(ConfigError, match=words):
        opened(spec, arguments=arguments)


def test_folders_of_other_kinds(folder):
    for file, words in (("config.yaml", "danskin evaluate run"), ("config.json", "did you mean 'hf:run'")):
        (folder / "run").mkdir(exist_ok=True)
        (folder / "run" / file).write_text("{}")
        with pytest.raises(ConfigError, match=words):
            opened("run")
        (folder / "run" / file).unlink()


def test_installed_packages_are_found_and_the_folder_goes_first(folder):
    assert isinstance(opened("torch.nn:Flatten").model, nn.Flatten)
    (folder / "colorsys.py").write_text(CODE)  # of the standard library, not imported by anything here
    sys.modules.pop("colorsys", None)
    assert isinstance(opened("colorsys:make").model, nn.Sequential)
    del sys.modules["colorsys"]


def test_danskin_models_by_name():
    options = {"input_shape": [1, 8, 8], "width": 4, "normalize": "mnist"}
    with pytest.warns(DanskinWarning, match="small_cnn: random weights"):
        found = opened("small_cnn", classes=3, arguments=options)
    twin = build("small_cnn", input_shape=(1, 8, 8), classes=3, width=4, normalize="mnist")
    assert {k: v.shape for k, v in found.model.state_dict().items()} == {
        k: v.shape for k, v in twin.state_dict().items()
    }
    assert check_model(found, X).model(X).shape == (5, 3)
    with pytest.raises(ConfigError, match="expected input_shape, got none"):
        opened("small_cnn", classes=3)
    with pytest.raises(ConfigError, match="expected classes, got none"):
        opened("small_cnn", arguments={"input_shape": [1, 8, 8]})
    with pytest.raises(InputError, match="did you mean 'width'"):
        opened("small_cnn", classes=3, arguments={"input_shape": [1, 8, 8], "wdth": 3})


OTHERS = Path(os.environ.get("DANSKIN_DATA", "nowhere")).resolve().parent / "models"


@pytest.mark.skipif(not (OTHERS / "loader.py").exists(), reason="third-party networks are not here")
def test_third_party_network(tmp_path, monkeypatch):
    (tmp_path / "others.py").write_text(
        f"import sys\nsys.path.append({str(OTHERS)!r})\nfrom loader import load\n\n"
        "def net(name):\n    return load(name)[0]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = check_model(opened("others:net", arguments={"name": "mnist_kw_0.1"}, classes=10), torch.rand(3, 1, 28, 28))
    assert found.differentiable and found.note == ""
    del sys.modules["others"], sys.modules["loader"]
