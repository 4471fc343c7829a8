"""Rules for what moves numbers within an example, or averages them: no number counts negatively."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from danskin.lipschitz.operations import CircularPad, Positive, Scale, Sum
from danskin.lipschitz.traced import Made, Places, Ref, Rule, Unknown, reference, wide


def _reshape(op: Any, x: Any, *args: Any) -> Made:
    x = reference(x)
    shape = op(torch.empty((x.batch, *x.shape), device="meta"), *args).shape
    if not len(shape) or shape[0] != x.batch:
        raise Unknown("it mixes the examples of a batch")
    return Positive(lambda t: t.reshape(len(t), *shape[1:]), x.shape), (x,)


def _positive(op: Any, x: Any, dims: Any, call: Callable[[Tensor], Tensor]) -> Made:
    """A function that works within examples: `dims` are the dimensions it works on."""
    x = reference(x)
    if any(d % (len(x.shape) + 1) == 0 for d in dims):
        raise Unknown("it works across the examples of a batch")
    return Positive(call, x.shape), (x,)


def _reduce(op: Any, x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> Made:
    if dims is None or dims == []:
        raise Unknown("it mixes the examples of a batch")
    return _positive(op, x, _pair_or_more(dims), lambda t: op(t, dims, keepdim))


def _pair_or_more(dims: Any) -> list[int]:
    return list(dims) if isinstance(dims, list | tuple) else [dims]


def _slice(op: Any, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Made:
    if dim == 0 and not start and (end is None or end >= x.batch) and step == 1:
        return reference(x)  # x[:] and the first colon of x[:, ...]
    return _positive(op, x, [dim], lambda t: op(t, dim, start, end, step))


def _select(op: Any, x: Any, dim: int, index: int) -> Made:
    return _positive(op, x, [dim], lambda t: op(t, dim, index))


def _permute(op: Any, x: Any, dims: Any) -> Made:
    if dims[0] % len(dims) != 0:
        raise Unknown("it moves the examples of a batch")
    return _positive(op, x, [], lambda t: op(t, dims))


def _transpose(op: Any, x: Any, a: int, b: int) -> Made:
    return _positive(op, x, [a, b], lambda t: op(t, a, b))


def _pad(op: Any, x: Any, pad: Any, *args: Any) -> Made:
    x, args = reference(x), tuple(a for a in args if a != "constant")
    if args and args[0] == "circular":
        return _circular_pad(x, list(pad))
    if args and args[0] in ("reflect", "replicate"):
        return _positive(op, x, [], lambda t: torch.nn.functional.pad(t, pad, mode=args[0]))
    if any(isinstance(a, str) for a in args):
        raise Unknown("this kind of padding is not known")
    if len(pad) > 2 * len(x.shape):
        raise Unknown("it adds examples to the batch")
    value = next((a for a in args if a is not None), 0.0)
    return _positive(op, x, [], lambda t: torch.constant_pad_nd(t, pad, value))


def _circular_pad(x: Ref, pad: list[int]) -> Made:
    if len(x.shape) != 3 or len(pad) != 4 or min(pad) < 0:
        raise Unknown("only circular padding of images is known")
    left, right, top, bottom = pad
    around = (left, right, top, bottom)
    return CircularPad(lambda t: torch.nn.functional.pad(t, around, mode="circular"), x.shape, around), (x,)


def _pool(op: Any, x: Any, *args: Any, **kwargs: Any) -> Made:
    x = reference(x)
    return _positive(op, x, [], lambda t: op(t, *args, **kwargs))


def _take(op: Any, x: Any, dim: int, index: Any) -> Made:
    if isinstance(index, Ref):
        raise Unknown("its places depend on the input")
    return _positive(op, x, [dim], lambda t: op(t, dim, index))


def _flip(op: Any, x: Any, dims: Any) -> Made:
    return _positive(op, x, dims, lambda t: op(t, dims))


def _split(op: Any, x: Any, sizes: Any, dim: int = 0) -> list[Made | Places]:
    x = reference(x)
    whole = (x.batch, *x.shape)[dim]
    lengths = (
        sizes if isinstance(sizes, list | tuple) else [sizes] * (whole // sizes) + [whole % sizes] * (whole % sizes > 0)
    )
    ends = [sum(lengths[:k]) for k in range(len(lengths) + 1)]
    return [_slice(torch.ops.aten.slice.Tensor, x, dim, a, b) for a, b in pairwise(ends)]


def _chunk(op: Any, x: Any, count: int, dim: int = 0) -> list[Made | Places]:
    x = reference(x)
    return _split(op, x, -(-(x.batch, *x.shape)[dim] // count), dim)


def _unbind(op: Any, x: Any, dim: int = 0) -> list[Made | Places]:
    x = reference(x)
    return [_select(torch.ops.aten.select.int, x, dim, k) for k in range((x.batch, *x.shape)[dim])]


def _concatenated(op: Any, parts: Sequence[Any], dim: int = 0) -> Made:
    """Each part with zeros in the place of the others, and their sum."""
    like = next(p for p in parts if isinstance(p, Ref))
    rank = len(like.shape) + 1
    if dim % rank == 0:
        if len(parts) == 1:
            return like
        raise Unknown("it joins examples to a larger batch")
    axis = dim % rank - 1
    sizes = [(p.shape if isinstance(p, Ref) else tuple(p.shape[1:]))[axis] for p in parts]
    refs: list[Made] = []
    shift = wide(torch.zeros([sum(sizes) if k == axis else n for k, n in enumerate(like.shape)]))
    for k, part in enumerate(parts):
        before, after = sum(sizes[:k]), sum(sizes[k + 1 :])
        pad = [0, 0] * (rank - 2 - axis) + [before, after]
        if isinstance(part, Ref):
            refs.append(_pad(None, part, pad))
            continue
        if len(part) > 1 and not bool((part == part[:1]).all()):
            raise Unknown("the constant differs between the examples of a batch")
        shift = shift.to(part.device) + torch.constant_pad_nd(part[0].detach().double(), pad, 0.0)
    made = refs[0] if len(refs) == 1 else (Sum((1.0,) * len(refs), apart=True), tuple(refs))
    return (Scale(torch.ones_like(shift), shift), (made,)) if len(refs) < len(parts) else made


def _stacked(op: Any, parts: Sequence[Any], dim: int = 0) -> Made:
    if any(not isinstance(p, Ref) for p in parts):
        raise Unknown("constants are stacked with values")
    rank = len(parts[0].shape) + 2
    if dim % rank == 0:
        raise Unknown("it adds a dimension before that of the batch")
    at, refs, count = dim % rank, [], len(parts)
    for k, part in enumerate(parts):
        pad = [0, 0] * (rank - 1 - at) + [k, count - 1 - k]

        def wider(t: Tensor, pad: list[int] = pad) -> Tensor:
            return torch.constant_pad_nd(t.unsqueeze(at), pad, 0.0)

        refs.append((Positive(wider, part.shape), (part,)))
    return Sum((1.0,) * count, apart=True), tuple(refs)


def _item(op: Any, parts: Any, index: int) -> Made:
    if isinstance(parts, Ref):
        raise Unknown("it picks one example")
    return parts[index]


SHAPES: dict[str, Rule] = {
    "avg_pool2d": _pool,
    "adaptive_avg_pool2d": _pool,
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "pixel_shuffle", "pixel_unshuffle"), _pool),
    "mean": _reduce,
    "sum": _reduce,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "slice": _slice,
    "select": _select,
    "permute": _permute,
    "transpose": _transpose,
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view"), _reshape),
    "index_select": _take,
    "flip": _flip,
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "chunk": _chunk,
    "unbind": _unbind,
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenated),
    "stack": _stacked,
    "getitem": _item,
}
