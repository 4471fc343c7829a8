"""A model is told from another by what it computes, and one that cannot be told is not believed."""

import copy
import json

import pytest
import torch
from torch import nn

from danskin.attacks import FGSM
from danskin.evaluation import evaluate
from danskin.evaluation.dependence import alone_and_together
from danskin.evaluation.fingerprint import model_hash, state_hash
from danskin.evaluation.identity import Identity, identify, probes
from danskin.minmax import Linf
from danskin.testing.models import Counted, convnet

X = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Normalized(nn.Module):
    """A network with its normalisation in plain attributes and in a buffer that is not saved."""

    def __init__(self, net, mean=0.5, shift=0.0):
        super().__init__()
        self.net, self.mean, self.std = net, mean, [0.25]
        self.register_buffer("shift", torch.tensor(shift), persistent=False)

    def forward(self, x):
        return self.net((x - self.mean) / self.std[0] + self.shift)


def relation(one, other):
    """As it is after a way through a file."""
    there, here = identify(one, X, (0, 1)), identify(other, X, (0, 1))
    written = json.loads(json.dumps({"hash": there.hash, "computed": there.to_dict()}))
    assert Identity.from_dict(**written) == there
    return here.relation(**written)


NET, OTHER = convnet(10, seed=0), convnet(10, seed=1)
WEIGHTS = torch.randn(192, 10, generator=torch.Generator().manual_seed(0))


def linear(weights):
    array = weights.numpy()
    return lambda x: torch.from_numpy(x.flatten(1).numpy() @ array)


@pytest.mark.parametrize("make", [
    lambda net: net, lambda net: lambda x: net(x), lambda net: net.forward,
    lambda net: nn.Sequential(net, nn.Softmax(1)), lambda net: lambda x: (20 * net(x)).softmax(1),
], ids=["module", "lambda", "method", "probabilities", "sure"])  # fmt: skip
def test_other_weights_are_another_model(make):
    assert relation(make(NET), make(copy.deepcopy(NET))) == "same"
    assert relation(make(NET), make(OTHER)) == "other"


@pytest.mark.parametrize("change", [{"mean": 0.49}, {"shift": 0.01}, {"mean": 0.4999}])
@pytest.mark.parametrize("make", [lambda net: net, lambda net: nn.Sequential(net, nn.Softmax(1))])
def test_a_corrected_normalisation_is_another_model(make, change):
    assert state_hash(Normalized(NET)) == state_hash(Normalized(NET, **change))
    assert relation(make(Normalized(NET)), make(Normalized(NET))) == "same"
    assert relation(make(Normalized(NET)), make(Normalized(NET, **change))) == "other"


def test_probabilities_near_one_tell_as_much_as_logits():
    class Sure(Normalized):
        def forward(self, x):
            return (super().forward(x) + torch.tensor([25.0] + [0.0] * 9)).softmax(1)

    with torch.no_grad():
        made = probes(X, (0, 1))
        gap = (Sure(NET)(made) - Sure(NET, mean=0.49)(made)).abs().max()
    assert relation(Sure(NET), Sure(NET)) == "same" and relation(Sure(NET), Sure(NET, mean=0.49)) == "other"
    assert gap < 1e-4  # the probabilities themselves would not tell


def test_a_function_of_arrays_is_told_by_its_outputs():
    assert identify(linear(WEIGHTS), X, (0, 1)).hash is None
    assert relation(linear(WEIGHTS), linear(WEIGHTS.clone())) == "same"
    assert relation(linear(WEIGHTS), linear(WEIGHTS + 1e-3)) == "other"
    assert relation(linear(WEIGHTS), linear(WEIGHTS * (1 + 1e-6))) == "same"  # rounding


@pytest.mark.parametrize("model", [
    lambda x: NET(x) + torch.randn(len(x), 10), lambda x: nn.functional.dropout(NET(x), 0.5),
    lambda x: nn.functional.one_hot(NET(x).argmax(1), 10).float(), lambda x: torch.zeros(len(x), 10),
    lambda x: x.undefined, lambda x: (1e6 * NET(x)).softmax(1),
], ids=["noise", "dropout", "labels", "constant", "raises", "one-hot"])  # fmt: skip
def test_what_cannot_be_told_is_unknown(model):
    assert relation(model, model) == "unknown"


