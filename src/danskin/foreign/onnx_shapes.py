"""ONNX's changes of shape as torch functions; what follows the batch goes on following it."""

from __future__ import annotations

import math
import operator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from danskin.foreign.onnx_arithmetic import axes
from danskin.foreign.onnx_graph import Attributes, Graph, Known, Rule, Size, Unfit, Value


def _identity(g: Graph, a: Attributes, x: Value, *_: Any) -> Value:
    if a.outputs > 1:
        raise Unfit("a mask of what is dropped", lacking=True)
    return x


def _shape(g: Graph, a: Attributes, x: Value) -> Known:
    part = slice(a.get("start", 0), a.get("end"))
    return _known([np.array(tuple(t.shape), np.int64)[part] for t in x.at])


def _size(g: Graph, a: Attributes, x: Value) -> Known:
    return _known([np.array(t.numel(), np.int64) for t in x.at])


def _known(arrays: list[np.ndarray]) -> Known:
    same = all(np.array_equal(a, arrays[0]) for a in arrays)
    return Known(tuple(arrays[:1] if same else arrays))


def _reshape(g: Graph, a: Attributes, x: Value, shape: Any = None) -> Value:
    if shape is not None and not isinstance(shape, Known):
        raise Unfit("a shape that depends on the input", lacking=True)
    entries = g.sizes(shape) if shape is not None else [Size((n,) * len(g.batches)) for n in a["shape"]]
    keep = not a.get("allowzero", 0)
    wanted = [_resolved(tuple(t.shape), [e.at[k] for e in entries], keep) for k, t in enumerate(x.at)]
    return _to(g, x, wanted)


def _resolved(old: tuple[int, ...], new: list[int], keep: bool) -> list[int]:
    """A shape without 0 for "as before" and -1 for "the rest"; where it does not fit, -1 is left."""
    new = [old[k] if n == 0 and keep and k < len(old) else n for k, n in enumerate(new)]
    rest = math.prod(n for n in new if n != -1)
    if -1 in new and rest and math.prod(old) % rest == 0:
        new[new.index(-1)] = math.prod(old) // rest
    return new


