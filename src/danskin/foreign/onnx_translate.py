"""ONNX graphs as torch modules: each node becomes the torch functions that do the same, in one `torch.fx` graph.

What depends on the input becomes calls; what does not (weights, and the arithmetic of shapes) is worked out at once, by
ONNX's own evaluator, at each of several batch sizes. So a network that was exported for one example takes any number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx

from danskin.foreign.onnx_arithmetic import ARITHMETIC
from danskin.foreign.onnx_graph import Attributes, Graph, Known, Rule, Size, Unfit, Value
from danskin.foreign.onnx_layers import LAYERS
from danskin.foreign.onnx_shapes import SHAPES

RULES: dict[str, Rule] = ARITHMETIC | LAYERS | SHAPES
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
_GROWS = ("ConstantOfShape", "Expand", "Tile")  # work on known numbers, but may follow the batch


def translate(proto: Any, batches: tuple[int, ...], fixed: bool, arrange: Callable[[Graph], Value]) -> fx.GraphModule:
    """The network as a module from images to logits.

    Args:
        proto: an `onnx.ModelProto` with one input and one output, without functions of its own.
        batches: batch sizes that are followed; one for a module that takes that size only.
        fixed: whether the file was written for the first of them.
        arrange: gives the network's input, made from that of the module.

    Raises:
        Unfit: a node has no rule, or does not work for these batch sizes.
    """
    versions = {o.domain: o.version for o in proto.opset_import}
    g = Graph(batches, fixed, versions.get("", versions.get("ai.onnx", 1)))
    names: dict[str, Any] = {"": None}
    held = {t.name for t in proto.graph.initializer}
    names.update((v.name, arrange(g)) for v in proto.graph.input if v.name not in held)
    _Walk(g, names, versions).walk(proto.graph)
    return g.finish(_as_rows(g, names[proto.graph.output[0].name]))


class _Walk:
    """Goes through the nodes in their order, which is that of the computation."""

    def __init__(self, g: Graph, names: dict[str, Any], versions: dict[str, int]) -> None:
        self.g, self.names, self.versions = g, names, versions

    def walk(self, graph: Any) -> None:
        from onnx.numpy_helper import to_array

        for tensor in graph.initializer:
            self.names[tensor.name] = Known((to_array(tensor),), tensor.name)
        for node in graph.node:
            try:
                self.node(node)
            except Unfit as why:
                raise Unfit(f"{node.op_type} {node.name or node.output[0]!r}: {why}", why.lacking) from why

    def node(self, node: Any) -> None:
        lacking = [name for name in node.input if name not in self.names]
        if lacking:
            raise Unfit(f"its input {lacking[0]!r} comes from nowhere", lacking=True)
        inputs = [self.names[name] for name in node.input]
        if node.op_type == "If":
            self.branch(node, inputs[0])
            return
        known = not any(isinstance(v, Value) for v in inputs) and node.op_type not in _RANDOM
        follows = any(isinstance(v, Known) and len(v.at) > 1 for v in inputs)
        if known and not (follows and node.op_type in _GROWS):
            results: Any = self.fold(node, inputs)
        else:
            results = self.rule(node)(self.g, Attributes(node), *inputs)
        results = results if isinstance(results, tuple) else (results,)
        self.names.update(zip(node.output, results, strict=False))  # outputs that nobody wants may lack

    def rule(self, node: Any) -> Rule:
        found = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if found is None:
            raise Unfit("no rule for this operator", lacking=True)
        return found

    def branch(self, node: Any, condition: Any) -> None:
        """Exporters ask for sizes in this way; what is known beforehand needs no question."""
        if not isinstance(condition, Known):
            raise Unfit("a condition that depends on the input", lacking=True)
        taken = Attributes(node)["then_branch" if condition.item() else "else_branch"]
        self.walk(taken)
        self.names.update((name, self.names[v.name]) for name, v in zip(node.output, taken.output, strict=True))

    def fold(self, node: Any, inputs: list[Any]) -> tuple[Known, ...]:
        """The results of a node that does not depend on the input, at each batch size."""
        from onnx.reference import ReferenceEvaluator

        try:
            evaluator = ReferenceEvaluator(node, opsets=self.versions)
            count = max((len(v.at) for v in inputs if v is not None), default=1)
            found = []
            for k in range(count):
                arrays = [None if v is None else v.at[k if len(v.at) > 1 else 0] for v in inputs]
                feed = {name: a for name, a in zip(node.input, arrays, strict=True) if name}
                found.append([np.asarray(a) for a in evaluator.run(None, feed)])
        except Exception as error:  # numpy's and the evaluator's own kinds
            raise Unfit(f"{type(error).__name__}: {error}") from error
        return tuple(Known(_once(at)) for at in zip(*found, strict=True))


def _once(at: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    same = all(a.shape == at[0].shape and np.array_equal(a, at[0]) for a in at)
    return at[:1] if same else at


def _as_rows(g: Graph, output: Any) -> Value:
    """The output as (batch, classes), where it is that but for dimensions of size 1."""
    if not isinstance(output, Value):
        raise Unfit("the output does not depend on the input", lacking=True)
    if len(g.batches) == 1 and g.batches[0] == 1:
        return g.reshape(output, [Size((1,)), Size((output.at[0].numel(),))])
    if not output.rank or output.size(0).at != g.batches:
        raise Unfit("the output has no row for each example")
    wide = [s for s in output.shape[1:] if s.at[0] != 1]
    return g.reshape(output, [output.size(0), *wide]) if output.rank > 2 and len(wide) == 1 else output
