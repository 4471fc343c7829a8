"""Losses per example: values by hand, gradients, labels that do not fit."""

import math

import pytest
import torch

from danskin import losses
from danskin.errors import InputError
from danskin.losses import LOSSES, check_labels, get_loss

NAT = torch.tensor([[2.0, 1.0, 0.0], [0.5, 0.2, -0.3]], dtype=torch.float64)
ADV = torch.tensor([[1.0, 1.5, 0.0], [0.1, 0.4, -0.2]], dtype=torch.float64)
Y = torch.tensor([0, 1])
H = torch.tensor([2.0, -0.5, 0.0], dtype=torch.float64)
B = torch.tensor([1, 1, -1])


def values(name, *args):
    return [round(v, 6) for v in get_loss(name).function(*args).tolist()]


def test_cross_entropy():
    assert get_loss("cross_entropy").function(NAT, Y).mean().item() == pytest.approx(0.7457874, abs=1e-7)
    assert get_loss("cross_entropy").function(ADV, Y).mean().item() == pytest.approx(0.9662604, abs=1e-7)


def test_margin_is_positive_where_wrong():
    assert values("margin", ADV, Y) == [0.5, -0.3]
    assert values("margin", NAT, Y) == [-1.0, 0.3]


def test_targeted_margins():
    got = [values("targeted_margin", ADV, Y, torch.full((2,), t)) for t in range(3)]
    assert got == [[0.0, -0.3], [0.5, 0.0], [-1.0, -0.6]]


def test_dlr_of_three_classes():
    assert values("dlr", NAT, Y) == [-0.5, 0.375]  # -1 / (2 - 0) and 0.3 / (0.5 + 0.3)


def test_dlr_of_two_classes_is_the_margin():
    assert torch.equal(losses.dlr(NAT[:, :2], Y), losses.margin(NAT[:, :2], Y))
    assert values("targeted_dlr", NAT[:, :2], Y, 1 - Y) == [-1.0, 0.3]


def test_dlr_of_ten_classes():
    z = torch.arange(10.0, dtype=torch.float64)[None]
    assert values("dlr", z, torch.tensor([9])) == [-0.5]  # (8 - 9) / (9 - 7)
    assert values("dlr", z, torch.tensor([0])) == [4.5]  # (9 - 0) / (9 - 7)
    assert values("targeted_dlr", z, torch.tensor([9]), torch.tensor([4])) == [-2.0]  # (4 - 9) / (9 - (7 + 6) / 2)


def test_targeted_dlr_of_three_classes():
    assert values("targeted_dlr", NAT, Y, torch.tensor([1, 0])) == [-0.5, 0.375]


def test_dlr_does_not_see_shift_and_scale():
    z = torch.randn(5, 6, dtype=torch.float64)
    y = torch.arange(5)
    assert torch.allclose(losses.dlr(3 * z + 7, y), losses.dlr(z, y))


def test_binary_losses():
    assert values("logistic", H, B) == [round(math.log1p(math.exp(-m)), 6) for m in (2.0, -0.5, 0.0)]
    assert values("hinge", H, B) == [0.0, 1.5, 1.0]
    assert values("squared", H, B) == [1.0, 2.25, 1.0]
    assert values("zero_one", H, B) == [0.0, 1.0, 1.0]  # 0 is predicted +1


@pytest.mark.parametrize("name", ["logistic", "hinge", "squared", "zero_one"])
def test_one_output_per_example_may_be_a_column(name):
    assert values(name, H[:, None], B) == values(name, H, B)


def test_zero_one_and_ties():
    assert values("zero_one", torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0])) == [0.0, 1.0]
    assert losses.predict(torch.tensor([[1.0, 1.0]])).tolist() == [0]


def test_logistic_and_cross_entropy_do_not_overflow():
    assert losses.logistic(torch.tensor([-1e4]), torch.tensor([1])).tolist() == [1e4]
    assert losses.cross_entropy(torch.tensor([[0.0, 1e4]]), torch.tensor([0])).tolist() == [1e4]


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "zero_one"])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_gradients(name, classes):
    loss = get_loss(name)
    outputs = torch.randn(4, 1 if loss.binary else classes, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, -1, 1, -1]) if loss.binary else torch.arange(4) % classes
    if loss.relative:
        labels = torch.randn(4, classes, dtype=torch.float64).log_softmax(1)
    extra = [(labels + 1) % classes] if loss.targeted else []
    assert torch.autograd.gradcheck(lambda z: loss.function(z, labels, *extra), outputs)


@pytest.mark.parametrize("name", LOSSES)
def test_one_value_per_example(name):
    loss = get_loss(name)
    for n in (0, 1, 5):
        labels = torch.zeros(n, 3) if loss.relative else torch.ones(n, dtype=torch.int64)
        extra = [labels] if loss.targeted else []
        assert loss.function(torch.randn(n, 1 if loss.binary else 3), labels, *extra).shape == (n,)
    assert loss.summary


SCORES, ONE = torch.zeros(2, 3), torch.zeros(2, 1)


@pytest.mark.parametrize(("labels", "outputs", "name", "hint"), [
    ([-1, 1], SCORES, "cross_entropy", r"\(y \+ 1\) // 2"),
    ([0, 3], SCORES, "margin", "check the data"),
    ([-2, 0], SCORES, "margin", "check the data"),
    ([0, 1], ONE, "logistic", r"2 \* y - 1"),
    ([1, 2], ONE, "zero_one", r"2 \* y - 1"),
    ([1, 1], SCORES, "hinge", "cross_entropy"),
    ([0, 1], ONE, "cross_entropy", "logistic"),
    ([0, 1], torch.zeros(2), "margin", "logistic"),
    ([0, 1], torch.zeros(2, 3, 4), "margin", "flatten"),
])  # fmt: skip
def test_refuses_labels_that_do_not_fit(labels, outputs, name, hint):
    with pytest.raises(InputError, match=rf"expected .*{hint}|{hint}.*") as error:
        check_labels(torch.tensor(labels), outputs, get_loss(name))
    assert all(word in str(error.value) for word in ("expected", "got", ";"))


@pytest.mark.parametrize(("labels", "outputs", "name"), [([0, 2], SCORES, "margin"), ([-1, 1], ONE, "hinge"),
                                                         ([1, 1], torch.zeros(2), "zero_one"),
                                                         ([], ONE[:0], "hinge")])  # fmt: skip
def test_accepts_labels_that_fit(labels, outputs, name):
    check_labels(torch.tensor(labels, dtype=torch.int64), outputs, get_loss(name))


def test_unknown_loss():
    with pytest.raises(InputError, match=r"expected one of cross_entropy.*got 'mse'; "):
        get_loss("mse")
