"""Normalisation in front of any kind of model, and weights that nobody trained."""

import copy
import sys
import warnings

import pytest
import torch
from torch import nn

from danskin.errors import ConfigError, DanskinWarning
from danskin.foreign import check_model, open_model
from danskin.foreign.untrained import watched

CPU = torch.device("cpu")
X = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
CODE = """
import numpy
import torch
from torch import nn
from danskin.models import Normalize

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

def function():
    net = make()
    return lambda x: net(x)

def normal():
    return nn.Sequential(Normalize([0.5], [0.5]), make())

def loaded():
    net = make()
    net.load_state_dict({k: torch.full(v.shape, 0.1) for k, v in make().state_dict().items()})
    return net

def read():
    net = make()
    net.load_state_dict(torch.load("w.pt", weights_only=True), assign=True)
    return net

def headless():
    net = loaded()
    net[3] = nn.Linear(144, 3)
    return net

def by_hand():
    net = make()
    for p in net.parameters():
        p.data = torch.zeros_like(p)
    return net

def by_slices():
    net = make()
    for p in net.parameters():
        p.data[:] = torch.from_numpy(numpy.ones(p.shape, numpy.float32))
    return net

def scaled():
    net = loaded()
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(4, 3, 3, 3) * 0.1)
    return net

def trained():
    net = make()
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    with torch.no_grad():
        net[0].weight -= net[0].weight.grad
    return net

instance = loaded()
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    """The folder with module `frontnets`, and the network that its factory makes."""
    (tmp_path / "frontnets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(CODE, scope)
    model = scope["make"]().eval()
    torch.save({k: v + 1 for k, v in model.state_dict().items()}, tmp_path / "w.pt")
    yield model
    sys.modules.pop("frontnets", None)


def by_code(path, model):
    return "frontnets:make"


def by_function(path, model):
    return "frontnets:function"


def by_script(path, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.freeze(torch.jit.script(model)).save(path / "net.ts")
    return str(path / "net.ts")


def by_trace_of_two(path, model):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            return self.net(x).view(2, 3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Fixed(), X[:2]).save(path / "net.ts")
    return str(path / "net.ts")


def by_export(path, model):
    program = torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path / "net.pt2")
    return str(path / "net.pt2")


def by_onnx(path, model):
    onnx = pytest.importorskip("onnx")
    h = onnx.helper
    nodes = [
        h.make_node("Conv", ["x", "0.weight", "0.bias"], ["a"]), h.make_node("Relu", ["a"], ["b"]),
        h.make_node("Flatten", ["b"], ["c"]), h.make_node("Gemm", ["c", "3.weight", "3.bias"], ["y"], transB=1),
    ]  # fmt: skip
    ends = [h.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", [1, 3, 8, 8]), ("y", None))]
    held = [onnx.numpy_helper.from_array(v.numpy(), k) for k, v in model.state_dict().items()]
    graph = h.make_graph(nodes, "g", ends[:1], ends[1:], held)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), str(path / "net.onnx"))
    return str(path / "net.onnx")


KINDS = [by_code, by_function, by_script, by_trace_of_two, by_export, by_onnx]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__[3:])
def test_every_kind_of_model_can_be_normalised(tmp_path, net, kind):
    spec = kind(tmp_path, net)
    plain = open_model(spec, device=CPU)
    found = check_model(open_model(spec, device=CPU, mean=MEAN, std=STD), X)
    wanted = net((X - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
    torch.testing.assert_close(found.model(X), wanted, rtol=0, atol=1e-5)
    assert found.differentiable and "first layer Normalize(mean=(0.5, 0.4, 0.3)" in found.note
    others = [plain, open_model(spec, device=CPU, mean=MEAN, std=MEAN)]
    assert all(found.hash is None or o.hash != found.hash for o in others)
    assert found.hash == open_model(spec, device=CPU, mean=MEAN, std=STD).hash


def test_half_of_it_and_twice_are_refused(net):
    with pytest.raises(ConfigError, match="expected both or none, got one"):
        open_model("frontnets:make", device=CPU, mean=MEAN)
    with pytest.raises(ConfigError, match=r"begins with Normalize\(mean=\(0.5\), std=\(0.5\)\) itself; leave them out"):
        open_model("frontnets:normal", device=CPU, mean=MEAN, std=STD)


# Weights


@pytest.mark.parametrize(
    "name, random",
    [
        ("make", ["0.weight", "0.bias", "3.weight", "3.bias"]),
        ("normal", ["1.0.weight", "1.0.bias", "1.3.weight", "1.3.bias"]),
        ("headless", ["3.weight", "3.bias"]),
        ("scaled", ["0.weight"]),
        *((name, []) for name in ("loaded", "read", "by_hand", "by_slices", "trained", "instance")),
    ],
)
def test_weights_that_are_still_as_drawn_are_flagged(net, name, random):
    flags = open_model(f"frontnets:{name}", device=CPU).flags
    assert [flag.numbers["parameters"] for flag in flags] == ([random] if random else [])
    if random:
        assert flags[0].name == "random_weights" and flags[0].level == "warning"
        assert f"weights: random, as the factory made them ({random[0]}" in flags[0].text


def test_given_weights_are_not_flagged(tmp_path, net):
    assert open_model("frontnets:make", device=CPU, weights=tmp_path / "w.pt").flags == ()
    with pytest.warns(DanskinWarning, match="random weights"):
        found = open_model("mlp", device=CPU, arguments={"input_shape": (3, 8, 8), "classes": 3})
    assert [flag.name for flag in found.flags] == ["random_weights"]


def test_watching_changes_nothing(net):
    torch.manual_seed(3)
    wanted, state = nn.Linear(3, 3), torch.get_rng_state()
    torch.manual_seed(3)
    got, names = watched(lambda: copy.deepcopy(nn.Linear(3, 3)))
    assert torch.equal(torch.get_rng_state(), state) and names == ["weight", "bias"]
    assert all(torch.equal(a, b) for a, b in zip(wanted.parameters(), got.parameters(), strict=True))


def test_memory_that_is_used_again_is_not_taken_for_drawn():
    """Parameters whose storage is replaced free the drawn one, where the next zeros may come to lie."""
    for _ in range(300):
        model, names = watched(replaced)
        assert names == [] and all((p == 0).all() for p in model.parameters())


def replaced():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    for p in model.parameters():
        p.data = torch.zeros_like(p)
    return model
