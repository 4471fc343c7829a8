"""Whole models in one file: torch.export and TorchScript, honest and hostile."""

import hashlib
import io
import json
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from danskin.attacks import PGD
from danskin.errors import CheckpointError, ConfigError, ModelError
from danskin.foreign import check_model, open_model
from danskin.foreign.graphs import open_exported
from danskin.lipschitz.reading import read
from danskin.minmax import Linf

CPU = torch.device("cpu")
X = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 3)
    ).eval()


class Mixed(nn.Module):
    """More kinds of nodes: sizes, tuples, constants, no_grad, names that are words, texts, a mapping as output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.input = nn.Linear(8, 3)
        self.add_module("the-norm", nn.LayerNorm(8))
        self.register_buffer("shift", torch.ones(3))
        self.constant = torch.arange(3.0)

    def forward(self, x):
        a, b = x.mean(1).reshape(x.shape[0] * 2, 4, 8).mean(1).split(4, dim=1)
        z = torch.einsum("bi,oi->bo", self.get_submodule("the-norm")(torch.cat([a, b], 1)), self.input.weight)
        with torch.no_grad():
            s = z.mean() * 0
        z = z.reshape(x.shape[0], 2, 3).sum(1) + self.shift * self.constant + s
        return {"logits": z * x.shape[0] / x.size(0), "other": a}


def exported(path, model, x=X, dynamic=True, least=None, most=None):
    batch = torch.export.Dim("batch", min=least, max=most) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},) if dynamic else None)
        torch.export.save(program, path)
    return path


def traced(path, model, x=X, freeze=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(model, x)
        (torch.jit.freeze(script) if freeze else script).save(path)
    return path


def opened(path, x=X):
    return check_model(open_model(str(path), device=CPU, classes=3), x)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("exported") / "net.pt2", net())


def robust(model):
    return PGD(Linf(0.05), steps=5)(model, X, Y, seed=0)


FORMS = {
    "net.pt2": exported,
    "fixed.pt2": lambda path, model: exported(path, model, X[:3], dynamic=False),
    "limits.pt2": lambda path, model: exported(path, model, X[:4], least=2, most=5),
    "net.ts": traced,
    "net.pt": traced,
    "frozen.ts": lambda path, model: traced(path, model, freeze=True),
}


@pytest.mark.parametrize("name", FORMS)
def test_same_logits_same_attack_any_batch_size(tmp_path, name):
    model = net()
    found = opened(FORMS[name](tmp_path / name, model))
    assert found.differentiable and isinstance(found.model, nn.Module)
    assert not any(m.training for m in found.model.modules())
    assert found.hash == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    for n in (1, 2, 3, 6, 7):
        torch.testing.assert_close(found.model(X[:n]), model(X[:n]), rtol=0, atol=1e-5)
    wanted, got = robust(model), robust(found.model)
    assert torch.equal(got.success, wanted.success) and got.success.any() and not got.success.all()
    torch.testing.assert_close(got.delta, wanted.delta, rtol=0, atol=1e-5)


def test_batch_sizes_are_told(tmp_path, program):
    assert open_model(str(program), device=CPU).note == "exported for inputs of shape (any, 1, 8, 8)"
    fixed = open_model(str(FORMS["fixed.pt2"](tmp_path / "a.pt2", net())), device=CPU)
    assert "fixed batch size of 3" in fixed.note and "shape (3, 1, 8, 8)" in fixed.note
    limits = open_model(str(FORMS["limits.pt2"](tmp_path / "b.pt2", net())), device=CPU)
    assert "for batches of 2 to 5: others are cut or filled up" in limits.note


def test_gradients_pass_batches_that_are_cut_and_filled(tmp_path):
    found = opened(FORMS["fixed.pt2"](tmp_path / "a.pt2", net()))
    gradients = []
    for model in (found.model, net()):
        x = X.clone().requires_grad_()
        gradients += torch.autograd.grad(model(x).logsumexp(1).sum(), x)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)


def test_traced_batch_size_is_found(tmp_path):
    class Burned(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(64, 3)

        def forward(self, x):
            return self.net(x.reshape(int(x.shape[0]), 64)) + torch.zeros(int(x.shape[0]), 3)

    model = Burned().eval()
    found = opened(traced(tmp_path / "net.ts", model, X[:2].repeat(4, 1, 1, 1)))
    assert "takes batches of 8 only" in found.note
    torch.testing.assert_close(found.model(X), model(X), rtol=0, atol=1e-6)


def test_more_kinds_of_nodes(tmp_path):
    model = Mixed().eval()
    found = opened(exported(tmp_path / "net.pt2", model))
    assert "logits taken out of the model's output" in found.note
    for n in (1, 7):
        torch.testing.assert_close(found.model(X[:n]), model(X[:n])["logits"], rtol=0, atol=1e-5)


def test_programs_after_decomposition(tmp_path):
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("b")},)).run_decompositions()
        torch.export.save(program, tmp_path / "net.pt2")
    torch.testing.assert_close(opened(tmp_path / "net.pt2").model(X), model(X), rtol=0, atol=1e-5)


def test_layout_of_older_torch(tmp_path):
    schema = pytest.importorskip("torch._export.serde.schema")
    from torch._export.serde.serialize import serialize

    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = serialize(torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("b")},)))
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("version", ".".join(map(str, schema.SCHEMA_VERSION)))
        archive.writestr("serialized_exported_program.json", parts.exported_program)
        archive.writestr("serialized_state_dict.pt", parts.state_dict)
        archive.writestr("serialized_constants.pt", parts.constants)
        archive.writestr("serialized_example_inputs.pt", parts.example_inputs)
    torch.testing.assert_close(opened(tmp_path / "net.pt2").model(X), model(X), rtol=0, atol=1e-5)


def test_programs_that_cannot_be_judged(tmp_path):
    with pytest.raises(ModelError, match=r"exported in training mode.*model.eval\(\)"):
        opened(exported(tmp_path / "train.pt2", net().train()))

    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(Two(), (X, X)), tmp_path / "two.pt2")
        torch.export.save(torch.export.export(net(), (), {"input": X}), tmp_path / "keyword.pt2")
    with pytest.raises(ModelError, match="takes one tensor by position, got 2 inputs"):
        opened(tmp_path / "two.pt2")
    with pytest.raises(ModelError, match="takes one tensor by position"):
        opened(tmp_path / "keyword.pt2")
    with pytest.raises(ModelError, match=r"got RuntimeError.*shape \(any, 1, 8, 8\): give such data"):
        opened(FORMS["net.pt2"](tmp_path / "net.pt2", net()), torch.rand(2, 3, 8, 8))


# Hostile files: each would run code in plain torch.export.load, or come close.


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def forged(program, out, change=None, members=None):
    """A copy of a program with its JSON changed or members replaced."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("models/model.json") and change:
                tree = json.loads(content)
                change(tree)
                content = json.dumps(tree).encode()
            new.writestr(name, (members or {}).get(name.partition("/")[2], content))
        for name, content in (members or {}).items():
            if f"net/{name}" not in old.namelist():
                new.writestr(f"net/{name}", content)
    return out


