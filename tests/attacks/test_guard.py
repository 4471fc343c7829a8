"""A model is left as found however it is handed over: behind callables, on interrupts, in threads."""

import copy
import functools
import threading
import warnings

import pytest
import torch
from torch import nn

from danskin.attacks import FGSM, PGD
from danskin.attacks.guard import as_found, device_of, mode_of
from danskin.attacks.outcomes import outcomes
from danskin.attacks.square import Square
from danskin.errors import DanskinWarning
from danskin.evaluation import evaluate
from danskin.evaluation.certify import certify
from danskin.metrics import saliency
from danskin.minmax import Linf
from danskin.testing.models import convnet
from danskin.training import TRADES, AdversarialTraining

X = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(8) % 4
BALL = Linf(0.03)


def trained():
    """A model in training mode whose running statistics are not those of the batch."""
    model = nn.Sequential(convnet(4), nn.Dropout(0.5)).train()
    model[0][1].running_mean.fill_(0.7)
    model[0][1].running_var.fill_(3.0)
    return model


class Wrapper:
    def __init__(self, net):
        self.nets = [net]

    def logits(self, x):
        return sum(net(x) for net in self.nets)


WAYS = {
    "lambda": lambda net: lambda x: net(x),
    "bound method": lambda net: Wrapper(net).logits,
    "forward": lambda net: net.forward,
    "partial": lambda net: functools.partial(Wrapper.logits, Wrapper(net)),
}


def state(net):
    flags = [(m.training, getattr(m, "track_running_stats", None)) for m in net.modules()]
    return copy.deepcopy(net.state_dict()), flags, [p.requires_grad for p in net.parameters()], torch.get_rng_state()


def same(one, other):
    values = all(torch.equal(one[0][k], other[0][k]) for k in one[0]) and list(one[0]) == list(other[0])
    return values and one[1:3] == other[1:3] and torch.equal(one[3], other[3])


CALLS = {
    "attack": lambda model: FGSM(BALL, batchnorm="eval")(model, X, Y).x,
    "black box": lambda model: Square(BALL, queries=3, batchnorm="eval")(model, X, Y).x,
    "outcomes": lambda model: outcomes(model, X, Y).correct,
    "saliency": lambda model: saliency(model, X, Y),
    "evaluate": lambda model: evaluate(model, (X, Y), BALL, [FGSM(BALL)], diagnostics=8).broken_by,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.filterwarnings("ignore::danskin.DanskinWarning")
def test_a_network_behind_a_callable_is_treated_as_one(way, call):
    net = trained()
    want = CALLS[call](copy.deepcopy(net))
    before = state(net)
    got = CALLS[call](WAYS[way](net))
    assert torch.equal(got, want) and same(before, state(net))


@pytest.mark.parametrize("way", WAYS)
def test_training_mode_behind_a_callable_is_told(way):
    net = trained()
    before = state(net)
    with pytest.warns(DanskinWarning, match=r"expected eval mode .*got training mode with BatchNorm2d, Dropout; "):
        FGSM(BALL)(WAYS[way](net), X, Y)
    assert same(before, state(net))


def test_the_device_of_what_a_callable_reaches():
    meta = torch.device("meta")
    on_meta = nn.Linear(2, 2, device=meta)
    weight = torch.ones(2, device=meta)
    buffers = nn.BatchNorm1d(2, affine=False, device=meta)
    for model in (on_meta, lambda x: on_meta(x), Wrapper(on_meta).logits, lambda x: x @ weight, buffers):
        assert device_of(model) == meta
    assert device_of(lambda x: x) == device_of(nn.ReLU()) == torch.device("cpu")


class Restless(nn.Module):
    """Buffers assigned anew, in eval mode too; interrupted or failing in a later pass."""

    def __init__(self, passes=10**9, error=KeyboardInterrupt):
        super().__init__()
        self.net, self.left, self.error = trained(), passes, error
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(3), persistent=False)
        self.last = None

    def forward(self, x):
        self.left -= 1
        self.seen = self.seen + len(x)
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 2, 3))
        self.last = x
        if self.left < 0:
            raise self.error("stop")
        return self.net(x)


@pytest.mark.parametrize("call", CALLS)
def test_buffers_that_forward_assigns_anew(call):
    net = Restless().eval()
    net(X)
    before, buffers, last = state(net), dict(net.named_buffers()), net.last
    CALLS[call](net)
    assert same(before, state(net)) and net.last is last
    assert all(buffer is buffers[name] for name, buffer in net.named_buffers())


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
@pytest.mark.filterwarnings("ignore::danskin.DanskinWarning")
def test_errors_and_interrupts_leave_it_as_found(call, error):
    most = {"outcomes": 1, "saliency": 1, "attack": 2}.get(call, 3)
    for passes in range(most):
        net = Restless(passes, error)
        before = state(net)
        with pytest.raises(error, match="stop"):
            CALLS[call](lambda x, net=net: net(x))
        assert same(before, state(net)), passes
        with as_found(net, "eval", X.device):  # nothing is locked for good
            pass


def test_certificates_leave_it_as_found():
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4)).train()
    before = state(net)
    certify(net, (X, Y), BALL)
    assert same(before, state(net))


@pytest.mark.parametrize("objective", [AdversarialTraining, TRADES])
def test_objectives_keep_flags(objective):
    net = trained()
    flags = state(net)[1:3]
    objective(PGD(BALL, steps=2, batchnorm="eval"))(net, X, Y).backward()
    assert state(net)[1:3] == flags


def test_what_a_training_pass_leaves_in_attributes_stays():
    net = Restless().train()
    with mode_of(net, "batch_frozen"):
        net(X)
    assert net.last is X and int(net.seen) == 0


def test_two_attacks_at_once_leave_a_training_model_training():
    net = trained()
    net.register_buffer("calls", torch.zeros(()))
    net.register_forward_hook(lambda module, inputs, output: seen.append([m.training for m in module.modules()]))
    before, seen, errors = state(net), [], []

    def work(seed):
        try:
            with warnings.catch_warnings():
                for _ in range(3):
                    PGD(BALL, steps=3, batchnorm="eval")(WAYS["lambda"](net) if seed % 2 else net, X, Y, seed=seed)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and not any(flag for flags in seen for flag in flags)
    assert same(before, state(net))
