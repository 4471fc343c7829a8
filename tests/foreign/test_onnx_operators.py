"""Operators of ONNX as torch functions, against ONNX Runtime, for files written for one example and for any."""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from danskin.foreign.onnx_input import InputForm  # noqa: E402
from danskin.foreign.onnx_translate import RULES, translate  # noqa: E402

helper, TYPE = onnx.helper, onnx.TensorProto
RANDOM = np.random.default_rng(0)
IMAGE, MAP, ROW = (3, 6, 5), (4, 5, 4), (6,)


def weights(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def model_of(nodes, shape, held=None, batch="n", opset=18, output="y", rank=None):
    """A model of nodes from x to y; `held` are its weights."""
    kept = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (held or {}).items()]
    x = helper.make_tensor_value_info("x", TYPE.FLOAT, [batch, *shape])
    y = helper.make_tensor_value_info(output, TYPE.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(kind, *inputs, outputs=("y",), **attributes):
    return helper.make_node(kind, ["x", *inputs] if "x" not in inputs else list(inputs), list(outputs), **attributes)


def expected(model, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(np.asarray(session.run(["y"], {"x": x.numpy()})[0]))


def rows(model, x, one):
    """What ONNX Runtime says; for a file that is meant for one example, of one after the other."""
    return torch.cat([expected(model, row[None]) for row in x]) if one else expected(model, x)


def translated(model, shape, batch=None, batches=None):
    form = InputForm((batch, *shape), batch, shape, False)
    one = batch == 1
    return translate(model, batches or ((1, 3, 5) if one else (3, 5, 6)), one, form.arrange)


one = {name: (name, IMAGE, {}, {}) for name in "Abs Ceil Cos Erf Exp Floor Neg Relu Round Sigmoid Sign Sin Tan".split()}
one |= {name: (name, IMAGE, {}, {}) for name in "Tanh Atan Asinh Sinh Cosh Softplus Softsign Mish HardSwish".split()}
one |= {name: (name, IMAGE, {}, {}) for name in "HardSigmoid LeakyRelu Elu Celu Selu ThresholdedRelu Identity".split()}
CASES = one | {
    "Gelu": ("Gelu", IMAGE, {}, {"opset": 20}),
    "Gelu tanh": ("Gelu", IMAGE, {}, {"opset": 20, "approximate": "tanh"}),
    "Swish": ("Swish", IMAGE, {}, {"opset": 24, "alpha": 1.5}),
    "LeakyRelu alpha": ("LeakyRelu", IMAGE, {}, {"alpha": 0.3}),
    "Elu alpha": ("Elu", IMAGE, {}, {"alpha": 0.3}),
    "Celu alpha": ("Celu", IMAGE, {}, {"alpha": 0.3}),
    "HardSigmoid numbers": ("HardSigmoid", IMAGE, {}, {"alpha": 0.5, "beta": 0.3}),
    "PRelu": ("PRelu", IMAGE, {"a": weights(3, 1, 1)}, {}),
    "PRelu one": ("PRelu", IMAGE, {"a": weights(1)}, {}),
    "Clip": ("Clip", IMAGE, {"a": np.float32(-0.3), "b": np.float32(0.5)}, {}),
    "Clip below": ("Clip", IMAGE, {"a": np.float32(0)}, {}),
    "Clip attributes": ("Clip", IMAGE, {}, {"min": -0.2, "max": 0.4, "opset": 9}),
    "Clip large": ("Clip", IMAGE, {}, {"min": -3.4028234663852886e38, "max": 0.4, "opset": 9}),
    "Add": ("Add", IMAGE, {"a": weights(3, 1, 1)}, {}),
    "Add scalar": ("Add", IMAGE, {"a": np.float32(0.7)}, {}),
    "Add wide": ("Add", (3,), {"a": weights(4, 1, 3)}, {"rows": False}),
    "Sub": ("Sub", IMAGE, {"a": weights(1, 3, 1, 1)}, {}),
    "Sub from": ("Sub", IMAGE, {"a": weights(3, 1, 1)}, {"inputs": ("a", "x")}),
    "Sub from scalar": ("Sub", IMAGE, {"a": np.float32(0.7)}, {"inputs": ("a", "x")}),
    "Mul": ("Mul", IMAGE, {"a": weights(3, 1, 1)}, {}),
    "Mul by scalar": ("Mul", IMAGE, {"a": weights(1)}, {"inputs": ("a", "x")}),
    "Mul itself": ("Mul", IMAGE, {}, {"inputs": ("x", "x")}),
    "Div": ("Div", IMAGE, {"a": weights(3, 1, 1)}, {}),
    "Div of": ("Div", IMAGE, {"a": np.float32(2.5)}, {"inputs": ("a", "x")}),
    "Pow": ("Pow", IMAGE, {"a": np.float32(3)}, {}),
    "Pow of": ("Pow", IMAGE, {"a": np.float32(2)}, {"inputs": ("a", "x")}),
    "Max": ("Max", IMAGE, {"a": weights(3, 1, 1), "b": weights(1, 1, 5)}, {}),
    "Max zero": ("Max", IMAGE, {"a": np.float32(0)}, {}),
    "Min": ("Min", IMAGE, {"a": weights(3, 1, 1)}, {}),
    "Sum": ("Sum", IMAGE, {"a": weights(3, 1, 1)}, {}),
    "Mean": ("Mean", IMAGE, {"a": weights(3, 1, 1)}, {}),
    "Softmax": ("Softmax", IMAGE, {}, {}),
    "Softmax axis": ("Softmax", IMAGE, {}, {"axis": 1}),
    "Softmax old": ("Softmax", IMAGE, {}, {"opset": 11}),
    "Softmax old axis": ("Softmax", IMAGE, {}, {"opset": 11, "axis": 2}),
    "LogSoftmax": ("LogSoftmax", IMAGE, {}, {}),
    "Conv": ("Conv", IMAGE, {"w": weights(4, 3, 3, 2), "b": weights(4)}, {}),
    "Conv strides": ("Conv", IMAGE, {"w": weights(4, 3, 3, 2)}, {"strides": [2, 1], "pads": [1, 1, 1, 1]}),
    "Conv uneven": ("Conv", IMAGE, {"w": weights(4, 3, 3, 2)}, {"pads": [0, 1, 2, 0]}),
    "Conv same upper": ("Conv", IMAGE, {"w": weights(4, 3, 2, 2)}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "Conv same lower": ("Conv", IMAGE, {"w": weights(4, 3, 2, 2)}, {"auto_pad": "SAME_LOWER", "strides": [1, 1]}),
    "Conv valid": ("Conv", IMAGE, {"w": weights(4, 3, 2, 2)}, {"auto_pad": "VALID"}),
    "Conv dilations": ("Conv", IMAGE, {"w": weights(4, 3, 2, 2)}, {"dilations": [2, 3]}),
    "Conv groups": ("Conv", MAP, {"w": weights(6, 2, 2, 2)}, {"group": 2}),
    "Conv 1d": ("Conv", (3, 7), {"w": weights(4, 3, 3), "b": weights(4)}, {"pads": [1, 1]}),
    "Conv 3d": ("Conv", (2, 4, 4, 3), {"w": weights(4, 2, 3, 2, 2)}, {}),
    "ConvTranspose": ("ConvTranspose", IMAGE, {"w": weights(3, 4, 3, 2), "b": weights(4)}, {"strides": [2, 2]}),
    "ConvTranspose pads": (
        "ConvTranspose", IMAGE, {"w": weights(3, 4, 3, 3)},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    "ConvTranspose uneven": ("ConvTranspose", IMAGE, {"w": weights(3, 4, 3, 3)}, {"pads": [1, 0, 0, 1]}),
    "Gemm": ("Gemm", ROW, {"w": weights(6, 4), "b": weights(4)}, {}),
    "Gemm turned": ("Gemm", ROW, {"w": weights(4, 6), "b": weights(1, 4)}, {"transB": 1}),
    "Gemm scaled": ("Gemm", ROW, {"w": weights(4, 6), "b": weights(4)}, {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    "Gemm plain": ("Gemm", ROW, {"w": weights(6, 4)}, {}),
    "Gemm number": ("Gemm", ROW, {"w": weights(6, 4), "b": weights(1)}, {"beta": 2.0}),
    "MatMul": ("MatMul", ROW, {"w": weights(6, 4)}, {}),
    "MatMul maps": ("MatMul", IMAGE, {"w": weights(5, 4)}, {}),
    "MatMul column": ("MatMul", (6, 1), {"w": weights(4, 6)}, {"inputs": ("w", "x")}),
    "MatMul left": ("MatMul", IMAGE, {"w": weights(4, 6)}, {"inputs": ("w", "x")}),
    "BatchNormalization": (
        "BatchNormalization", IMAGE,
        {"s": weights(3), "b": weights(3), "m": weights(3), "v": abs(weights(3))}, {"epsilon": 1e-2},
    ),
    "BatchNormalization rows": (
        "BatchNormalization", ROW, {"s": weights(6), "b": weights(6), "m": weights(6), "v": abs(weights(6))}, {},
    ),
    "InstanceNormalization": ("InstanceNormalization", IMAGE, {"s": weights(3), "b": weights(3)}, {"epsilon": 1e-2}),
    "LayerNormalization": ("LayerNormalization", IMAGE, {"s": weights(5), "b": weights(5)}, {"epsilon": 1e-2}),
    "LayerNormalization axis": ("LayerNormalization", IMAGE, {"s": weights(3, 6, 5)}, {"axis": 1}),
    "GroupNormalization": (
        "GroupNormalization", MAP, {"s": weights(4), "b": weights(4)}, {"num_groups": 2, "opset": 21},
    ),
    "LRN": ("LRN", MAP, {}, {"size": 3, "alpha": 0.1, "beta": 0.5, "bias": 2.0}),
    "MaxPool": ("MaxPool", IMAGE, {}, {"kernel_shape": [2, 2]}),
    "MaxPool strides": ("MaxPool", IMAGE, {}, {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "MaxPool uneven": ("MaxPool", IMAGE, {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    "MaxPool same": (
        "MaxPool", IMAGE, {}, {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "MaxPool ceil": ("MaxPool", IMAGE, {}, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "MaxPool 1d": ("MaxPool", (3, 7), {}, {"kernel_shape": [3], "strides": [2]}),
    "AveragePool": ("AveragePool", IMAGE, {}, {"kernel_shape": [2, 2], "strides": [2, 1]}),
    "AveragePool pads": ("AveragePool", IMAGE, {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "AveragePool counted": (
        "AveragePool", IMAGE, {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "AveragePool uneven": ("AveragePool", IMAGE, {}, {"kernel_shape": [3, 3], "pads": [0, 0, 1, 2]}),
    "AveragePool uneven counted": (
        "AveragePool", IMAGE, {}, {"kernel_shape": [3, 3], "pads": [0, 0, 1, 2], "count_include_pad": 1},
    ),
    "AveragePool ceil": ("AveragePool", IMAGE, {}, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "GlobalAveragePool": ("GlobalAveragePool", IMAGE, {}, {}),
    "GlobalMaxPool": ("GlobalMaxPool", IMAGE, {}, {}),
    "Flatten": ("Flatten", IMAGE, {}, {}),
    "Reshape": ("Reshape", IMAGE, {"s": ints(-1, 90)}, {"any": True}),
    "Reshape keeping": ("Reshape", IMAGE, {"s": ints(0, 0, -1)}, {"any": True}),
    "Reshape one": ("Reshape", IMAGE, {"s": ints(1, -1)}, {"any": False}),
    "Reshape one image": ("Reshape", IMAGE, {"s": ints(1, 5, 3, 6)}, {"any": False}),
    "Flatten all": ("Flatten", IMAGE, {}, {"axis": 0, "any": False}),
    "Transpose": ("Transpose", IMAGE, {}, {"perm": [0, 2, 3, 1]}),
    "Squeeze": ("Squeeze", (1, 6, 1), {"d": ints(3, 1)}, {}),
    "Squeeze attributes": ("Squeeze", (1, 6, 1), {}, {"axes": [1, -1], "opset": 11}),
    "Squeeze any": ("Squeeze", (1, 6, 1), {}, {"any": True, "least": 4}),
    "Unsqueeze": ("Unsqueeze", ROW, {"d": ints(1, 3)}, {}),
    "Unsqueeze attributes": ("Unsqueeze", ROW, {}, {"axes": [1, 2], "opset": 11}),
    "Concat": ("Concat", ROW, {}, {"inputs": ("x", "x"), "axis": 1}),
    "Concat with": ("Concat", IMAGE, {"a": weights(1, 2, 6, 5)}, {"axis": 1, "any": False}),
    "Slice": ("Slice", IMAGE, {"b": ints(1, 0), "e": ints(3, -1), "d": ints(1, 3)}, {}),
    "Slice steps": ("Slice", IMAGE, {"b": ints(0), "e": ints(2**62), "d": ints(2), "s": ints(2)}, {}),
    "Slice back": ("Slice", IMAGE, {"b": ints(-1), "e": ints(-(2**62)), "d": ints(2), "s": ints(-1)}, {}),
    "Slice back by two": ("Slice", IMAGE, {"b": ints(-1), "e": ints(-(2**62)), "d": ints(2), "s": ints(-2)}, {}),
    "Slice attributes": ("Slice", IMAGE, {}, {"starts": [0, 1], "ends": [2**62, 3], "axes": [0, 1], "opset": 9}),
    "Gather one": ("Gather", IMAGE, {"i": np.array(-1)}, {"axis": 1}),
    "Gather run": ("Gather", IMAGE, {"i": ints(1, 2)}, {"axis": 1}),
    "Gather order": ("Gather", IMAGE, {"i": ints(2, 0, -1)}, {"axis": 1}),
    "Gather table": ("Gather", IMAGE, {"i": np.array([[2, 0], [1, 3]])}, {"axis": 2}),
    "Split": ("Split", MAP, {}, {"axis": 1, "outputs": ("y", "z"), "num_outputs": 2}),
    "Split lengths": ("Split", MAP, {"l": ints(1, 3)}, {"axis": 1, "outputs": ("z", "y")}),
    "Split attributes": ("Split", MAP, {}, {"axis": 1, "outputs": ("z", "y"), "split": [3, 1], "opset": 11}),
    "Pad": ("Pad", IMAGE, {"p": ints(0, 0, 1, 2, 0, 0, 3, 0)}, {}),
    "Pad number": ("Pad", IMAGE, {"p": ints(0, 1, 0, 0, 0, 0, 0, 1), "v": np.float32(0.3)}, {}),
    "Pad reflect": ("Pad", IMAGE, {"p": ints(0, 0, 1, 2, 0, 0, 3, 0)}, {"mode": "reflect"}),
    "Pad edge": ("Pad", IMAGE, {"p": ints(0, 0, 1, 2, 0, 0, 3, 0)}, {"mode": "edge"}),
    "Pad attributes": ("Pad", IMAGE, {}, {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 0.5, "opset": 10}),
    "Pad axes": ("Pad", IMAGE, {"p": ints(1, 2, 3, 0), "v": np.float32(0), "d": ints(3, 2)}, {}),
    "Expand": ("Expand", (1, 5), {"s": ints(1, 4, 5)}, {}),
    "Expand further": ("Expand", (5,), {"s": ints(2, 1, 5)}, {"rows": False}),
    "Tile": ("Tile", IMAGE, {"r": ints(1, 2, 1, 3)}, {}),
    "DepthToSpace": ("DepthToSpace", MAP, {}, {"blocksize": 2}),
    "DepthToSpace CRD": ("DepthToSpace", MAP, {}, {"blocksize": 2, "mode": "CRD"}),
    "SpaceToDepth": ("SpaceToDepth", (3, 6, 4), {}, {"blocksize": 2}),
    "Resize": (
        "Resize", IMAGE, {"r": weights(0), "s": np.float32([1, 1, 2, 3])},
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "Resize linear": ("Resize", IMAGE, {"r": weights(0), "s": np.float32([1, 1, 2, 2])}, {"mode": "linear"}),
    "Resize corners": (
        "Resize", IMAGE, {"r": weights(0), "s": np.float32([1, 1, 2, 2])},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    "ReduceMean": ("ReduceMean", IMAGE, {}, {"axes": [2, 3], "opset": 13}),
    "ReduceMean input": ("ReduceMean", IMAGE, {"d": ints(-1)}, {"keepdims": 0}),
    "ReduceSum": ("ReduceSum", IMAGE, {"d": ints(1)}, {}),
    "ReduceSum nothing": ("ReduceSum", IMAGE, {}, {"noop_with_empty_axes": 1}),
    "ReduceMax": ("ReduceMax", IMAGE, {"d": ints(1, 2)}, {}),
    "ReduceMin": ("ReduceMin", IMAGE, {"d": ints(1, 2)}, {"keepdims": 0}),
    "ReduceProd": ("ReduceProd", IMAGE, {"d": ints(1, 2)}, {"keepdims": 0}),
    "ReduceL1": ("ReduceL1", IMAGE, {"d": ints(1, 2)}, {}),
    "ReduceL2": ("ReduceL2", IMAGE, {"d": ints(1, 2)}, {}),
    "ReduceSumSquare": ("ReduceSumSquare", IMAGE, {"d": ints(1, 2)}, {}),
    "ReduceLogSumExp": ("ReduceLogSumExp", IMAGE, {"d": ints(1, 2)}, {}),
    "Einsum": ("Einsum", IMAGE, {"a": weights(5, 2)}, {"equation": "nchw,wk->nchk"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_operator_gives_what_onnx_gives(name):
    kind, shape, held, options = CASES[name]
    options = dict(options)
    opset, inputs = options.pop("opset", 18), options.pop("inputs", tuple(held))
    only_any, by_rows, least = options.pop("any", None), options.pop("rows", True), options.pop("least", 1)
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 0.9
    for batch in (None, 1) if by_rows else (None,):
        if only_any is (batch == 1):
            continue
        model = model_of([node(kind, *inputs, **options)], shape, held, batch or "n", opset)
        net = _net(model, shape, batch)
        for n in {4, least}:
            wanted = rows(model, x[:n], batch == 1)
            found = net(x[:n])
            assert found.shape == wanted.shape and found.dtype == wanted.dtype
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-6)


def _net(model, shape, batch):
    """The module, which returns what the graph does, of any shape."""
    from danskin.foreign import onnx_translate

    plain = onnx_translate._as_rows
    onnx_translate._as_rows = lambda g, y: y
    try:
        return translated(model, shape, batch)
    finally:
        onnx_translate._as_rows = plain


def test_each_operator_with_a_rule_is_tried():
    elsewhere = {"Acos", "Acosh", "Asin", "Atanh", "Log", "Sqrt", "Reciprocal", "Cast", "CastLike", "Shape", "Size"}
    elsewhere |= {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "Where"}
    elsewhere |= {"Mod", "ReduceLogSum", "Upsample", "Dropout", "ArgMax", "ArgMin", "ConstantOfShape"}
    assert set(RULES) - elsewhere == {case[0] for case in CASES.values()}
