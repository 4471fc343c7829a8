"""ONNX's arithmetic as torch functions: number by number, activations, reductions, conversions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from danskin.foreign.onnx_graph import Attributes, Graph, Known, Rule, Unfit, Value


def plain(x: Any, rank: int = 16) -> Any:
    """A known single number as Python's, where that changes no shape; anything else as it is."""
    if isinstance(x, Known) and x.only.size == 1 and x.only.ndim <= rank:
        return x.item()
    return x


def _both(g: Graph, a: Attributes, x: Any, y: Any, *, function: Callable[..., Any]) -> Value:
    ranks = [v.rank for v in (x, y) if isinstance(v, Value)]
    x, y = (v if isinstance(v, Value) else plain(v, max(ranks)) for v in (x, y))
    if isinstance(x, Value):
        return g.call(function, x, y)
    if function in (torch.add, torch.mul):
        return g.call(function, y, x)
    if function is torch.sub and not isinstance(x, Known):
        return g.call(torch.rsub, y, x)
    return g.call(function, x if isinstance(x, Known) else _like(g, x), y)


def _like(g: Graph, x: float) -> Known:
    return Known((np.asarray(x, np.float32 if isinstance(x, float) else None),))


def _div(g: Graph, a: Attributes, x: Any, y: Any) -> Value:
    whole = not (x.at[0].is_floating_point() if isinstance(x, Value) else x.only.dtype.kind == "f")
    if whole:
        raise Unfit("a division of whole numbers", lacking=True)
    return _both(g, a, x, y, function=torch.div)


def _mod(g: Graph, a: Attributes, x: Any, y: Any) -> Value:
    return _both(g, a, x, y, function=torch.fmod if a.get("fmod", 0) else torch.remainder)


def _most(g: Graph, a: Attributes, *xs: Any, function: Callable[..., Any]) -> Value:
    """Max and Min of several; Max with 0 is ReLU."""
    if function is torch.maximum and len(xs) == 2:
        other = [v for v in xs if isinstance(v, Known)]
        if other and plain(other[0]) == 0 and other[0].only.ndim <= 1:
            return g.call(torch.relu, next(v for v in xs if isinstance(v, Value)))
    return reduce(lambda x, y: g.call(function, x, y), xs)


def _sum(g: Graph, a: Attributes, *xs: Any) -> Value:
    return reduce(lambda x, y: g.call(torch.add, x, y), xs)


def _mean(g: Graph, a: Attributes, *xs: Any) -> Value:
    return g.call(torch.div, _sum(g, a, *xs), len(xs))


def _one(g: Graph, a: Attributes, x: Value, *, function: Callable[..., Any], **defaults: Any) -> Value:
    return g.call(function, x, *(a.get(name, value) for name, value in defaults.items()))


def _prelu(g: Graph, a: Attributes, x: Value, slope: Any) -> Value:
    slope = plain(slope, x.rank)
    if isinstance(slope, float):
        return g.call(F.leaky_relu, x, slope)
    return g.call(torch.where, g.call(torch.gt, x, 0), x, g.call(torch.mul, x, slope))


def _hard_sigmoid(g: Graph, a: Attributes, x: Value) -> Value:
    line = g.call(torch.add, g.call(torch.mul, x, a.get("alpha", 0.2)), a.get("beta", 0.5))
    return g.call(torch.clamp, line, 0.0, 1.0)


def _selu(g: Graph, a: Attributes, x: Value) -> Value:
    if abs(a.get("alpha", 1.67326) - 1.67326) > 1e-4 or abs(a.get("gamma", 1.0507) - 1.0507) > 1e-4:
        raise Unfit("other constants than SELU's own", lacking=True)
    return g.call(F.selu, x)


def _thresholded(g: Graph, a: Attributes, x: Value) -> Value:
    return g.call(F.threshold, x, a.get("alpha", 1.0), 0.0)


def _gelu(g: Graph, a: Attributes, x: Value) -> Value:
    return g.call(_gelu_of[a.get("approximate", "none")], x)


def _gelu_tanh(x: Any) -> Any:
    return F.gelu(x, approximate="tanh")


_gelu_of: dict[str, Callable[..., Any]] = {"none": F.gelu, "tanh": _gelu_tanh}


def _clip(g: Graph, a: Attributes, x: Value, low: Any = None, high: Any = None) -> Value:
    low, high = (a.get(n, v) if v is None else plain(v) for n, v in (("min", low), ("max", high)))
    low, high = (None if isinstance(v, float) and abs(v) >= 3e38 else v for v in (low, high))
    if low is None and high is None:
        return x
    return g.call(torch.relu, x) if low == 0 and high is None else g.call(torch.clamp, x, low, high)


def _softmax(g: Graph, a: Attributes, x: Value, *, function: Callable[..., Any]) -> Value:
    if g.opset >= 13:
        return g.call(function, x, a.get("axis", -1))
    axis = a.get("axis", 1) % x.rank  # it and all after it are one dimension
    rows = g.call(function, x if axis == x.rank - 1 else g.call(torch.flatten, x, axis), axis)
    return g.reshape(rows, x.shape)


