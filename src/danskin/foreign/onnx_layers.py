"""ONNX's layers as torch functions: convolutions, products with matrices, normalisation, pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from danskin.foreign.onnx_graph import Attributes, Graph, Known, Rule, Size, Unfit, Value

_CONV = (F.conv1d, F.conv2d, F.conv3d)
_BACK = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_MAX = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_MEAN = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def _spatial(x: Value) -> int:
    """Number of dimensions after batch and channels."""
    if not 3 <= x.rank <= 5:
        raise Unfit(f"values of {x.rank} dimensions")
    return x.rank - 2


def _pads(a: Attributes, x: Value, kernel: list[int], stride: list[int], dilation: list[int]) -> list[tuple[int, int]]:
    """Zeros (before, after) along each spatial dimension."""
    n, auto = len(kernel), a.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [(0, 0)] * n
    if auto == "NOTSET":
        pads = list(a.get("pads", [0] * 2 * n))
        return list(zip(pads[:n], pads[n:], strict=True))
    found = []
    for k in range(n):
        size = x.size(k + 2).only
        total = (math.ceil(size / stride[k]) - 1) * stride[k] + (kernel[k] - 1) * dilation[k] + 1 - size
        less, more = max(total, 0) // 2, (max(total, 0) + 1) // 2
        found.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return found


def _padded(g: Graph, x: Value, pads: list[tuple[int, int]], value: float = 0.0) -> Value:
    flat = [n for pair in reversed(pads) for n in pair]
    return g.call(F.pad, x, flat, "constant", value) if any(flat) else x


def _window(a: Attributes, n: int, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    ones = [1] * n
    return list(a.get("kernel_shape", kernel)), list(a.get("strides", ones)), list(a.get("dilations", ones))


def conv(g: Graph, a: Attributes, x: Value, w: Any, b: Any = None) -> Value:
    """Convolution in 1, 2 or 3 dimensions."""
    n = _spatial(x)
    kernel, stride, dilation = _window(a, n, list((w.only if isinstance(w, Known) else w.at[0]).shape[2:]))
    pads = _pads(a, x, kernel, stride, dilation)
    padding = [p[0] for p in pads]
    if any(before != after for before, after in pads):
        x, padding = _padded(g, x, pads), [0] * n
    return g.call(_CONV[n - 1], x, w, b, tuple(stride), tuple(padding), tuple(dilation), a.get("group", 1))


def conv_transpose(g: Graph, a: Attributes, x: Value, w: Any, b: Any = None) -> Value:
    """Transposed convolution with given padding."""
    n = _spatial(x)
    _, stride, dilation = _window(a, n, ())
    if "output_shape" in a or a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Unfit("a padding that is meant to be found from the output's shape", lacking=True)
    pads = list(a.get("pads", [0] * 2 * n))
    more, group = tuple(a.get("output_padding", [0] * n)), a.get("group", 1)
    even = pads[:n] == pads[n:]
    y = g.call(_BACK[n - 1], x, w, b, tuple(stride), tuple(pads[:n]) if even else 0, more, group, tuple(dilation))
    return y if even else _padded(g, y, [(-p, -q) for p, q in zip(pads[:n], pads[n:], strict=True)])


def gemm(g: Graph, a: Attributes, x: Any, w: Any, c: Any = None) -> Value:
    """α x w + β c, either transposed where asked."""
    alpha, beta = a.get("alpha", 1.0), a.get("beta", 1.0)
    x = _turned(g, x) if a.get("transA", 0) else x
    if not isinstance(w, Known):
        y = g.call(torch.matmul, x, _turned(g, w) if a.get("transB", 0) else w)
        y = y if alpha == 1 else g.call(torch.mul, y, alpha)
        return y if c is None else g.call(torch.add, y, c if beta == 1 else g.call(torch.mul, c, beta))
    weight = w.only if a.get("transB", 0) else np.ascontiguousarray(w.only.T)
    weight = weight if alpha == 1 else weight * np.asarray(alpha, weight.dtype)
    bias, rest = None, c
    if isinstance(c, Known) and c.only.size == len(weight):
        row = c.only.reshape(-1)
        bias, rest = Known((row if beta == 1 else row * np.asarray(beta, row.dtype),), c.name), None
    y = g.call(F.linear, x, Known((weight,), getattr(w, "name", "")), bias)
    return y if rest is None else g.call(torch.add, y, rest if beta == 1 else g.call(torch.mul, rest, beta))


def _turned(g: Graph, x: Any) -> Any:
    return Known((np.ascontiguousarray(x.only.T),), x.name) if isinstance(x, Known) else g.call(torch.t, x)


def matmul(g: Graph, a: Attributes, x: Any, y: Any) -> Value:
    """Product of matrices; a matrix times a column is the layer that it stands for."""
    if isinstance(x, Known) and x.only.ndim == 2 and y.rank >= 2 and y.size(-1).at == (1,) * len(g.batches):
        return g.call(torch.unsqueeze, g.call(F.linear, g.call(torch.squeeze, y, -1), x, None), -1)
    return g.call(torch.matmul, x, y)


def batch_norm(g: Graph, a: Attributes, x: Value, scale: Known, shift: Known, mean: Known, var: Known) -> Value:
    """Batch normalisation with running statistics."""
    if a.get("training_mode", 0) or not isinstance(mean, Known) or not isinstance(var, Known):
        raise Unfit("the statistics of the batch", lacking=True)
    mean, var = Known(mean.at), Known(var.at)  # no weights
    return g.call(F.batch_norm, x, mean, var, scale, shift, False, 0.0, a.get("epsilon", 1e-5))


def instance_norm(g: Graph, a: Attributes, x: Value, scale: Known, shift: Known) -> Value:
    """Normalisation of each channel of each example."""
    return g.call(F.instance_norm, x, None, None, scale, shift, True, 0.0, a.get("epsilon", 1e-5))


def layer_norm(g: Graph, a: Attributes, x: Value, scale: Known, shift: Any = None) -> Value:
    """Normalisation over the dimensions from `axis` on."""
    axis = a.get("axis", -1) % x.rank
    shape = tuple(s.only for s in x.shape[axis:])
    if scale.only.shape == shape and (shift is None or shift.only.shape == shape):
        return g.call(F.layer_norm, x, shape, scale, shift, a.get("epsilon", 1e-5))
    y = g.call(torch.mul, g.call(F.layer_norm, x, shape, None, None, a.get("epsilon", 1e-5)), scale)
    return y if shift is None else g.call(torch.add, y, shift)


def group_norm(g: Graph, a: Attributes, x: Value, scale: Known, shift: Known) -> Value:
    """Normalisation of groups of channels; before opset 21 with one scale for each group."""
    groups, channels = a["num_groups"], x.size(1).only
    wide = [v if len(v.only) == channels else Known((np.repeat(v.only, channels // groups),)) for v in (scale, shift)]
    return g.call(F.group_norm, x, groups, *wide, a.get("epsilon", 1e-5))


def local_response_norm(g: Graph, a: Attributes, x: Value) -> Value:
    """Division by the energy of neighbouring channels."""
    if a["size"] % 2 == 0:
        raise Unfit("an even number of neighbours", lacking=True)
    settings = a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)
    return g.call(F.local_response_norm, x, a["size"], *settings)


def max_pool(g: Graph, a: Attributes, x: Value) -> Value:
    """Largest value of each window."""
    if a.outputs > 1:
        raise Unfit("the places of the largest values", lacking=True)
    n = _spatial(x)
    kernel, stride, dilation = _window(a, n, ())
    pads = _pads(a, x, kernel, stride, dilation)
    padding = [p[0] for p in pads]
    if any(before != after or 2 * before > k for (before, after), k in zip(pads, kernel, strict=True)):
        x, padding = _padded(g, x, pads, -math.inf), [0] * n
    options = tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), bool(a.get("ceil_mode", 0))
    return g.call(_MAX[n - 1], x, *options)


def average_pool(g: Graph, a: Attributes, x: Value) -> Value:
    """Mean of each window, with or without the zeros around."""
    n = _spatial(x)
    kernel, stride, dilation = _window(a, n, ())
    if dilation != [1] * n:
        raise Unfit("windows with holes", lacking=True)
    pads, ceil = _pads(a, x, kernel, stride, dilation), bool(a.get("ceil_mode", 0))
    padding, whole = [p[0] for p in pads], bool(a.get("count_include_pad", 0))
    if all(before == after and 2 * before <= k for (before, after), k in zip(pads, kernel, strict=True)):
        return g.call(_MEAN[n - 1], x, tuple(kernel), tuple(stride), tuple(padding), ceil, whole)
    y = g.call(_MEAN[n - 1], _padded(g, x, pads), tuple(kernel), tuple(stride), 0, ceil, True)
    if whole:
        return y
    inside = torch.ones([1, 1, *(s.only for s in x.shape[2:])])
    flat = [p for pair in reversed(pads) for p in pair]
    share = _MEAN[n - 1](F.pad(inside, flat), tuple(kernel), tuple(stride), 0, ceil, True)
    return g.call(torch.div, y, Known((share.numpy(),)))


def global_average(g: Graph, a: Attributes, x: Value) -> Value:
    """Mean of each channel."""
    return g.call(torch.mean, x, tuple(range(2, x.rank)), True)


def global_max(g: Graph, a: Attributes, x: Value) -> Value:
    """Largest value of each channel."""
    return g.call(torch.amax, x, tuple(range(2, x.rank)), True)


def resize(g: Graph, a: Attributes, x: Value, *given: Any) -> Value:
    """Interpolation over the spatial dimensions."""
    _spatial(x)
    known = [v for v in given if isinstance(v, Known) and v.only.size]
    if not known:
        raise Unfit("sizes that depend on the input", lacking=True)
    last = known[-1].only  # regions of interest come first; scales or sizes last
    if last.dtype == np.int64:
        sizes = [int(v) for v in last]
    else:
        sizes = [math.floor(s.at[0] * float(v)) for s, v in zip(x.shape, last, strict=True)]
    if sizes[:2] != [x.size(0).at[0], x.size(1).only]:
        raise Unfit("another number of examples or channels", lacking=True)
    mode, where = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    smooth = {"linear": ("linear", "bilinear", "trilinear")[x.rank - 3], "cubic": "bicubic"}.get(mode)
    to = tuple(Size((n,) * len(g.batches)) for n in sizes[2:])
    if smooth is None:
        return g.call(F.interpolate, x, to, None, "nearest")
    return g.call(F.interpolate, x, to, None, smooth, where == "align_corners")


LAYERS: dict[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "LRN": local_response_norm,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "Resize": resize,
    "Upsample": resize,
}
