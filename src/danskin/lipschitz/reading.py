"""Read a PyTorch model as a `Network`: trace it to ATen operations, and give each a rule or refuse it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from danskin.callables.faults import own_words
from danskin.errors import DanskinError, ModelError
from danskin.lipschitz.layer_rules import LAYERS
from danskin.lipschitz.network import Network, Node, run
from danskin.lipschitz.operations import Conv, Input, Operation, Scale
from danskin.lipschitz.shape_rules import SHAPES
from danskin.lipschitz.splines import being_read
from danskin.lipschitz.traced import Made, Places, Ref, Unknown

_TRACED = (2, 1)  # examples in the traced batch: two, as what mixes them is refused; one for what cuts batches up


RULES = LAYERS | SHAPES
_NO_CONSTANT = "dot-product attention has no Lipschitz constant for all inputs"
#: Of their first operand only its shape, type and device count.
_ONLY_SHAPES = ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")


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
    with torch.inference_mode(False), torch.no_grad(), _evaluating(model):
        refused: list[ModelError] = []
        for batch in _TRACED:
            try:
                return _read(model, torch.zeros((batch, *x.shape[1:]), dtype=x.dtype, device=x.device))
            except ModelError as error:
                refused.append(error)
        if isinstance(model, nn.Module) and any(isinstance(m, nn.MultiheadAttention) for m in model.modules()):
            raise ModelError(  # of which some transposition would be named first
                f"model: expected operations that have a bound, got MultiheadAttention: {_NO_CONSTANT}; replace it, or "
                "use attacks alone, which need no such rule"
            ) from refused[0]
        # a batch that cannot even be traced says less than a single example
        raise refused[0] if refused[0].__cause__ is None else refused[-1]


def _read(model: Callable[[Tensor], Tensor], example: Tensor) -> Network:
    from torch.fx.experimental.proxy_tensor import make_fx  # costs more to import than all of danskin

    try:
        with being_read():
            traced = make_fx(lambda t: model(t), pre_dispatch=True)(example)
        return _Reader(traced, example.double()).network()
    except DanskinError:
        raise
    except Exception as error:
        if own_words(error):
            raise
        raise ModelError(
            f"model: expected a network that torch.fx can trace, got {type(error).__name__}: {error}; avoid "
            "Python that depends on values of tensors, and tensors that are not on the inputs' device"
        ) from error


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
        self.batch = len(example)
        self.nodes = [Node("input", Input(), (), tuple(example.shape[1:]))]
        self.values: dict[fx.Node, Any] = {}

    def network(self) -> Network:
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = Ref(0, self.nodes[0].shape, self.batch)
            elif node.op == "get_attr":
                self.values[node] = functools.reduce(getattr, str(node.target).split("."), self.traced)
            elif node.op == "call_function":
                self.values[node] = self.call(node)
            elif node.op == "output":
                return self.finish(fx.node.map_arg(node.args[0], self.values.__getitem__))
        raise ModelError("model: expected an output, got a trace without one; return the logits")

    def finish(self, output: Any) -> Network:
        if not isinstance(output, Ref):
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
        if not any(isinstance(v, Ref | Places) for v in given):
            return node.target(*args, **kwargs)  # type: ignore[operator]
        name = getattr(getattr(node.target, "overloadpacket", node.target), "__name__", str(node.target))
        if name in _ONLY_SHAPES:
            return node.target(self.example.new_zeros((self.batch, *args[0].shape)), *args[1:], **kwargs)  # type: ignore[operator]
        rule = RULES.get(name.removesuffix("_") if not name.endswith("__") else name)
        try:
            if rule is None:
                raise Unknown(_NO_CONSTANT if "attention" in name else "there is no bound for it")
            if name != "getitem" and any(isinstance(v, Places) for v in given):
                raise Unknown("it uses the places that numbers are sorted to")
            made = rule(node.target, *args, **kwargs)
            return (
                [self.part(node.name, part) for part in made] if isinstance(made, list) else self.part(node.name, made)
            )
        except Unknown as why:
            shapes = ", ".join(str(v.shape) for v in given if isinstance(v, Ref))
            raise ModelError(
                f"model: expected operations that have a bound, got {node.target} on values of shape {shapes}: {why}; "
                "replace it, or use attacks alone, which need no such rule. There are rules for "
                f"{', '.join(sorted(RULES))}"
            ) from None

    def part(self, name: str, part: Made | Places) -> Ref | Places:
        """One of several results."""
        return part if isinstance(part, Places) else self.made(name, part)

    def made(self, name: str, made: Made) -> Ref:
        """The value of an operation, its inputs made first."""
        if isinstance(made, Ref):
            return made
        return self.add(name, made[0], tuple(self.made(name, part) for part in made[1]))

    def add(self, name: str, operation: Operation, inputs: tuple[Ref, ...]) -> Ref:
        numbers = (v for v in vars(operation).values() if isinstance(v, Tensor))
        if not all(bool(torch.isfinite(v).all()) for v in numbers):
            raise Unknown("its weights are not finite")
        if isinstance(operation, Scale):  # plain numbers in the model became tensors on the CPU
            device = self.example.device
            operation = Scale(operation.scale.to(device), operation.shift.to(device))
        shape = (self.batch, *operation.outputs) if isinstance(operation, Conv) else self.tried(operation, inputs)
        if shape[0] != self.batch:
            raise Unknown("it mixes the examples of a batch")
        self.nodes.append(Node(name, operation, tuple(ref.at for ref in inputs), shape[1:]))
        return Ref(len(self.nodes) - 1, shape[1:], self.batch)

    def tried(self, operation: Operation, inputs: tuple[Ref, ...]) -> tuple[int, ...]:
        """The shape of what an operation makes of a batch."""
        zeros = [self.example.new_zeros((self.batch, *ref.shape)) for ref in inputs]
        return tuple(run(operation, self.example, zeros).shape)


def _needed(nodes: list[Node], output: int) -> tuple[Node, ...]:
    """The nodes that the output depends on (and the input), renumbered."""
    needed = {0, output}
    for at in range(output, 0, -1):
        if at in needed:
            needed.update(nodes[at].inputs)
    place = {at: k for k, at in enumerate(sorted(needed))}
    kept = (nodes[at] for at in sorted(needed))
    return tuple(Node(n.name, n.operation, tuple(place[i] for i in n.inputs), n.shape) for n in kept)