def _to(g: Graph, x: Value, wanted: list[list[int]]) -> Value:
    """X in the shape that is wanted at each batch size. A file's own numbers are meant for the first of them: there
    the dimension that follows the batch is known by what is before it, and has its share of examples at the others.
    """
    follows = x.follows()
    if g.fixed and len(g.batches) > 1 and follows:
        if len(follows) > 1:
            raise Unfit("two dimensions follow the batch")
        first, old = wanted[0], tuple(x.at[0].shape)
        before, n = math.prod(old[: follows[0]]), g.batches[0]
        places = [k for k in range(len(first)) if math.prod(first[:k]) == before and first[k] % n == 0]
        if not places or math.prod(first) != math.prod(old):
            raise Unfit(f"no place for the batch in the shape {tuple(first)}")
        at = places[0]
        wanted = [[*first[:at], first[at] // n * m, *first[at + 1 :]] for m in g.batches]
    return g.reshape(x, [Size(entry) for entry in zip(*wanted, strict=True)])


def _flatten(g: Graph, a: Attributes, x: Value) -> Value:
    axis = a.get("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return _to(g, x, [[math.prod(t.shape[:axis]), math.prod(t.shape[axis:])] for t in x.at])


def transpose(g: Graph, a: Attributes, x: Value) -> Value:
    """Dimensions in another order; two that undo each other are none."""
    order = tuple(a.get("perm", reversed(range(x.rank))))
    before = x.node.args
    if x.node.target is torch.permute and tuple(before[1][d] for d in order) == tuple(range(x.rank)):  # type: ignore[index]
        back = tuple(t.permute(order) for t in x.at)
        return Value(before[0], back)  # type: ignore[arg-type]
    return g.call(torch.permute, x, order)


def _squeeze(g: Graph, a: Attributes, x: Value, given: Any = None) -> Value:
    dims = axes(g, a, given)
    if dims is None:
        dims = [k for k, s in enumerate(x.shape) if s.at[0] == 1]
    if any(x.size(d).at != (1,) * len(g.batches) for d in dims):
        raise Unfit("a dimension that is taken away follows the batch")
    for d in sorted((d % x.rank for d in dims), reverse=True):
        x = g.call(torch.squeeze, x, d)
    return x


def _unsqueeze(g: Graph, a: Attributes, x: Value, given: Any = None) -> Value:
    dims = axes(g, a, given) or []
    for d in sorted(d % (x.rank + len(dims)) for d in dims):
        x = g.call(torch.unsqueeze, x, d)
    return x


def _concat(g: Graph, a: Attributes, *xs: Any) -> Value:
    first = next(x for x in xs if isinstance(x, Value))
    axis = a["axis"] % first.rank
    for d in first.follows() if g.fixed and g.batches[0] == 1 else []:  # written for one example, meant for each
        xs = tuple(_widened(g, x, d, first.size(d)) if d != axis and isinstance(x, Known) else x for x in xs)
    return g.call(torch.cat, list(xs), axis)


def _widened(g: Graph, x: Known, dim: int, size: Size) -> Any:
    if x.only.ndim <= dim or x.only.shape[dim] != 1:
        return x
    sizes: list[Any] = list(x.only.shape)
    sizes[dim] = size
    return g.call("expand", x, sizes)


def _part(g: Graph, x: Value, dim: int, part: slice) -> Value:
    return g.call(operator.getitem, x, (*[slice(None)] * dim, part))


def _slice(g: Graph, a: Attributes, x: Value, *given: Any) -> Value:
    if any(v is not None and not isinstance(v, Known) for v in given):
        raise Unfit("places that depend on the input", lacking=True)
    lists = [None if v is None else g.sizes(v) for v in given]
    if not lists:  # before opset 10
        lists = [[Size((n,) * len(g.batches)) for n in a[k]] if k in a else None for k in ("starts", "ends", "axes")]
    starts, ends, dims, steps = (*lists, None, None)[:4]
    if starts is None or ends is None:
        raise Unfit("no places")
    numbers = [s.only for s in dims] if dims is not None else list(range(len(starts)))
    for k, dim in enumerate(numbers):
        x = _sliced(g, x, dim % x.rank, starts[k], ends[k], 1 if steps is None else steps[k].only)
    return x


def _sliced(g: Graph, x: Value, dim: int, start: Size, end: Size, step: int) -> Value:
    size = x.size(dim)
    ranges = [range(*slice(s, e, step).indices(n)) for s, e, n in zip(start.at, end.at, size.at, strict=True)]
    if all(r == range(n) for r, n in zip(ranges, size.at, strict=True)):
        return x
    if all(r == range(n - 1, -1, -1) for r, n in zip(ranges, size.at, strict=True)):
        return g.call(torch.flip, x, (dim,))
    if step < 0:
        return g.call(torch.index_select, x, dim, Known((np.array(ranges[0], np.int64),)))
    first, last = Size(tuple(r.start for r in ranges)), Size(tuple(r.stop for r in ranges))
    return _part(g, x, dim, slice(first, last, step))


def _split(g: Graph, a: Attributes, x: Value, given: Any = None) -> tuple[Value, ...]:
    dim = a.get("axis", 0) % x.rank
    whole = x.size(dim).only
    if given is not None:
        lengths = [s.only for s in g.sizes(given)]
    else:
        count = a.get("num_outputs", a.places)
        each = -(-whole // count)
        lengths = list(a.get("split", [min(each, whole - each * k) for k in range(count)]))
    ends = np.cumsum([0, *lengths]).tolist()
    return tuple(_part(g, x, dim, slice(b, e)) for b, e in pairwise(ends))


def _gather(g: Graph, a: Attributes, x: Any, index: Any) -> Value:
    if not isinstance(x, Value) or not isinstance(index, Known):
        raise Unfit("places that depend on the input", lacking=True)
    dim, at = a.get("axis", 0) % x.rank, index.only.astype(np.int64)
    if at.ndim == 0:
        return g.call(torch.select, x, dim, int(at))
    flat = np.where(at < 0, at + x.size(dim).at[0], at).reshape(-1)
    if len(flat) and (np.diff(flat) == 1).all():
        found = _part(g, x, dim, slice(int(flat[0]), int(flat[-1]) + 1))
    else:
        found = g.call(torch.index_select, x, dim, Known((flat,)))
    if at.ndim == 1:
        return found
    return g.reshape(found, [*x.shape[:dim], *(Size((n,) * len(g.batches)) for n in at.shape), *x.shape[dim + 1 :]])


def _pad(g: Graph, a: Attributes, x: Value, pads: Any = None, value: Any = None, given: Any = None) -> Value:
    wide = [s.only for s in g.sizes(pads)] if pads is not None else list(a.get("pads", a.get("paddings", [])))
    dims = axes(g, a, given) or list(range(x.rank))
    pairs = [(0, 0)] * x.rank
    for k, d in enumerate(dims):
        pairs[d % x.rank] = wide[k], wide[k + len(dims)]
    while pairs and pairs[0] == (0, 0):  # torch counts from the last dimension
        pairs = pairs[1:]
    flat = [n for pair in reversed(pairs) for n in pair]
    number = float(value.item()) if isinstance(value, Known) and value.only.size else float(a.get("value", 0.0))
    mode = {"edge": "replicate", "wrap": "circular"}.get(a.get("mode", "constant"), a.get("mode", "constant"))
    if not flat:
        return x
    return g.call(F.pad, x, flat, mode, number if mode == "constant" else None)


def _expand(g: Graph, a: Attributes, x: Any, shape: Known) -> Value:
    old = x.shape if isinstance(x, Value) else [Size((n,) * len(g.batches)) for n in x.only.shape]
    new = g.sizes(shape)
    one, count = Size((1,) * len(g.batches)), max(len(old), len(new))
    old, new = ([one] * (count - len(sizes)) + sizes for sizes in (old, new))
    if g.fixed and len(g.batches) > 1:  # the file's own numbers are meant for the first batch size
        own = Size((g.batches[0],) * len(g.batches))
        new = [o if n == own and o.at == g.batches else n for o, n in zip(old, new, strict=True)]
    return g.call("expand", x, [o if n == one else n for o, n in zip(old, new, strict=True)])


def _tile(g: Graph, a: Attributes, x: Any, repeats: Known) -> Value:
    return g.call(torch.tile, x, g.sizes(repeats))


def _filled(g: Graph, a: Attributes, shape: Known) -> Value:
    """Numbers in a shape that follows the batch."""
    from onnx.numpy_helper import to_array

    value = to_array(a["value"]).reshape(-1)[0] if "value" in a else np.float32(0)
    dtype = None if value.dtype == np.float32 else torch.from_numpy(np.zeros(1, value.dtype)).dtype
    return g.call(_new_full, g.input, g.sizes(shape), value.item(), dtype)


def _new_full(like: Any, sizes: Any, value: Any, dtype: Any) -> Any:
    return like.new_full(sizes, value, dtype=dtype)


def _depth_to_space(g: Graph, a: Attributes, x: Value) -> Value:
    n, c, h, w = x.shape
    b = Size((a["blocksize"],) * len(g.batches))
    channels = Size(tuple(k // m**2 for k, m in zip(c.at, b.at, strict=True)))
    columns = a.get("mode", "DCR") == "DCR"
    x = g.reshape(x, [n, b, b, channels, h, w] if columns else [n, channels, b, b, h, w])
    x = g.call(torch.permute, x, (0, 3, 4, 1, 5, 2) if columns else (0, 1, 4, 2, 5, 3))
    return g.reshape(x, [n, channels, _times(h, b), _times(w, b)])


def _space_to_depth(g: Graph, a: Attributes, x: Value) -> Value:
    n, c, h, w = x.shape
    b = Size((a["blocksize"],) * len(g.batches))
    rows, columns = (Size(tuple(s // m for s, m in zip(k.at, b.at, strict=True))) for k in (h, w))
    x = g.reshape(x, [n, c, rows, b, columns, b])
    x = g.call(torch.permute, x, (0, 3, 5, 1, 2, 4))
    return g.reshape(x, [n, _times(c, _times(b, b)), rows, columns])


def _times(a: Size, b: Size) -> Size:
    return Size(tuple(m * n for m, n in zip(a.at, b.at, strict=True)))


SHAPES: dict[str, Rule] = {
    "Identity": _identity,
    "Dropout": _identity,
    "Shape": _shape,
    "Size": _size,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _filled,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
