"""Rules for layers: products with matrices, normalisation, sums, activations."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from danskin.lipschitz import curves
from danskin.lipschitz.operations import (
    Abs,
    Conv,
    Linear,
    MaxPool,
    Operation,
    Positive,
    Relu,
    Scale,
    Sigmoid,
    Sort,
    Spline,
    Sum,
    Tanh,
    Transposed,
)
from danskin.lipschitz.traced import Made, Places, Ref, Rule, Unknown, constant, pair, reference, wide


def _conv2d(
    op: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Made:
    x, weight = reference(x), wide(constant(weight))
    bias = weight.new_zeros(len(weight)) if bias is None else wide(bias)
    stride, dilation = pair(stride), pair(dilation)
    if padding == "same":
        padding = [_half(d * (k - 1)) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    padding = (0, 0) if padding == "valid" else pair(padding)
    return Conv(weight, bias, x.shape, stride, padding, dilation, groups), (x,)


def _conv1d(
    op: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Made:
    """On images of height 1."""
    x, weight = reference(x), constant(weight)
    one: Made = (Positive(lambda t: t.unsqueeze(2), x.shape), (x,))
    image = Ref(-1, (x.shape[0], 1, x.shape[1]), x.batch)
    if isinstance(padding, str):
        padding = 0 if padding == "valid" else [0, _half(_single(dilation) * (weight.shape[2] - 1))]
    else:
        padding = [0, _single(padding)]
    conv: Any = _conv2d(
        op, image, weight.unsqueeze(2), bias, [1, _single(stride)], padding, [1, _single(dilation)], groups
    )[0]  # type: ignore[index]
    out = conv.apply(conv.weight.new_zeros((1, *conv.shape))).shape[1:]
    return Positive(lambda t: t.squeeze(2), tuple(out)), ((conv, (one,)),)


def _single(value: Any) -> int:
    return int(value[0] if isinstance(value, list | tuple) else value)


def _half(width: int) -> int:
    if width % 2:
        raise Unknown("padding 'same' of an even kernel is not the same on both sides")
    return width // 2


def _transposed2d(
    op: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Made:
    x, weight = reference(x), wide(constant(weight))
    stride, padding, dilation = pair(stride), pair(padding), pair(dilation)
    size = [
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + r
        for n, s, p, d, k, r in zip(
            x.shape[1:], stride, padding, dilation, weight.shape[2:], pair(output_padding), strict=True
        )
    ]
    channels = weight.shape[1] * groups
    bias = weight.new_zeros(channels) if bias is None else wide(constant(bias))
    conv = Conv(weight, weight.new_zeros(len(weight)), (channels, *size), stride, padding, dilation, groups)
    return Transposed(conv, bias), (x,)


def _linear(op: Any, x: Any, weight: Any, bias: Any = None) -> Made:
    weight = wide(constant(weight))
    return Linear(weight, weight.new_zeros(len(weight)) if bias is None else wide(constant(bias))), (reference(x),)


def _matmul(op: Any, x: Any, other: Any) -> Made:
    if constant(other).ndim != 2:
        raise Unknown("only products with one constant matrix on the right are known")
    return _linear(op, x, other.t())


def _addmm(op: Any, bias: Any, x: Any, other: Any, *, beta: float = 1, alpha: float = 1) -> Made:
    return _linear(op, x, alpha * constant(other).t(), (beta * constant(bias)).expand(other.shape[1]))


def _batch_norm(
    op: Any, x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float, *_: Any
) -> Made:
    x = reference(x)
    if training or mean is None:
        raise Unknown("it uses the statistics of the batch; give it running statistics (track_running_stats=True)")
    mean, var = wide(mean), wide(var)
    scale = (var + eps).rsqrt() * (1.0 if weight is None else wide(weight))
    shift = (0.0 if bias is None else wide(bias)) - mean * scale
    shape = (-1, *[1] * (len(x.shape) - 1))
    return Scale(scale.view(shape), shift.view(shape)), (x,)


def _same(op: Any, x: Any, *_: Any, **__: Any) -> Made:
    return reference(x)


def _dropout(op: Any, x: Any, p: float, train: bool) -> Made:
    if train:
        raise Unknown("it is random also in eval mode")
    return reference(x)


def _scaled(x: Ref, scale: Any, shift: Any) -> Made:
    """Scale x + shift for constants that broadcast against x and do not differ between examples."""

    def fit(value: Any) -> Tensor:
        value = torch.as_tensor(value, dtype=torch.float64)
        if value.ndim > len(x.shape):
            if len(value) != 1:
                raise Unknown("the constant differs between the examples of a batch")
            value = value[0]
        try:
            fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise Unknown("the constant enlarges the value")
        return value

    return Scale(fit(scale), fit(shift)), (x,)


def _add(op: Any, a: Any, b: Any, *, alpha: float = 1, sign: float = 1) -> Made:
    if isinstance(a, Ref) and isinstance(b, Ref):
        if a.shape != b.shape:
            raise Unknown("branches of different shapes are added")
        return Sum((1.0, float(sign * alpha))), (a, b)
    if isinstance(a, Ref):
        return _scaled(a, 1.0, sign * alpha * _as_wide(b))
    return _scaled(b, sign * alpha, _as_wide(a))


def _as_wide(value: Any) -> Any:
    return value.detach().double() if isinstance(value, Tensor) else value


def _rsub(op: Any, a: Any, b: Any, alpha: float = 1) -> Made:
    return _add(op, b, a, alpha=alpha, sign=-1)


def _mul(op: Any, a: Any, b: Any) -> Made:
    a, b = (a, b) if isinstance(a, Ref) else (b, a)
    return _scaled(a, _as_wide(constant(b)), 0.0)


def _div(op: Any, a: Any, b: Any) -> Made:
    return _scaled(reference(a), 1 / _as_wide(constant(b)), 0.0)


def _max_pool2d(
    op: Any, x: Any, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Made:
    kernel = pair(kernel)
    pool = MaxPool(kernel, pair(stride, kernel), pair(padding), pair(dilation), ceil)
    return pool, (reference(x),)


def _leaky(op: Any, x: Any, slope: float = 0.01) -> Made:
    return (Relu(slope) if 0 <= slope <= 1 else curves.leaky(slope)), (reference(x),)


def _prelu(op: Any, x: Any, weight: Any) -> Made:
    x, slopes = reference(x), wide(constant(weight)).flatten()
    if len(slopes) == 1 or bool((slopes == slopes[0]).all()):
        return _leaky(op, x, float(slopes[0]))
    return curves.leaky(slopes.view(-1, *[1] * (len(x.shape) - 1))), (x,)


def _activation(operation: Operation) -> Rule:
    return lambda op, x: (operation, (reference(x),))


def _clamp(op: Any, x: Any, low: Any = None, high: Any = None) -> Made:
    """min(max(x, low), high), for plain numbers low <= high."""
    if any(isinstance(v, Tensor) and v.numel() != 1 for v in (low, high)):
        raise Unknown("only limits that are one number are known")
    low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if low > high:
        raise Unknown("its limits are in the wrong order")
    if low == -math.inf and high == math.inf:
        return reference(x)
    return curves.clamp(low, high), (reference(x),)


def _elu(op: Any, x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Made:
    return curves.elu(float(alpha), float(scale), float(input_scale)), (reference(x),)


def _celu(op: Any, x: Any, alpha: float = 1.0) -> Made:
    return curves.elu(float(alpha), 1.0, 1.0 / float(alpha)), (reference(x),)


def _softplus(op: Any, x: Any, beta: float = 1.0, threshold: float = 20.0) -> Made:
    if threshold < 20:
        raise Unknown("it jumps at its threshold, so it has no Lipschitz constant; leave the threshold at 20")
    return curves.softplus(float(beta)), (reference(x),)


def _gelu(op: Any, x: Any, *, approximate: str = "none") -> Made:
    return curves.gelu(approximate), (reference(x),)


def _softshrink(op: Any, x: Any, width: float = 0.5) -> Made:
    return curves.softshrink(float(width)), (reference(x),)


def _curve(name: str) -> Rule:
    return lambda op, x: (curves.simple()[name], (reference(x),))


_SIMPLE = ("silu", "mish", "hardswish", "hardsigmoid", "selu", "log_sigmoid")


def _sort(op: Any, x: Any, dim: int = -1, descending: bool = False, **_: Any) -> list[Made | Places]:
    x, rank = reference(x), len(reference(x).shape) + 1
    if dim % rank == 0:
        raise Unknown("it sorts the examples of a batch")
    return [(Sort(dim % rank - rank, descending), (x,)), Places()]


def _spline(op: Any, x: Any, grid: Any, heights: Any, slopes: Any, alpha: Any, dim: int) -> Made:
    grid, heights, slopes = (wide(constant(v)) for v in (grid, heights, slopes))
    return Spline(grid, heights, slopes, None if alpha is None else wide(constant(alpha)), dim), (reference(x),)


LAYERS: dict[str, Rule] = {
    "conv1d": _conv1d,
    "conv2d": _conv2d,
    "conv_transpose2d": _transposed2d,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "addmm": _addmm,
    "batch_norm": _batch_norm,
    "abs": _activation(Abs()),
    "sort": _sort,
    "linear_spline": _spline,
    "relu": _activation(Relu()),
    "leaky_relu": _leaky,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "elu": _elu,
    "celu": _celu,
    "softplus": _softplus,
    "gelu": _gelu,
    "softshrink": _softshrink,
    **{name: _curve(name) for name in (*_SIMPLE, "atan", "erf")},
    "sigmoid": _activation(Sigmoid()),
    "tanh": _activation(Tanh()),
    "max_pool2d": _max_pool2d,
    "add": _add,
    "sub": functools.partial(_add, sign=-1),
    "rsub": _rsub,
    "mul": _mul,
    "div": _div,
    "neg": lambda op, x: _scaled(reference(x), -1.0, 0.0),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    **dict.fromkeys(("to", "_to_copy", "clone", "contiguous", "alias", "detach", "lift_fresh"), _same),
    "clamp": _clamp,
    "hardtanh": lambda op, x, low=-1.0, high=1.0: _clamp(op, x, low, high),
    "clip": _clamp,
    "clamp_min": lambda op, x, low: _clamp(op, x, low),
    "clamp_max": lambda op, x, high: _clamp(op, x, None, high),
    "relu6": lambda op, x: _clamp(op, x, 0.0, 6.0),
}
