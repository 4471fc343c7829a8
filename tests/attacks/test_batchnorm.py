"""What BatchNorm and dropout do while the adversary moves."""

import copy

import pytest
import torch

from danskin.attacks import FGSM, PGD
from danskin.errors import DanskinWarning
from danskin.losses import cross_entropy
from danskin.minmax import Linf
from danskin.testing.models import convnet

X = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(8) % 4
BALL = Linf(0.03)


def trained(dropout=0.0):
    """A model in training mode whose running statistics are not those of the batch."""
    model = torch.nn.Sequential(convnet(4), torch.nn.Dropout(dropout)).train()
    norm = model[0][1]
    norm.running_mean.fill_(0.7)
    norm.running_var.fill_(3.0)
    return model


def buffers(model):
    return {k: v.clone() for k, v in model.named_buffers()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def fgsm_by_hand(model):
    x = X.clone().requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(model(x), Y).sum(), x)
    return (X + 0.03 * g.sign()).clamp(0, 1)


def test_eval_uses_running_statistics():
    model = trained()
    before = buffers(model)
    got = FGSM(BALL, batchnorm="eval")(model, X, Y).x
    assert model.training and same(before, buffers(model))
    assert torch.equal(got, fgsm_by_hand(copy.deepcopy(model).eval()))


def test_batch_frozen_uses_the_batch_and_leaves_the_buffers():
    model = trained()
    before = buffers(model)
    got = FGSM(BALL, batchnorm="batch_frozen")(model, X, Y).x
    assert model.training and same(before, buffers(model))
    assert torch.equal(got, fgsm_by_hand(copy.deepcopy(model)))
    assert not torch.equal(got, fgsm_by_hand(copy.deepcopy(model).eval()))


def test_train_update_uses_the_batch_and_updates_the_buffers_at_every_pass():
    model = trained()
    PGD(BALL, steps=3, random_start=False, step=0.0, batchnorm="train_update")(model, X, Y)
    other = trained()
    for _ in range(4):  # three gradients and the last point
        other(X)
    assert int(model[0][1].num_batches_tracked) == 4
    assert torch.allclose(model[0][1].running_mean, other[0][1].running_mean)


def test_as_is_warns_in_training_mode_and_leaves_the_buffers():
    model = trained()
    before = buffers(model)
    with pytest.warns(DanskinWarning, match=r"expected eval mode .*got training mode with BatchNorm2d, Dropout; "):
        got = FGSM(BALL)(model, X, Y).x
    assert same(before, buffers(model)) and torch.equal(got, fgsm_by_hand(copy.deepcopy(model)))


def test_eval_mode_gives_no_warning():
    FGSM(BALL)(trained().eval(), X, Y)


@pytest.mark.parametrize("mode", ["eval", "batch_frozen", "train_update"])
def test_a_chosen_mode_gives_no_warning_and_keeps_the_random_state(mode):
    model = trained(dropout=0.5)
    state = torch.get_rng_state()
    FGSM(BALL, batchnorm=mode)(model, X, Y)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("mode", "same_loss"), [("eval", True), ("batch_frozen", False)])
def test_dropout_is_off_in_eval_only(mode, same_loss):
    model, losses = trained(dropout=0.5), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(FGSM(BALL, batchnorm=mode)(model, X, Y).loss)
    assert torch.equal(*losses) is same_loss


@pytest.mark.parametrize("layer", [
    torch.nn.InstanceNorm2d(3, track_running_stats=True), torch.nn.BatchNorm2d(3, momentum=None),
    torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(3, 3, 1)),
], ids=["instance norm", "cumulative", "spectral norm"])  # fmt: skip
@pytest.mark.parametrize("mode", ["eval", "batch_frozen"])
def test_other_layers_with_buffers_are_left_as_found(layer, mode):
    model = torch.nn.Sequential(layer, torch.nn.Flatten(), torch.nn.Linear(48, 4)).train()
    before = buffers(model)
    PGD(BALL, steps=2, batchnorm=mode)(model, X, Y)
    assert same(before, buffers(model)) and model.training and layer.training


def test_a_norm_without_running_statistics_stays_one():
    norm = torch.nn.BatchNorm2d(3, track_running_stats=False)
    model = torch.nn.Sequential(norm, torch.nn.Flatten(), torch.nn.Linear(48, 4)).train()
    FGSM(BALL, batchnorm="batch_frozen")(model, X, Y)
    assert norm.track_running_stats is False and norm.running_mean is None


@pytest.mark.parametrize("mode", ["batch_frozen", "train_update"])
def test_batch_statistics_are_used_on_a_model_in_eval_mode_too(mode):
    model = trained()
    want = fgsm_by_hand(copy.deepcopy(model))
    model.eval()
    before = buffers(model)
    got = FGSM(BALL, batchnorm=mode)(model, X, Y).x
    assert torch.equal(got, want)
    assert not any(m.training for m in model.modules())
    assert same(before, buffers(model)) == (mode == "batch_frozen")
