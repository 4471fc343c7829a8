"""A first small batch tells what is wrong with a model, in words that help."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from danskin.attacks import PGD
from danskin.errors import DanskinWarning, InputError, ModelError
from danskin.foreign import Opened, check_model
from danskin.foreign.opened import Batched, ready
from danskin.minmax import Linf
from danskin.models import Normalize

CPU = torch.device("cpu")
X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(classes=5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, classes))


class Returns(nn.Module):
    """A network whose output something is done to."""

    def __init__(self, change):
        super().__init__()
        self.net, self.change = net(), change

    def forward(self, x):
        return self.change(self.net(x))


def checked(model, x=X, classes=None):
    return check_model(ready(model, "net", CPU, classes=classes), x)


def test_a_good_model_is_left_as_it_is():
    model = net().eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    state = torch.get_rng_state()
    found = checked(model, classes=5)
    assert found.model is model and found.differentiable and found.note == "" and found.classes == 5
    assert all(p.requires_grad for p in model.parameters()) and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight)) and model[3].weight.grad is None


def test_training_mode_is_left():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3), net())
    found = check_model(Opened(model, "net", None, True, "a note"), X)
    assert found.note == "a note; put into eval mode" and not any(m.training for m in model.modules())
    assert model[1].num_batches_tracked == 0


@pytest.mark.parametrize(
    "change", [lambda z: {"logits": z, "loss": 3}, lambda z: SimpleNamespace(logits=z, hidden_states=None)]
)
def test_outputs_that_call_their_logits_so(change):
    found = checked(Returns(change).eval())
    assert "logits taken out" in found.note and torch.equal(found.model(X), net()(X))
    assert PGD(Linf(0.1), steps=2)(found.model, X, torch.arange(6) % 5).x.shape == X.shape
    model = Returns(change).eval()
    plain = check_model(ready(lambda x: model(x), "callable", CPU), X)
    assert torch.equal(plain.model(X), net()(X)) and plain.hash is None


OUTPUTS = {
    "a tuple": (lambda z: (z, z[:, 0]), r"got a tuple of \(4, 5\), \(4,\); wrap the model"),
    "a mapping": (lambda z: {"out": z, "aux": z}, "got a dict with 'out', 'aux'"),
    "labels": (lambda z: z.argmax(1), "got torch.int64; return scores, not predicted labels"),
    "one score": (lambda z: z[:, :1], r"expected logits of shape \(4, classes\), got \(4, 1\).*torch.stack"),
    "a flat score": (lambda z: z[:, 0], r"got \(4,\).*torch.stack"),
    "a map": (lambda z: z[:, :, None, None], r"got \(4, 5, 1, 1\); return one row"),
    "a mean": (lambda z: z.mean(0, keepdim=True), r"got \(1, 5\); return one row"),
    "NaN": (lambda z: z / 0 * 0, "expected finite logits, got NaN or infinity; check"),
}


@pytest.mark.parametrize("what", OUTPUTS)
def test_outputs_that_are_no_logits(what):
    change, words = OUTPUTS[what]
    with pytest.raises(ModelError, match=words):
        checked(Returns(change))


def test_number_of_classes():
    with pytest.raises(ModelError, match="expected 10 logits, one for each class of the data, got 5"):
        checked(net(), classes=10)


def test_spoiled_weights_are_named():
    model = net()
    with torch.no_grad():
        model[3].bias[2] = torch.nan
    with pytest.raises(ModelError, match=r"got NaN or infinity \(and in 3.bias\)"):
        checked(model)


INPUTS = {
    "channels": (net(), X[:, :1], r"its first layer \(0\) expects 3 channels in dimension 1 \(Conv2d\), not 1"),
    "channels last": (net(), X.movedim(1, -1), r"not 8; channels seem to be last: use x.movedim\(-1, 1\)"),
    "size": (net(), X[:, :, :7, :7], r"RuntimeError: mat1.*inputs of other height and width than \(7, 7\)"),
    "no Flatten": (nn.Sequential(nn.Linear(192, 5)), X, r"192 features \(Linear\), in one dimension: put nn.Flatten"),
    "features": (
        nn.Sequential(nn.Flatten(), nn.Linear(64, 5)),
        X,
        r"first layer \(1\) expects 64 features \(Linear\), not 192",
    ),
    "statistics": (nn.Sequential(Normalize([0.5], [0.5]), Normalize([0.1] * 2, [1] * 2)), X, "expects 2 channels"),
    "half": (net().half(), X, r"weights are torch.float16: judge model.float\(\)"),
    "bfloat16": (net().bfloat16(), X, r"weights are torch.bfloat16: judge model.float\(\)"),
    "double": (net().double(), X, r"weights are torch.float64: use model.to\(torch.float32\)"),
    "anything": (nn.Unfold(20), X, "see what forward expects"),
}


@pytest.mark.parametrize("what", INPUTS)
def test_inputs_that_do_not_fit(what):
    model, x, words = INPUTS[what]
    with pytest.raises(ModelError, match=rf"net: expected to take inputs of shape \(4, .*{words}"):
        checked(model, x)


def test_callables_that_raise():
    with pytest.raises(ModelError, match="got KeyError: 'a'; see that the callable takes torch tensors"):
        checked(lambda x: {}["a"])


def test_bad_data():
    with pytest.raises(InputError, match="divide by 255"):
        checked(net(), X * 255)
    with pytest.raises(InputError, match="expected at least one example"):
        checked(net(), X[:0])


def test_probabilities_are_warned_about():
    with pytest.warns(DanskinWarning, match="probabilities"):
        found = checked(Returns(lambda z: z.softmax(1)))
    assert "returns probabilities" in found.note and found.differentiable


def test_half_logits_are_warned_about():
    with pytest.warns(DanskinWarning, match="logits in torch.bfloat16"):
        found = checked(Returns(lambda z: z.bfloat16()))
    assert found.differentiable


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda z: z.detach(), "no gradient reaches the input"),
        (lambda z: torch.from_numpy(z.detach().numpy()), "no gradient reaches the input"),
        (lambda z: z.detach() + torch.zeros(1, requires_grad=True), "no gradient reaches the input: only"),
    ],
)
def test_models_without_gradient(change, words):
    with pytest.warns(DanskinWarning, match=words):
        found = checked(Returns(change))
    assert not found.differentiable and words in found.note


def test_strange_gradients():
    with pytest.warns(DanskinWarning, match="the gradient is zero"):
        assert checked(Returns(lambda z: z.round())).differentiable
    with pytest.warns(DanskinWarning, match="holds NaN or infinity"):
        assert checked(Returns(lambda z: z + (z * 0).abs().sqrt())).differentiable


def test_what_is_known_to_have_no_gradient_is_not_tried():
    opened = Opened(net().eval(), "net", None, False)
    assert check_model(opened, X).differentiable is False


def test_models_that_mix_examples():
    with pytest.warns(DanskinWarning, match=r"depend on the example only.*mixes the examples"):
        checked(Returns(lambda z: z - z.mean(0)))
    with pytest.warns(DanskinWarning, match="the model is random"):
        checked(Returns(lambda z: z + torch.randn_like(z)))


def test_models_of_one_batch_size():
    def only_four(z):
        if len(z) != 4:
            raise ValueError("four, please")
        return z

    with pytest.raises(ModelError, match=r"any number of examples, got ValueError: four, please for a single one"):
        checked(Returns(only_four))


@pytest.mark.parametrize("least, most", [(1, 1), (3, 3), (2, 4), (4, None), (8, 8)])
def test_batches_are_cut_and_filled(least, most):
    sizes = []

    def look(z):
        sizes.append(len(z))
        return z

    model = Batched(Returns(look).eval(), least, most)
    for n in range(1, 7):
        torch.testing.assert_close(model(X[:n]), net()(X[:n]))
    assert min(sizes) >= least and max(sizes) <= (most or 6)
    assert model(X[:0]).shape == (0, 5)
