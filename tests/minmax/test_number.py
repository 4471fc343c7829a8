"""Numbers as the field writes them."""

import pytest
import torch

from danskin.errors import InputError
from danskin.minmax import number


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("-1", -1), ("2*(3+4)", 14), ("2**-3", 0.125),
                                             ("1e-3", 1e-3), (" 0.5 ", 0.5), ("+1-2", -1)])  # fmt: skip
def test_value(text, value):
    assert number(text) == value


def test_names_may_be_tensors():
    assert torch.equal(number("2*radius/steps", radius=torch.tensor([1.0, 2.0]), steps=4), torch.tensor([0.5, 1.0]))


@pytest.mark.parametrize("text", ["", "eight", "1/0", "__import__('os')", "(1).real", "True", "[1]", "1 if 1 else 2",
                                  "a.b", "'1'", "8 / 255 px"])  # fmt: skip
def test_refuses(text):
    with pytest.raises(InputError, match=r"expected .*got .*; write"):
        number(text)