def axes(g: Graph, a: Attributes, given: Any) -> list[int] | None:
    """Dimensions named as an attribute (older files) or as an input; None where there are none."""
    if given is not None:
        if not isinstance(given, Known):
            raise Unfit("dimensions that depend on the input", lacking=True)
        found = [s.only for s in g.sizes(given)]
    else:
        found = list(a.get("axes", []))
    return found or None


def _reduced(g: Graph, a: Attributes, x: Value, given: Any = None, *, function: Callable[..., Any]) -> Value:
    dims = axes(g, a, given)
    if dims is None:
        if a.get("noop_with_empty_axes", 0):
            return x
        dims = list(range(x.rank))
    return g.call(function, x, tuple(dims), bool(a.get("keepdims", 1)))


def _l1(x: Any, dims: Any, keepdim: bool) -> Any:
    return x.abs().sum(dims, keepdim)


def _square_sum(x: Any, dims: Any, keepdim: bool) -> Any:
    return x.square().sum(dims, keepdim)


def _l2(x: Any, dims: Any, keepdim: bool) -> Any:
    return torch.linalg.vector_norm(x, 2, dims, keepdim)


def _log_sum(x: Any, dims: Any, keepdim: bool) -> Any:
    return x.sum(dims, keepdim).log()


def _prod(x: Any, dims: Any, keepdim: bool) -> Any:
    for dim in sorted((d % x.ndim for d in dims), reverse=True):
        x = x.prod(dim, keepdim)
    return x


def _arg(g: Graph, a: Attributes, x: Value, *, function: Callable[..., Any]) -> Value:
    if a.get("select_last_index", 0):
        raise Unfit("the last of equal values", lacking=True)
    return g.call(function, x, a.get("axis", 0), bool(a.get("keepdims", 1)))


def _cast(g: Graph, a: Attributes, x: Value, like: Any = None) -> Value:
    """To float32 means: to the precision the network runs in, so that it can also run in another."""
    from onnx.helper import tensor_dtype_to_np_dtype

    if like is not None:
        number = np.dtype(str(like.at[0].dtype).removeprefix("torch."))
    else:
        number = np.dtype(tensor_dtype_to_np_dtype(a["to"]))
    to = getattr(torch, number.name, None)
    if to is None:
        raise Unfit(f"numbers of type {number.name}", lacking=True)
    if x.at[0].dtype == to:
        return x
    if to == torch.float32:
        return g.call("type_as", x, g.input)
    return g.call("to", x, to)


def _where(g: Graph, a: Attributes, condition: Any, x: Any, y: Any) -> Value:
    x, y = (v if isinstance(v, Value) else plain(v, 0) for v in (x, y))
    return g.call(torch.where, condition, x, y)


def _einsum(g: Graph, a: Attributes, *xs: Any) -> Value:
    return g.call(torch.einsum, a["equation"], *xs)


def _swish(g: Graph, a: Attributes, x: Value) -> Value:
    if a.get("alpha", 1.0) == 1:
        return g.call(F.silu, x)
    return g.call(torch.mul, x, g.call(torch.sigmoid, g.call(torch.mul, x, a["alpha"])))


_SAME_NAME = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor Log Neg Reciprocal Relu Round Sigmoid Sign Sin "
    "Sinh Sqrt Tan Tanh"
)
_TWO: dict[str, Callable[..., Any]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Pow": torch.pow, "Equal": torch.eq, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le, "And": torch.logical_and,
    "Or": torch.logical_or, "Xor": torch.logical_xor,
}  # fmt: skip
_REDUCED: dict[str, Callable[..., Any]] = {
    "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin,
    "ReduceProd": _prod, "ReduceL1": _l1, "ReduceL2": _l2, "ReduceSumSquare": _square_sum, "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": torch.logsumexp,
}  # fmt: skip

ARITHMETIC: dict[str, Rule] = {
    **{name: partial(_one, function=getattr(torch, name.lower())) for name in _SAME_NAME.split()},
    **{name: partial(_both, function=function) for name, function in _TWO.items()},
    **{name: partial(_reduced, function=function) for name, function in _REDUCED.items()},
    "Div": _div,
    "Mod": _mod,
    "Max": partial(_most, function=torch.maximum),
    "Min": partial(_most, function=torch.minimum),
    "Sum": _sum,
    "Mean": _mean,
    "Not": partial(_one, function=torch.logical_not),
    "Where": _where,
    "LeakyRelu": partial(_one, function=F.leaky_relu, alpha=0.01),
    "PRelu": _prelu,
    "Elu": partial(_one, function=F.elu, alpha=1.0),
    "Celu": partial(_one, function=F.celu, alpha=1.0),
    "Selu": _selu,
    "Gelu": _gelu,
    "Mish": partial(_one, function=F.mish),
    "Swish": _swish,
    "HardSwish": partial(_one, function=F.hardswish),
    "HardSigmoid": _hard_sigmoid,
    "Softplus": partial(_one, function=F.softplus),
    "Softsign": partial(_one, function=F.softsign),
    "ThresholdedRelu": _thresholded,
    "Clip": _clip,
    "Softmax": partial(_softmax, function=torch.softmax),
    "LogSoftmax": partial(_softmax, function=torch.log_softmax),
    "ArgMax": partial(_arg, function=torch.argmax),
    "ArgMin": partial(_arg, function=torch.argmin),
    "Cast": _cast,
    "CastLike": _cast,
    "Einsum": _einsum,
}
