"""Read a PyTorch model as a `Network`: trace it to ATen operations, and give each a rule or refuse it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from danskin.errors import DanskinError, ModelError
from danskin.lipschitz.network import Network, Node, run
from danskin.lipschitz.operations import (
    Conv,
    Input,
    Linear,
    MaxPool,
    Operation,
    Pair,
    Positive,
    Relu,
    Scale,
    Shape,
    Sigmoid,
    Sum,
    Tanh,
)

_TRACED = 2  # examples in the traced batch; a rule that mixes them is refused


class _Ref:
    """A value that depends on the input: its place in the list of nodes."""

    def __init__(self, at: int, shape: Shape) -> None:
        self.at, self.shape = at, shape


Made = tuple[Operation, tuple[_Ref, ...]] | _Ref  # an operation and its inputs, or an input passed through
Rule = Callable[..., Made]


class _Unknown(Exception):
    """This operation, with these arguments, has no rule; the text says why."""


def read(model: Callable[[Tensor], Tensor], x: Tensor) -> Network:
    """The operations of a model in eval mode, in float64, on the device of x.

    The model is traced with `torch.fx` (`make_fx`) at the shape of x: Python that depends on shapes is
    followed, Python that depends on values is refused. Constants keep the values the model computes them
    with, in its own precision.

    Args:
        model: inputs (batch, ...) to outputs.
        x: (batch, ...) an input of the model; only its shape, dtype and device count.

    Raises:
        ModelError: an operation has no rule (it is named), or the model cannot be traced.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # costs more to import than all of danskin

    example = torch.zeros((_TRACED, *x.shape[1:]), dtype=x.dtype, device=x.device)
    with torch.inference_mode(False), torch.no_grad(), _evaluating(model):
        try:
            traced = make_fx(lambda t: model(t), pre_dispatch=True)(example)
        except DanskinError:
            raise
        except Exception as error:
            raise ModelError(
                f"model: expected a network that torch.fx can trace, got {type(error).__name__}: {error}; avoid "
                "Python that depends on values of tensors, and tensors that are not on the inputs' device"
            ) from error
        return _Reader(traced, example.double()).network()


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Eval mode inside, every module's own mode after."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modules = [m for m in modules if hasattr(m, "training")]  # frozen TorchScript has lost the flag
    training = [m.training for m in modules]
    try:
        for m in modules:
            m.training = False
        yield
    finally:
        for m, flag in zip(modules, training, strict=True):
            m.training = flag


class _Reader:
    """Walks a traced graph once."""

    def __init__(self, traced: fx.GraphModule, example: Tensor) -> None:
        self.traced, self.example = traced, example
        self.nodes = [Node("input", Input(), (), tuple(example.shape[1:]))]
        self.values: dict[fx.Node, Any] = {}

    def network(self) -> Network:
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = _Ref(0, self.nodes[0].shape)
            elif node.op == "get_attr":
                self.values[node] = functools.reduce(getattr, str(node.target).split("."), self.traced)
            elif node.op == "call_function":
                self.values[node] = self.call(node)
            elif node.op == "output":
                return self.finish(fx.node.map_arg(node.args[0], self.values.__getitem__))
        raise ModelError("model: expected an output, got a trace without one; return the logits")

    def finish(self, output: Any) -> Network:
        if not isinstance(output, _Ref):
            raise ModelError(
                f"model: expected a tensor that depends on the input, got {type(output).__name__}; return the logits"
            )
        return Network(_needed(self.nodes, output.at))

    def call(self, node: fx.Node) -> Any:
        args: Any = fx.node.map_arg(node.args, self.values.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, self.values.__getitem__)
        given: list[Any] = [*args, *kwargs.values()]
        if node.target is torch._C._set_grad_enabled:
            return None
        given += [v for group in given if isinstance(group, list | tuple) for v in group]
        if not any(isinstance(v, _Ref) for v in given):
            return node.target(*args, **kwargs)  # type: ignore[operator]
        name = getattr(getattr(node.target, "overloadpacket", None), "__name__", str(node.target))
        rule = RULES.get(name.removesuffix("_") if not name.endswith("__") else name)
        try:
            if rule is None:
                raise _Unknown("there is no bound for it")
            made = rule(node.target, *args, **kwargs)
            return made if isinstance(made, _Ref) else self.add(node.name, *made)
        except _Unknown as why:
            shapes = ", ".join(str(v.shape) for v in given if isinstance(v, _Ref))
            raise ModelError(
                f"model: expected operations that have a bound ({', '.join(sorted(RULES))}), got {node.target} on "
                f"values of shape {shapes}: {why}; replace it, or use attacks alone, which need no such rule"
            ) from None

    def add(self, name: str, operation: Operation, inputs: tuple[_Ref, ...]) -> _Ref:
        if isinstance(operation, Scale):  # plain numbers in the model became tensors on the CPU
            device = self.example.device
            operation = Scale(operation.scale.to(device), operation.shift.to(device))
        zeros = [self.example.new_zeros((_TRACED, *ref.shape)) for ref in inputs]
        out = run(operation, self.example, zeros)
        if len(out) != _TRACED:
            raise _Unknown("it mixes the examples of a batch")
        self.nodes.append(Node(name, operation, tuple(ref.at for ref in inputs), tuple(out.shape[1:])))
        return _Ref(len(self.nodes) - 1, tuple(out.shape[1:]))


