"""Numbers as the field writes them: ``8/255``, ``2.5*radius/steps``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor

from danskin.errors import InputError

#: A number, an expression such as ``"8/255"``, or one number per example.
Number = float | str | Tensor

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def number(value: Any, **names: Any) -> Any:
    """Return the value of a number that may be written as an arithmetic expression.

    Args:
        value: a number or tensor (returned as it is), or a text such as ``"8/255"`` or
            ``"2.5*radius/steps"``: numbers, ``+ - * / **``, brackets, and the given names.
        **names: what a name in the text stands for.

    Raises:
        InputError: the text is not such an expression.

    >>> number("8/255") == 8 / 255, number("radius/4", radius=2.0), number(0.5)
    (True, 0.5, 0.5)
    """
    if not isinstance(value, str):
        return value

    def walk(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body=body):
                return walk(body)
            case ast.Constant(value=int() | float() as constant) if not isinstance(constant, bool):
                return constant
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](walk(left), walk(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](walk(operand))
        raise ValueError

    try:
        return walk(ast.parse(value.strip(), mode="eval"))
    except (ValueError, SyntaxError, ZeroDivisionError, OverflowError) as error:
        known = f" and the names {', '.join(names)}" if names else ""
        raise InputError(
            f"number: expected digits and + - * / ( ){known}, got {value!r}; write for example '8/255'"
        ) from error
