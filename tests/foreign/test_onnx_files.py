"""ONNX files: opened as torch modules that take any number of examples, and compared with the network they hold."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from danskin.attacks import PGD  # noqa: E402
from danskin.errors import CheckpointError, ConfigError, DanskinWarning, MissingError, ModelError  # noqa: E402
from danskin.foreign import check_model, onnx_torch, onnx_translate, open_model  # noqa: E402
from danskin.foreign.opened import Batched  # noqa: E402
from danskin.minmax import Linf  # noqa: E402

CPU = torch.device("cpu")
X = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0])
h, t = onnx.helper, onnx.TensorProto
ints = lambda *values: np.array(values, np.int64)  # noqa: E731


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


def opened(spec, x=X, **options):
    return check_model(open_model(str(spec), device=CPU, **options), x)


def saved(path, nodes, held, shape, output="y", kind=t.FLOAT, more=()):
    kept = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
    inputs = [h.make_tensor_value_info("x", kind, shape)]
    results = [h.make_tensor_value_info(name, kind, None) for name in (output, *more)]
    opset = [h.make_opsetid("", 17), h.make_opsetid("mine", 1)]
    graph = h.make_graph(nodes, "g", inputs, results, kept)
    onnx.save(h.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return path


def weights(model):
    return {k: v.numpy() for k, v in model.state_dict().items()}


def tail(to, source="b"):
    """From feature maps to logits, with a shape that was written down."""
    return [
        h.make_node("Reshape", [source, "to"], ["c"]),
        h.make_node("Gemm", ["c", "3.weight", "3.bias"], ["y"], transB=1),
    ], {"to": to}


def file_of(path, model, batch, to=None, first="x", shape=(1, 8, 8), front=()):
    """The network `net()` as exporters write it, for a batch size, with the shape of the flattened maps."""
    nodes, held = tail(ints(batch if isinstance(batch, int) else -1, 144) if to is None else to)
    head = [h.make_node("Conv", [first, "0.weight", "0.bias"], ["a"]), h.make_node("Relu", ["a"], ["b"])]
    return saved(path, [*front, *head, *nodes], weights(model) | held, [batch, *shape])


@pytest.mark.parametrize(
    "batch, to, note",
    [
        ("n", None, ""),
        (1, None, "fixed batch size of 1: it was made to follow the batch"),
        (1, ints(1, -1), "fixed batch size of 1: it was made to follow the batch"),
        (3, None, "fixed batch size of 3: it was made to follow the batch"),
        ("n", ints(1, -1), "but holds numbers for one example: they were made to follow the batch"),
        ("n", ints(0, -1), ""),
    ],
)
def test_any_number_of_examples_whatever_the_file_was_written_for(tmp_path, batch, to, note):
    model = net()
    found = opened(file_of(tmp_path / "net.onnx", model, batch, to), classes=3)
    assert found.differentiable and note in found.note and ("fixed" in found.note) is isinstance(batch, int)
    assert isinstance(found.model, torch.fx.GraphModule)
    for n in (1, 3, 7):
        torch.testing.assert_close(found.model(X[:n]), model(X[:n]), rtol=0, atol=1e-5)
    wanted, got = (PGD(Linf(0.05), steps=5)(m, X, Y, seed=0) for m in (model, found.model))
    assert torch.equal(got.success, wanted.success)
    torch.testing.assert_close(got.delta, wanted.delta, rtol=0, atol=1e-5)


def test_the_module_is_an_ordinary_one(tmp_path):
    model = net()
    found = opened(file_of(tmp_path / "net.onnx", model, 1)).model
    assert {k: tuple(v.shape) for k, v in found.named_parameters()} == {
        f"_{k.replace('.', '_')}": tuple(v.shape) for k, v in model.named_parameters()
    }
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found)), torch.fx.symbolic_trace(found)):
        assert torch.equal(other(X), found(X))
    program = torch.export.export(found, (X,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    assert torch.equal(program.module()(X[:3]), found(X[:3]))
    torch.testing.assert_close(copy.deepcopy(found).double()(X.double()), model.double()(X.double()))


def test_a_squeezed_example_is_taken_on_its_own(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    nodes = [
        h.make_node("Reshape", ["x", "list"], ["a"]),
        h.make_node("MatMul", ["1.weight", "a"], ["b"]),
        h.make_node("Add", ["b", "1.bias"], ["c"]),
        h.make_node("Relu", ["c"], ["d"]),
        h.make_node("MatMul", ["3.weight", "d"], ["e"]),
        h.make_node("Add", ["e", "3.bias"], ["y"]),
    ]
    path = saved(tmp_path / "net.onnx", nodes, weights(model) | {"list": ints(64)}, [1, 1, 8, 8])
    found = opened(path)
    assert "fixed batch size of 1: each example is taken on its own" in found.note
    torch.testing.assert_close(found.model(X), model(X), rtol=0, atol=1e-5)
    x = X.clone().requires_grad_()
    (got,), (wanted,) = (torch.autograd.grad(m(x).logsumexp(1).sum(), x) for m in (found.model, model))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
    assert found.model(X[:0]).shape == (0, 3)


def test_batches_are_cut_where_nothing_else_works(tmp_path):
    model = net()
    nodes, held = tail(ints(2, 144), "z")
    mixed = [  # written for two: the batch is taken apart and put together
        h.make_node("Conv", ["x", "0.weight", "0.bias"], ["a"]),
        h.make_node("Relu", ["a"], ["b"]),
        h.make_node("Split", ["b"], ["p", "q"], axis=0),
        h.make_node("Concat", ["p", "q"], ["z"], axis=0),
    ]
    found = opened(saved(tmp_path / "net.onnx", [*mixed, *nodes], weights(model) | held, [2, 1, 8, 8]))
    assert "fixed batch size of 2: batches are cut and filled up to 2" in found.note
    assert isinstance(found.model, Batched) and found.differentiable
    torch.testing.assert_close(found.model(X), model(X), rtol=0, atol=1e-5)


def test_shapes_that_are_worked_out_follow_the_batch(tmp_path):
    """Shape, Gather, Concat, Reshape: what exporters write for x.view(x.size(0), -1), and a token in front."""
    model = net()
    nodes = [
        h.make_node("Conv", ["x", "0.weight", "0.bias"], ["a"]),
        h.make_node("Relu", ["a"], ["b"]),
        h.make_node("Shape", ["b"], ["s"]),
        h.make_node("Gather", ["s", "zero"], ["n"]),
        h.make_node("Unsqueeze", ["n", "zeros"], ["m"]),
        h.make_node("Concat", ["m", "rest"], ["to"], axis=0),
        h.make_node("Reshape", ["b", "to"], ["c"]),
        h.make_node("Concat", ["m", "ones"], ["one"], axis=0),
        h.make_node("ConstantOfShape", ["one"], ["nought"]),
        h.make_node("Concat", ["nought", "c"], ["d"], axis=1),
        h.make_node("Gemm", ["d", "w", "3.bias"], ["y"], transB=1),
    ]
    held = weights(model) | {"zero": np.array(0), "zeros": ints(0), "rest": ints(-1), "ones": ints(1)}
    held["w"] = np.concatenate([np.ones((3, 1), np.float32), held["3.weight"]], 1)
    for batch in ("n", 1):
        found = opened(saved(tmp_path / "net.onnx", nodes, held, [batch, 1, 8, 8]))
        torch.testing.assert_close(found.model(X), model(X), rtol=0, atol=1e-5)
        assert isinstance(found.model, torch.fx.GraphModule)


@pytest.mark.parametrize("batch", ["n", 1])
@pytest.mark.parametrize("image", [None, (3, 8, 6)])
def test_channels_last_is_seen_in_the_declared_shape(tmp_path, batch, image):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)).eval()
    front = [h.make_node("Transpose", ["x"], ["x0"], perm=[0, 3, 1, 2])]
    path = file_of(tmp_path / "net.onnx", model, batch, ints(-1, 96), "x0", (8, 6, 3), front)
    x = torch.rand(5, 3, 8, 6)
    arguments = {} if image is None else {"input_shape": image}
    found = opened(path, x, arguments=arguments)
    assert "layout nhwc" in found.note
    torch.testing.assert_close(found.model(x), model(x), rtol=0, atol=1e-5)
    assert not any(n.target is torch.permute for n in found.model.graph.nodes)  # the two undo each other
    assert torch.equal(opened(path, x, arguments={"layout": "nhwc"}).model(x), found.model(x))
    slow = opened(path, x, arguments=arguments | {"backend": "onnxruntime"})
    torch.testing.assert_close(slow.model(x), model(x), rtol=0, atol=1e-5)
    with pytest.raises(ModelError, match=r"images that the network takes, of shape \(8, 6, 3\).*layout=nchw or nhwc"):
        opened(path, x, arguments={"layout": "nchw", "input_shape": [3, 8, 6]})


@pytest.mark.parametrize("shape", [(64,), (64, 1), (1, 64), (1, 1, 64)])
@pytest.mark.parametrize("batch", ["n", 1, None])
def test_lists_of_numbers_take_images_row_by_row(tmp_path, shape, batch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    if shape == (64, 1):
        nodes, held = [h.make_node("MatMul", ["w", "x"], ["a"]), h.make_node("Add", ["a", "b"], ["y"])], {}
        held = {"w": model[1].weight.detach().numpy(), "b": model[1].bias.detach().numpy()[:, None]}
    else:
        nodes = [h.make_node("MatMul", ["x", "w"], ["a"]), h.make_node("Add", ["a", "b"], ["y"])]
        held = {"w": model[1].weight.detach().numpy().T.copy(), "b": model[1].bias.detach().numpy()}
    path = saved(tmp_path / "net.onnx", nodes, held, [*([batch] if batch else []), *shape])
    if batch is None and len(shape) > 1 and shape[0] == 1:
        return  # one example, with its batch
    for x in (X, X.flatten(1)):
        for arguments in ({}, {"backend": "onnxruntime"}, {"input_shape": list(x.shape[1:])}):
            found = opened(path, x, arguments=arguments)
            torch.testing.assert_close(found.model(x), model(x), rtol=0, atol=1e-5)


def test_sizes_that_are_free(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    nodes = [h.make_node("Conv", ["x", "0.weight", "0.bias"], ["a"]), h.make_node("GlobalAveragePool", ["a"], ["b"])]
    last = h.make_node("Flatten", ["b"], ["y"])
    found = opened(saved(tmp_path / "net.onnx", [*nodes, last], weights(model), ["n", 1, "h", "w"]))
    for x in (X, torch.rand(2, 1, 11, 9)):
        torch.testing.assert_close(found.model(x), model(x), rtol=0, atol=1e-5)
    path = file_of(tmp_path / "net.onnx", net(), "n", shape=(1, "h", "w"))
    with pytest.raises(CheckpointError, match=r"Reshape .*give them as input_shape"):
        opened(path, arguments={"backend": "torch"})
    found = opened(path, arguments={"input_shape": [1, 8, 8]})
    torch.testing.assert_close(found.model(X), net()(X), rtol=0, atol=1e-5)
    with pytest.raises(
        ConfigError, match=r"input_shape: expected the shape of an example.*free \(any, any, any, any\)"
    ):
        opened(file_of(tmp_path / "net.onnx", net(), "n", shape=("c", "h", "w")))


def test_conditions_that_are_known_are_followed(tmp_path):
    branch = [h.make_graph([h.make_node(kind, ["x"], ["z"])], kind, [], [h.make_tensor_value_info("z", t.FLOAT, None)])
              for kind in ("Neg", "Abs")]  # fmt: skip
    nodes = [
        h.make_node("Size", ["x"], ["s"]),
        h.make_node("Equal", ["s", "none"], ["q"]),
        h.make_node("If", ["q"], ["a"], then_branch=branch[0], else_branch=branch[1]),
        h.make_node("Flatten", ["a"], ["y"]),
    ]
    found = opened(saved(tmp_path / "net.onnx", nodes, {"none": np.array(0)}, ["n", 1, 2, 2]), X[:, :, :2, :2])
    assert torch.equal(found.model(X[:, :, :2, :2]), X[:, :, :2, :2].flatten(1))


def test_without_gradients(tmp_path):
    model = net()
    path = file_of(tmp_path / "net.onnx", model, 3)
    found = opened(path, arguments={"backend": "onnxruntime"})
    assert not found.differentiable and "without gradients" in found.note
    for n in (1, 3, 7):
        torch.testing.assert_close(found.model(X[:n]), model(X[:n]), rtol=0, atol=1e-5)
    with pytest.raises(ModelError, match="without a gradient"):
        PGD(Linf(0.05), steps=2)(found.model, X, Y)


def test_weights_beside_count_for_the_hash(tmp_path):
    path = file_of(tmp_path / "net.onnx", net(), 1)
    proto = onnx.load(str(path))
    (tmp_path / "a").mkdir()
    beside = tmp_path / "a/net.onnx"
    onnx.save(proto, str(beside), save_as_external_data=True, location="net.bin", size_threshold=100)
    before = open_model(str(beside), device=CPU).hash
    content = bytearray((tmp_path / "a/net.bin").read_bytes())
    content[3] ^= 1
    (tmp_path / "a/net.bin").write_bytes(content)
    assert open_model(str(beside), device=CPU).hash != before
    (tmp_path / "a/net.bin").unlink()
    with pytest.raises((MissingError, CheckpointError), match=r"net.onnx: expected"):
        open_model(str(beside), device=CPU)


def test_what_is_refused(tmp_path):
    path = file_of(tmp_path / "net.onnx", net(), 1)
    with pytest.raises(ConfigError, match=r"got 'tirch'; did you mean 'torch'\?"):
        opened(path, arguments={"backend": "tirch"})
    with pytest.raises(ConfigError, match=r"layout: expected a known one, got 'nhcw'; did you mean"):
        opened(path, arguments={"layout": "nhcw"})
    with pytest.raises(ConfigError, match="no argument but backend, layout and input_shape, got 'width'"):
        opened(path, arguments={"width": 1})
    with pytest.raises(ModelError, match=r"of shape \(1, 8, 8\), got images of shape \(3, 9, 9\)"):
        opened(path, arguments={"input_shape": [3, 9, 9]})
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(CheckpointError, match="does not read"):
        opened(tmp_path / "text.onnx")

    def made(nodes, kind=t.FLOAT, more=()):
        return saved(tmp_path / "odd.onnx", nodes, {}, ["n", 4], "y0", kind, more)

    relu = h.make_node("Relu", ["x"], ["y0"])
    with pytest.raises(ModelError, match="takes float32, got float16"):
        opened(made([relu], t.FLOAT16))
    with pytest.raises(ModelError, match=r"one input and one output, got inputs \['x'\] and outputs \['y0', 'y1'\]"):
        opened(made([relu, h.make_node("Neg", ["x"], ["y1"])], more=["y1"]))
    with pytest.raises(CheckpointError, match="that ONNX Runtime runs"):
        opened(made([h.make_node("Unknown", ["x"], ["y0"], domain="mine")]))


def test_an_operator_without_a_rule_leaves_onnx_runtime(tmp_path):
    path = saved(tmp_path / "net.onnx", [h.make_node("Hardmax", ["x"], ["y"])], {}, ["n", 4])
    x = torch.tensor([[0.1, 0.5, 0.2, 0.3], [0.9, 0.5, 0.2, 0.3]])
    with pytest.raises(CheckpointError, match=r"got Hardmax 'y': no rule for this operator; use backend=onnxruntime"):
        opened(path, x, arguments={"backend": "torch"})
    with pytest.warns(DanskinWarning, match=r"no gradients: .*Hardmax"):
        found = open_model(str(path), device=CPU)
    assert not found.differentiable and torch.equal(found.model(x).argmax(1), x.argmax(1))


def test_noise_is_not_frozen(tmp_path):
    nodes = [h.make_node("RandomNormal", [], ["r"], shape=[4]), h.make_node("Add", ["x", "r"], ["y"])]
    with pytest.raises(CheckpointError, match=r"RandomNormal .*no rule"):
        opened(saved(tmp_path / "net.onnx", nodes, {}, ["n", 4]), torch.rand(3, 4), arguments={"backend": "torch"})


def test_a_translation_that_disagrees_is_not_used(tmp_path, monkeypatch):
    path = file_of(tmp_path / "net.onnx", net(), 1)
    plain = onnx_translate.RULES["Gemm"]

    def wrong(g, a, *inputs):
        return g.call(torch.mul, plain(g, a, *inputs), 1.01)

    monkeypatch.setitem(onnx_translate.RULES, "Gemm", wrong)
    with pytest.raises(CheckpointError, match=r"agrees with ONNX Runtime, got logits that differ by"):
        opened(path, arguments={"backend": "torch"})
    with pytest.warns(DanskinWarning, match=r"no gradients: .*differ by"):
        found = opened(path)
    assert not found.differentiable
    np.testing.assert_allclose(found.model(X).numpy(), net()(X).detach().numpy(), atol=1e-5)


def test_onnx_own_evaluator_takes_the_place_of_the_runtime(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = opened(file_of(tmp_path / "net.onnx", net(), 1))
    assert "ONNX's reference evaluator" in found.note
    torch.testing.assert_close(found.model(X), net()(X), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [None, 1, 2])
@pytest.mark.filterwarnings("ignore")
def test_what_torch_exports(tmp_path, batch):
    """Attention in front of a token, windows, normalisation: as torch.onnx writes them today."""
    pytest.importorskip("onnxscript")

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.head = nn.Conv2d(1, 8, 4, 4), nn.Linear(8, 3)
            self.token = nn.Parameter(torch.randn(1, 1, 8))
            self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            z = self.patches(x).flatten(2).transpose(1, 2)
            z = self.norm(torch.cat([self.token.expand(len(z), -1, -1), z], 1))
            return self.head((z + self.attention(z, z, z, need_weights=False)[0])[:, 0])

    torch.manual_seed(0)
    model = Tokens().eval()
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    path = tmp_path / "net.onnx"
    torch.onnx.export(model, (X[: batch or 2],), str(path), dynamic_shapes=shapes, verbose=False, dynamo=True)
    found = opened(path)
    assert found.differentiable
    torch.testing.assert_close(found.model(X), model(X), rtol=0, atol=1e-5)


def test_the_ways_are_tried_in_their_order():
    form = onnx_torch.InputForm((1, 4), 1, (4,), False)
    assert [way[0] for way in onnx_torch._ways(form)] == [(1, 2, 4), (1,)]


@pytest.mark.parametrize(
    ("batch", "shape", "order"), [(1, (1, 8, 8), None), ("n", (1, 8, 8), None), (1, (8, 8, 1), [0, 3, 1, 2])]
)
def test_files_are_certified_as_the_module_is(tmp_path, batch, shape, order):
    from danskin.evaluation.certify import certify

    model = net()
    front = () if order is None else [h.make_node("Transpose", ["x"], ["p"], perm=order)]
    path = file_of(tmp_path / "a.onnx", model, batch, first="x" if order is None else "p", shape=shape, front=front)
    found = certify(opened(path).model, (X, model(X).argmax(1)), Linf(0.005))
    truth = certify(model, (X, model(X).argmax(1)), Linf(0.005))
    torch.testing.assert_close(found.margin, truth.margin, rtol=0, atol=1e-4)
    assert torch.equal(found.certified, truth.certified) and found.certified.any()