def _needed(nodes: list[Node], output: int) -> tuple[Node, ...]:
    """The nodes that the output depends on (and the input), renumbered."""
    needed = {0, output}
    for at in range(output, 0, -1):
        if at in needed:
            needed.update(nodes[at].inputs)
    place = {at: k for k, at in enumerate(sorted(needed))}
    kept = (nodes[at] for at in sorted(needed))
    return tuple(Node(n.name, n.operation, tuple(place[i] for i in n.inputs), n.shape) for n in kept)


def _wide(value: Tensor) -> Tensor:
    return value.detach().double().contiguous()


def _pair(value: Any, default: Pair = (1, 1)) -> Pair:
    value = list(value) if isinstance(value, list | tuple) else [value]
    return (value[0], value[-1]) if value else default


def _reference(value: Any) -> _Ref:
    if not isinstance(value, _Ref):
        raise _Unknown("its first operand does not depend on the input")
    return value


def _constant(value: Any) -> Tensor:
    if isinstance(value, _Ref):
        raise _Unknown("two values that depend on the input are multiplied")
    return value


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
    x, weight = _reference(x), _wide(_constant(weight))
    bias = weight.new_zeros(len(weight)) if bias is None else _wide(bias)
    stride, dilation = _pair(stride), _pair(dilation)
    if padding == "same":
        around = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(n % 2 for n in around):
            raise _Unknown("padding 'same' of an even kernel is not the same on both sides")
        padding = [n // 2 for n in around]
    padding = (0, 0) if padding == "valid" else _pair(padding)
    return Conv(weight, bias, x.shape, stride, padding, dilation, groups), (x,)


def _linear(op: Any, x: Any, weight: Any, bias: Any = None) -> Made:
    weight = _wide(_constant(weight))
    return Linear(weight, weight.new_zeros(len(weight)) if bias is None else _wide(_constant(bias))), (_reference(x),)


def _matmul(op: Any, x: Any, other: Any) -> Made:
    if _constant(other).ndim != 2:
        raise _Unknown("only products with one constant matrix on the right are known")
    return _linear(op, x, other.t())


def _addmm(op: Any, bias: Any, x: Any, other: Any, *, beta: float = 1, alpha: float = 1) -> Made:
    return _linear(op, x, alpha * _constant(other).t(), (beta * _constant(bias)).expand(other.shape[1]))


def _batch_norm(
    op: Any, x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float, *_: Any
) -> Made:
    x = _reference(x)
    if training or mean is None:
        raise _Unknown("it uses the statistics of the batch; give it running statistics (track_running_stats=True)")
    mean, var = _wide(mean), _wide(var)
    scale = (var + eps).rsqrt() * (1.0 if weight is None else _wide(weight))
    shift = (0.0 if bias is None else _wide(bias)) - mean * scale
    shape = (-1, *[1] * (len(x.shape) - 1))
    return Scale(scale.view(shape), shift.view(shape)), (x,)


def _same(op: Any, x: Any, *_: Any, **__: Any) -> Made:
    return _reference(x)


def _dropout(op: Any, x: Any, p: float, train: bool) -> Made:
    if train:
        raise _Unknown("it is random also in eval mode")
    return _reference(x)


def _scaled(x: _Ref, scale: Any, shift: Any) -> Made:
    """Scale x + shift for constants that broadcast against x and do not differ between examples."""

    def fit(value: Any) -> Tensor:
        value = torch.as_tensor(value, dtype=torch.float64)
        if value.ndim > len(x.shape):
            if len(value) != 1:
                raise _Unknown("the constant differs between the examples of a batch")
            value = value[0]
        try:
            fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise _Unknown("the constant enlarges the value")
        return value

    return Scale(fit(scale), fit(shift)), (x,)


def _add(op: Any, a: Any, b: Any, *, alpha: float = 1, sign: float = 1) -> Made:
    if isinstance(a, _Ref) and isinstance(b, _Ref):
        if a.shape != b.shape:
            raise _Unknown("branches of different shapes are added")
        return Sum((1.0, float(sign * alpha))), (a, b)
    if isinstance(a, _Ref):
        return _scaled(a, 1.0, sign * alpha * _as_wide(b))
    return _scaled(b, sign * alpha, _as_wide(a))


def _as_wide(value: Any) -> Any:
    return value.detach().double() if isinstance(value, Tensor) else value


def _rsub(op: Any, a: Any, b: Any, alpha: float = 1) -> Made:
    return _add(op, b, a, alpha=alpha, sign=-1)


def _mul(op: Any, a: Any, b: Any) -> Made:
    a, b = (a, b) if isinstance(a, _Ref) else (b, a)
    return _scaled(a, _as_wide(_constant(b)), 0.0)


def _div(op: Any, a: Any, b: Any) -> Made:
    return _scaled(_reference(a), 1 / _as_wide(_constant(b)), 0.0)


def _reshape(op: Any, x: Any, *args: Any) -> Made:
    x = _reference(x)
    shape = op(torch.empty((_TRACED, *x.shape), device="meta"), *args).shape
    if not len(shape) or shape[0] != _TRACED:
        raise _Unknown("it mixes the examples of a batch")
    return Positive(lambda t: t.reshape(len(t), *shape[1:]), x.shape), (x,)


def _positive(op: Any, x: Any, dims: Any, call: Callable[[Tensor], Tensor]) -> Made:
    """A function that works within examples: `dims` are the dimensions it works on."""
    x = _reference(x)
    if any(d % (len(x.shape) + 1) == 0 for d in dims):
        raise _Unknown("it works across the examples of a batch")
    return Positive(call, x.shape), (x,)


def _reduce(op: Any, x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> Made:
    if dims is None or dims == []:
        raise _Unknown("it mixes the examples of a batch")
    return _positive(op, x, _pair_or_more(dims), lambda t: op(t, dims, keepdim))


def _pair_or_more(dims: Any) -> list[int]:
    return list(dims) if isinstance(dims, list | tuple) else [dims]


def _slice(op: Any, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Made:
    if dim == 0 and not start and (end is None or end >= _TRACED) and step == 1:
        return _reference(x)  # x[:] and the first colon of x[:, ...]
    return _positive(op, x, [dim], lambda t: op(t, dim, start, end, step))


def _select(op: Any, x: Any, dim: int, index: int) -> Made:
    return _positive(op, x, [dim], lambda t: op(t, dim, index))


def _permute(op: Any, x: Any, dims: Any) -> Made:
    if dims[0] % len(dims) != 0:
        raise _Unknown("it moves the examples of a batch")
    return _positive(op, x, [], lambda t: op(t, dims))


def _transpose(op: Any, x: Any, a: int, b: int) -> Made:
    return _positive(op, x, [a, b], lambda t: op(t, a, b))


def _pad(op: Any, x: Any, pad: Any, *args: Any) -> Made:
    x, args = _reference(x), tuple(a for a in args if a != "constant")
    if any(isinstance(a, str) for a in args):
        raise _Unknown("only padding by a constant is known")
    if len(pad) > 2 * len(x.shape):
        raise _Unknown("it adds examples to the batch")
    value = next((a for a in args if a is not None), 0.0)
    return _positive(op, x, [], lambda t: torch.constant_pad_nd(t, pad, value))


def _pool(op: Any, x: Any, *args: Any, **kwargs: Any) -> Made:
    x = _reference(x)
    return _positive(op, x, [], lambda t: op(t, *args, **kwargs))


def _max_pool2d(
    op: Any, x: Any, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Made:
    kernel = _pair(kernel)
    pool = MaxPool(kernel, _pair(stride, kernel), _pair(padding), _pair(dilation), ceil)
    return pool, (_reference(x),)


def _leaky(op: Any, x: Any, slope: float = 0.01) -> Made:
    if not 0 <= slope <= 1:
        raise _Unknown("only slopes from 0 to 1 are known")
    return Relu(slope), (_reference(x),)


def _activation(operation: Operation) -> Rule:
    return lambda op, x: (operation, (_reference(x),))


RULES: dict[str, Rule] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "addmm": _addmm,
    "batch_norm": _batch_norm,
    "relu": _activation(Relu()),
    "leaky_relu": _leaky,
    "sigmoid": _activation(Sigmoid()),
    "tanh": _activation(Tanh()),
    "max_pool2d": _max_pool2d,
    "add": _add,
    "sub": functools.partial(_add, sign=-1),
    "rsub": _rsub,
    "mul": _mul,
    "div": _div,
    "neg": lambda op, x: _scaled(_reference(x), -1.0, 0.0),
    "avg_pool2d": _pool,
    "adaptive_avg_pool2d": _pool,
    "mean": _reduce,
    "sum": _reduce,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "slice": _slice,
    "select": _select,
    "permute": _permute,
    "transpose": _transpose,
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view"), _reshape),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    **dict.fromkeys(("to", "_to_copy", "clone", "contiguous", "alias", "detach", "lift_fresh"), _same),
}
