"""Fingerprints change with what they are of, and with nothing else."""

import hashlib
import io

import pytest
import torch
from torch import nn

from danskin.errors import ModelError
from danskin.evaluation.fingerprint import model_hash, tensor_hash


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_of_a_tensor_as_written_down():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    text = b"tensor torch.float32 (2, 2) 16:" + x.numpy().tobytes()
    assert tensor_hash(x) == hashlib.sha256(text).hexdigest()


def test_of_a_tensor_knows_dtype_shape_and_values():
    x = torch.zeros(3, 4)
    others = [x.double(), x.view(4, 3), x.view(12), x + 1e-45, -x, x.bool(), x.bfloat16(), x[:2], x.int()]
    assert len({tensor_hash(t) for t in [x, *others]}) == 1 + len(others)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.complex64]
)
def test_of_a_tensor_does_not_know_strides_and_gradients(dtype):
    x = torch.arange(12).view(3, 4).to(dtype)
    strided = torch.stack([x, x], 2)[:, :, 1]
    assert not strided.is_contiguous() and tensor_hash(strided) == tensor_hash(x) == tensor_hash(x.T.contiguous().T)
    if dtype.is_floating_point:
        assert tensor_hash(x.clone().requires_grad_()) == tensor_hash(x)


def test_of_lazy_and_odd_tensors():
    z = torch.tensor([1 + 2j, 3 - 1j])
    assert tensor_hash(z.conj()) == tensor_hash(z.conj().resolve_conj())
    assert tensor_hash(torch.eye(3).to_sparse()) == tensor_hash(torch.eye(3))
    assert tensor_hash(torch.tensor(3.0)) != tensor_hash(torch.tensor([3.0]))
    assert tensor_hash(torch.empty(0, 3)) != tensor_hash(torch.empty(3, 0))


def test_of_a_model():
    assert model_hash(net()) == model_hash(net()) == model_hash(net().eval().requires_grad_(False))
    assert model_hash(net(1)) != model_hash(net())
    assert len(model_hash(net())) == 64


def test_of_a_model_changes_with_each_weight_and_buffer():
    model = net()
    before = {model_hash(model)}
    for value in model.state_dict().values():
        value.view(-1)[-1] += 1
        before.add(model_hash(model))
    assert len(before) == 1 + len(model.state_dict())


def test_of_a_model_knows_names_but_not_their_order():
    class Two(nn.Module):
        def __init__(self, first, second):
            super().__init__()
            for name, value in (first, second):
                self.register_buffer(name, torch.full((2,), value))

    assert model_hash(Two(("a", 1.0), ("b", 2.0))) == model_hash(Two(("b", 2.0), ("a", 1.0)))
    assert model_hash(Two(("a", 1.0), ("b", 2.0))) != model_hash(Two(("a", 2.0), ("b", 1.0)))
    assert model_hash(Two(("a", 1.0), ("b", 2.0))) != model_hash(Two(("a", 1.0), ("c", 2.0)))


class Stateful(nn.Module):
    def __init__(self, state):
        super().__init__()
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


@pytest.mark.parametrize(
    "one, other",
    [
        ({"steps": 1}, {"steps": 2}),
        ([1, 2], [1, 2, 3]),
        (["ab", "c"], ["a", "bc"]),
        (io.BytesIO(b"a"), io.BytesIO(b"b")),
        (1, 1.0),
        (None, False),
        (torch.float32, torch.float64),
    ],
)
def test_extra_state_counts(one, other):
    assert model_hash(Stateful(one)) == model_hash(Stateful(one)) != model_hash(Stateful(other))


def test_state_that_has_no_content_is_refused():
    with pytest.raises(ModelError, match=r"expected a state of tensors.*got object under '_extra_state'"):
        model_hash(Stateful(object()))


def test_a_callable_without_state_has_none():
    assert model_hash(lambda x: x) is None
    assert model_hash(nn.Flatten()) is not None