def first(tree):
    return tree["graph_module"]["graph"]["nodes"][0]


def targeted(target):
    def change(tree):
        first(tree).update(target=target, inputs=[{"name": "", "arg": {"as_string": "touch exploded"}, "kind": 1}])

    return change


def sized(text):
    def change(tree):
        tree["graph_module"]["graph"]["tensor_values"]["x"] = tree["graph_module"]["graph"]["tensor_values"]["input"]
        tree["graph_module"]["graph"]["tensor_values"]["input"]["sizes"][0] = {
            "as_expr": {"expr_str": text, "hint": None}
        }

    return change


def placeholder(tree):
    tree["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = "x=__import__('os').system('touch exploded')"


def parameter(tree):
    tree["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = '"+str(1)+"'


def in_spec(tree):
    call = tree["graph_module"]["module_call_graph"][0]["signature"]
    call["in_spec"] = (
        call["in_spec"]
        .replace('"context": \\"[]\\"', '"context": {}')
        .replace(
            '"builtins.dict", "context": "[]"',
            '"builtins.dict", "context": "[{\\"__enum__\\": true, \\"fqn\\": \\"os:path\\", \\"name\\": \\"x\\"}]"',
        )
    )


def stored(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def weights_config(program, entry):
    with zipfile.ZipFile(program) as archive:
        name = next(n for n in archive.namelist() if n.endswith("model_weights_config.json"))
        config = json.loads(archive.read(name))
    next(iter(config["config"].values())).update(entry)
    return json.dumps(config).encode()


HOSTILE = {
    "os.system": (targeted("torch.os.system"), "a call of 'torch.os.system'"),
    "torch.load": (targeted("torch.load"), "a call of 'torch.load'"),
    "a private path": (targeted("torch.ops.aten.relu.default.__class__"), "a call of"),
    "an extension": (targeted("#thing:x"), "a call of '#thing:x'"),
    "a builtin": (targeted("_operator.methodcaller"), "a call of '_operator.methodcaller'"),
    "a file": (targeted("torch.ops.aten.from_file.default"), "access to files"),
    "an unknown operator": (targeted("torch.ops.aten.no_such.default"), "which is unknown here"),
    "no operator": (targeted("torch.ops.aten.name.upper"), "which is unknown here"),
    "a size": (sized("__import__('os').system('touch exploded')"), "a text that could be code .expr_str"),
    "a size with attributes": (sized("Symbol('s77').__class__"), "a text that could be code"),
    "a size with a lambda": (sized("(lambda: 3)()"), "a text that could be code"),
    "a guard": (lambda tree: tree.update(guards_code=["__import__('os').system('touch exploded')"]), "guards_code"),
    "a name": (placeholder, "a text that could be code .name"),
    "a parameter's name": (parameter, "a text that could be code .parameter_name"),
    "a key": (lambda tree: tree["graph_module"]["graph"]["tensor_values"].update({"x()": {}}), "a name that is none"),
    "a symbol": (lambda tree: tree["range_constraints"].update({"s0()": {}}), "an unknown symbol"),
    "an enum": (in_spec, "a key that is no text"),
    "an unknown text": (lambda tree: tree.update(more="f()"), "a text that could be code .more"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_programs_are_refused(program, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    change, words = HOSTILE[what]
    with pytest.raises(CheckpointError, match=words):
        open_exported(forged(program, tmp_path / "evil.pt2", change), CPU, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pt2"]


def test_hostile_members_are_refused(program, tmp_path):
    bomb, evil = tmp_path / "exploded", tmp_path / "evil.pt2"
    pickled = weights_config(program, {"use_pickle": True})
    outside = weights_config(program, {"path_name": "../../secret"})
    for members, words in (
        (
            {"data/weights/model_weights_config.json": pickled, "data/weights/weight_0": stored(Bomb(bomb))},
            "a pickled object",
        ),
        ({"data/weights/model_weights_config.json": outside}, "a pickled object"),
        ({"data/weights/model.pt": stored({"a": Bomb(bomb)})}, "pickled objects"),
        ({"data/constants/model.pt": stored(Bomb(bomb))}, "pickled objects"),
        ({"data/aotinductor/model/net.so": b"\x7fELF"}, "compiled code"),
    ):
        with pytest.raises(CheckpointError, match=words):
            open_exported(forged(program, evil, members=members), CPU, 3)
        assert not bomb.exists()
    with zipfile.ZipFile(forged(program, evil), "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("net/models/model.json", b"{}")
    with pytest.raises(CheckpointError, match="each name once"):
        open_exported(evil, CPU, 3)


def test_sample_inputs_are_not_read(program, tmp_path):
    bomb = tmp_path / "exploded"
    evil = forged(program, tmp_path / "evil.pt2", members={"data/sample_inputs/model.pt": stored(Bomb(bomb))})
    torch.testing.assert_close(opened(evil).model(X), net()(X), rtol=0, atol=1e-5)
    assert not bomb.exists()


def test_texts_stay_constants(program, tmp_path):
    def change(tree):
        first(tree)["inputs"].append({"name": "extra", "arg": {"as_string": "'); print('x"}, "kind": 2})

    with pytest.raises(CheckpointError, match=r"that this torch .* reads|does not read|another layout"):
        found = open_exported(forged(program, tmp_path / "odd.pt2", change), CPU, 3)
        raise CheckpointError(f"does not read {found.model(X)}")


def test_hostile_torchscript_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = traced(tmp_path / "net.ts", net())
    lines = {
        "getattr": '    _8 = getattr(torch, "sa" "ve")\n',
        "torch.save": "    _8 = torch.save\n",
        "torch.from_file(": '    _9 = torch.from_file("/etc/passwd", False, 10)\n',
        "torch.save(": '    _9 = torch.save(x, "exploded")\n',
        "ops.profiler": '    _9 = ops.profiler._record_function_enter("a", None)\n',
        "torch.classes": "    _9 = __torch__.torch.classes.dist_c10d.Store\n",
    }
    evil = tmp_path / "evil.ts"
    for words, line in lines.items():
        for rename in (str, lambda name: name.replace("code/", "CODE/").replace(".py", ".PY")):
            with zipfile.ZipFile(path) as old, zipfile.ZipFile(evil, "w") as new:
                for name in old.namelist():
                    code = name.endswith(".py")
                    new.writestr(rename(name) if code else name, old.read(name) + (line.encode() if code else b""))
            with pytest.raises(CheckpointError, match=f"TorchScript that names .*{words.split('.')[-1].strip('(')}"):
                opened(evil)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(evil, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
            if name.endswith(".py"):
                new.writestr(name.upper(), old.read(name))
    with pytest.raises(CheckpointError, match="each name once"):
        opened(evil)
    assert not (tmp_path / "exploded").exists()


def test_broken_files(tmp_path, program):
    for name in ("a.pt2", "b.ts"):
        (tmp_path / name).write_bytes(b"not an archive")
        with pytest.raises(CheckpointError, match=r"does not read|got a file"):
            opened(tmp_path / name)
    (tmp_path / "c.pt2").write_bytes(program.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match=r"does not read|without models/model"):
        opened(tmp_path / "c.pt2")
    with zipfile.ZipFile(tmp_path / "d.pt2", "w") as archive:
        archive.writestr("d/archive_format", "pt2")
    with pytest.raises(CheckpointError, match="without models/model"):
        opened(tmp_path / "d.pt2")
    with pytest.raises(CheckpointError, match="another layout"):
        opened(forged(program, tmp_path / "e.pt2", lambda tree: tree.pop("graph_module")))


def test_files_hold_their_own_weights(program, tmp_path):
    with pytest.raises(ConfigError, match="expected no other weights"):
        open_model(str(program), device=CPU, weights=tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="expected no arguments, got width"):
        open_model(str(program), device=CPU, arguments={"width": 3})
    (tmp_path / "net.keras").write_bytes(b"x")
    with pytest.raises(ConfigError, match="convert it to ONNX"):
        open_model(str(tmp_path / "net.keras"), device=CPU)


def test_frozen_torchscript_from_python():
    """Frozen modules have no training flag; they are handed in as any other."""
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.freeze(torch.jit.script(model))
    y = model(X).argmax(1)
    for given in (frozen, nn.Sequential(frozen)):
        got, wanted = (PGD(Linf(0.05), steps=3)(m, X, y, seed=0) for m in (given, model))
        torch.testing.assert_close(got.delta, wanted.delta)
        torch.testing.assert_close(read(given, X)(X.double()).float(), model(X))
    assert not hasattr(frozen, "training")