def test_classes_that_are_not_there():
    def masked(k):
        return lambda x: NET(x).index_fill(1, torch.tensor(k), -torch.inf)

    assert relation(masked([3, 4]), masked([3, 4])) == "same"
    assert relation(masked([3, 4]), masked([3, 5])) == "other"


def test_older_journals_are_read_where_weights_tell():
    now = identify(Normalized(NET), X, (0, 1))
    assert now.hash != now.state and now.relation(now.state, None) == "same" and now.relation("ab", None) == "other"
    assert identify(linear(WEIGHTS), X, (0, 1)).relation(None, None) == "unknown"
    random = identify(nn.Sequential(NET, nn.Identity()), X, (0, 1))
    assert random.relation(random.hash, None) == "same"


def test_rounding_of_another_device_is_allowed_for():
    here = identify(NET, X, (0, 1))
    moved = {"outputs": [[v + 1e-3 * abs(max(row, key=abs)) for v in row] for row in here.outputs]}
    assert here.relation(here.hash, here.to_dict() | moved) == "other"
    assert here.relation(here.hash, here.to_dict() | moved | {"place": "another"}) == "same"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype):
    x, net, other = X.to(dtype), copy.deepcopy(NET).to(dtype), copy.deepcopy(OTHER).to(dtype)
    there = identify(net, x, (0, 1))
    assert not there.doubt and there.relation(there.hash, there.to_dict()) == "same"
    apart = identify(other, x, (0, 1))
    assert Identity.relation(apart, apart.hash, there.to_dict()) == "other"  # by outputs alone


def test_the_model_is_left_as_found_and_its_calls_are_not_counted():
    net = Counted(convnet(10)).train()
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    identify(net, X, (0, 1))
    assert net.calls == 0 and net.training and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("box", [(0, 1), (-3.0, 255.0), None])
@pytest.mark.parametrize("shape", [(3, 8, 8), (2,), (1,)])
def test_probes_are_in_the_box_and_differ(box, shape):
    low, high = box or (-1, 1)
    made = probes(torch.zeros(0, *shape), box)
    assert made.shape == (8, *shape) and torch.equal(made, probes(torch.ones(5, *shape), box))
    assert low <= float(made.min()) and float(made.max()) <= high
    assert len(made.flatten(1).unique(dim=0)) == 8


def test_hashes_know_what_is_behind_a_callable():
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert model_hash(lambda x: net(x)) == model_hash([net].__getitem__(0).forward)
    assert len({model_hash(m) for m in (lambda x: net(x), lambda x: other(x), lambda x: net(other(x)))}) == 3
    assert model_hash(lambda x: net(x) + other(x)) == model_hash(lambda x: other(x) + net(x))


class Hidden:
    """A network in training mode that nobody can reach from outside."""

    def __call__(self, x):
        import danskin.evaluation.identity as somewhere

        return somewhere.__dict__["_hidden_net"](x)


def test_outputs_that_depend_on_the_batch(monkeypatch):
    import danskin.evaluation.identity as somewhere

    net = convnet(4).train()
    monkeypatch.setattr(somewhere, "_hidden_net", net, raising=False)
    y = torch.arange(8) % 4
    flags = evaluate(Hidden(), (X, y), Linf(0.03), [FGSM(Linf(0.03))], diagnostics=8).flags
    (flag,) = [f for f in flags if f.name == "outputs_depend_on_batch"]
    assert flag.level == "warning" and flag.numbers["gap"] > 0 and "depend on the batch" in flag.text
    names = {f.name for f in evaluate(net, (X, y), Linf(0.03), [FGSM(Linf(0.03))], diagnostics=8).flags}
    assert "outputs_depend_on_batch" not in names  # it is in eval mode meanwhile


def test_what_depends_on_the_batch_and_what_does_not():
    assert alone_and_together(lambda x: x - x.mean(0), X[:, 0, 0])[0].name == "outputs_depend_on_batch"
    vectors = nn.BatchNorm1d(8, track_running_stats=False)
    assert "fails for a single one" in alone_and_together(vectors, X[:, 0, 0])[0].text
    assert alone_and_together(lambda x: x - x.mean(0), X[:1, 0, 0]) == ()
    assert alone_and_together(NET, X) == ()
    assert alone_and_together(lambda x: NET(x) + torch.randn(len(x), 10), X) == ()
