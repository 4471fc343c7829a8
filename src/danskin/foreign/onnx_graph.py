"""A `torch.fx` graph in the making, followed at several batch sizes side by side, without computing.

A size that differs between them follows the batch, whatever number an exporter wrote there.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

Rule = Callable[..., Any]  # (graph, attributes, *inputs) to a value, or a tuple of them


class Unfit(Exception):
    """A node that cannot be translated, or not for every batch size.

    Args:
        text: what stands in the way.
        lacking: no other batch size would help.
    """

    def __init__(self, text: str, lacking: bool = False) -> None:
        super().__init__(text)
        self.lacking = lacking


@dataclass(frozen=True, eq=False)
class Known:
    """Numbers that do not depend on the input.

    Args:
        at: the numbers at each batch size; one entry where they are the same for all.
        name: of the trained weights, "" for other numbers.
    """

    at: tuple[np.ndarray, ...]
    name: str = ""

    @property
    def only(self) -> np.ndarray:
        """The numbers, which do not depend on the batch size."""
        if len(self.at) > 1:
            raise Unfit("numbers that depend on the batch size")
        return self.at[0]

    def item(self) -> Any:
        """The one number of a scalar."""
        if self.only.size != 1:
            raise Unfit(f"{self.only.size} numbers where one is expected")
        return self.only.reshape(()).item()


@dataclass(frozen=True, eq=False)
class Value:
    """What depends on the input: a node of the graph, and a tensor without data for each batch size."""

    node: fx.Node
    at: tuple[Tensor, ...]

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return self.at[0].ndim

    def size(self, dim: int) -> Size:
        """The size of a dimension at each batch size."""
        return Size(tuple(t.shape[dim] for t in self.at))

    @property
    def shape(self) -> list[Size]:
        """All sizes."""
        return [self.size(k) for k in range(self.rank)]

    def follows(self) -> list[int]:
        """The dimensions whose size depends on the batch size."""
        return [k for k in range(self.rank) if not self.size(k).fixed]


@dataclass(frozen=True)
class Size:
    """A whole number at each batch size."""

    at: tuple[int, ...]

    @property
    def fixed(self) -> bool:
        """Whether it is the same for all batch sizes."""
        return len(set(self.at)) == 1

    @property
    def only(self) -> int:
        """The number, which does not depend on the batch size."""
        if not self.fixed:
            raise Unfit("a size that follows the batch where a number is expected")
        return self.at[0]


class Graph:
    """The graph in the making; rules call torch functions through it.

    Args:
        batches: batch sizes that are followed, different from each other.
        fixed: whether the file's own numbers are meant for the first of them.
        opset: version of the operators.
    """

    def __init__(self, batches: tuple[int, ...], fixed: bool, opset: int) -> None:
        self.batches, self.fixed, self.opset = batches, fixed, opset
        self.graph, self.root = fx.Graph(), nn.Module()
        self.input: Value
        self._sizes: dict[int, fx.Node] = {}
        self._held: dict[int, tuple[Known, fx.Node]] = {}

    def take(self, shapes: Iterable[tuple[int, ...]]) -> Value:
        """The input, of these shapes at the batch sizes."""
        self.input = Value(self.graph.placeholder("x"), tuple(torch.empty(s, device="meta") for s in shapes))
        return self.input

    def call(self, function: Callable[..., Any] | str, *args: Any) -> Value:
        """Add a call of a function, or of a tensor's method by its name.

        Arguments may be values, known numbers, sizes, anything that torch takes, and lists of them.
        """
        if isinstance(function, str):
            node, run = self.graph.call_method(function, self._nodes(args)), getattr(Tensor, function)
        else:
            node, run = self.graph.call_function(function, self._nodes(args)), function
        try:
            at = tuple(run(*_pick(args, k)) for k in range(len(self.batches)))
        except Unfit:
            raise
        except Exception as error:  # torch refuses these shapes
            raise Unfit(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__) from error
        return Value(node, at)

    def reshape(self, x: Value, sizes: list[Size]) -> Value:
        """X in another shape."""
        if [s.at for s in x.shape] == [s.at for s in sizes]:
            return x
        if len(sizes) == 2 and x.rank > 2 and sizes[0] == x.size(0):
            return self.call(torch.flatten, x, 1)
        return self.call(torch.reshape, x, sizes)

    def sizes(self, known: Known) -> list[Size]:
        """Whole numbers, one after the other."""
        arrays = [known.at[k if len(known.at) > 1 else 0].reshape(-1) for k in range(len(self.batches))]
        if len({len(a) for a in arrays}) > 1:
            raise Unfit("a list whose length depends on the batch size")
        return [Size(tuple(int(v) for v in entry)) for entry in zip(*arrays, strict=True)]

    def finish(self, output: Value) -> fx.GraphModule:
        """The module, which returns this value."""
        self.graph.output(output.node)
        self.graph.eliminate_dead_code()
        module = fx.GraphModule(self.root, self.graph, "Network")
        for part in module.modules():
            part.training = False
        return module

    def _nodes(self, value: Any) -> Any:
        if isinstance(value, Value):
            return value.node
        if isinstance(value, Known):
            return self._constant(value)
        if isinstance(value, Size):
            return value.at[0] if value.fixed else self._following(value)
        if isinstance(value, tuple | list):
            return tuple(self._nodes(v) for v in value)
        if isinstance(value, slice):
            return slice(self._nodes(value.start), self._nodes(value.stop), self._nodes(value.step))
        return value

    def _constant(self, known: Known) -> fx.Node:
        """The node of a tensor that the module holds: trained weights as parameters, others as buffers."""
        if id(known) not in self._held:
            tensor = _tensor(known.only)
            name = re.sub(r"\W", "_", known.name) or f"constant_{len(self._held)}"
            name = name if name[0].isalpha() else f"_{name}"
            while hasattr(self.root, name):
                name += "_"
            if known.name and tensor.is_floating_point():
                self.root.register_parameter(name, nn.Parameter(tensor))
            else:
                self.root.register_buffer(name, tensor)
            self._held[id(known)] = known, self.graph.get_attr(name)
        return self._held[id(known)][1]

    def _following(self, size: Size) -> fx.Node:
        """The node of k n + c, for a batch of n."""
        n, v = self.batches, size.at
        k, left = divmod(v[1] - v[0], n[1] - n[0])
        c = v[0] - k * n[0]
        if left or any(w != k * m + c for w, m in zip(v, n, strict=True)):
            raise Unfit("a size that depends on the input's, which are free; give them as input_shape")
        node = self._size_of_batch()
        node = node if k == 1 else self.graph.call_function(operator.mul, (node, k))
        return node if c == 0 else self.graph.call_function(operator.add, (node, c))

    def _size_of_batch(self) -> fx.Node:
        if 0 not in self._sizes:
            with self.graph.inserting_after(self.input.node):
                self._sizes[0] = self.graph.call_method("size", (self.input.node, 0))
        return self._sizes[0]


class Attributes(dict[str, Any]):
    """A node's attributes as Python values."""

    def __init__(self, node: Any) -> None:
        from onnx.helper import get_attribute_value

        super().__init__((a.name, get_attribute_value(a)) for a in node.attribute)
        self.update((k, v.decode()) for k, v in self.items() if isinstance(v, bytes))
        self.outputs = len([name for name in node.output if name])
        self.places = len(node.output)


def _tensor(array: np.ndarray) -> Tensor:
    if not array.flags.writeable or any(s < 0 for s in array.strides):
        array = array.copy()
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _pick(value: Any, k: int) -> Any:
    """An argument as torch takes it at the k-th batch size; tensors hold no data."""
    if isinstance(value, Value):
        return value.at[k]
    if isinstance(value, Known):
        array = value.only
        return torch.empty(array.shape, dtype=torch.from_numpy(np.zeros(1, array.dtype)).dtype, device="meta")
    if isinstance(value, Size):
        return value.at[k]
    if isinstance(value, tuple | list):
        return type(value)(_pick(v, k) for v in value)
    if isinstance(value, slice):
        return slice(_pick(value.start, k), _pick(value.stop, k), _pick(value.step, k))
    return value
