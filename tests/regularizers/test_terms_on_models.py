"""What the terms do to and with models: left as found, counted, compiled, wrapped, in low precision."""

import copy
import gc

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from danskin.errors import ModelError
from danskin.minmax import Linf, Streams
from danskin.regularizers import CURE, ELLE, ELLE_A, LLR, REGULARIZERS, GradAlign, LLRRandom
from danskin.regularizers.gradalign import misalignment
from danskin.regularizers.regularizer import eager

BALL = Linf(0.1)


def parameters(loss, net):
    return torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, materialize_grads=True)


def net_with_norm():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(24, 3)
    )


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_found(name, training):
    net = net_with_norm().train(training)
    net[0].bias.requires_grad_(False)
    x, y = torch.rand(6, 1, 2, 3), torch.arange(6) % 3
    kept, before = torch.full_like(net[0].weight, 3.0), copy.deepcopy(net.state_dict())
    net[0].weight.grad = kept.clone()
    term, state = REGULARIZERS[name](BALL), torch.get_rng_state()
    term(net, x, y, memory=term.begin())
    with torch.no_grad():
        term.values(net, x, y)
    assert torch.equal(net[0].weight.grad, kept)
    assert all(p.grad is None for p in list(net.parameters())[1:])
    assert [p.requires_grad for p in net.parameters()] == [True, False, True, True, True, True]
    assert all(m.training is training for m in net.modules())
    assert net[1].track_running_stats
    assert not x.requires_grad
    for key, value in net.state_dict().items():
        if not (training and key.startswith("1.")):
            assert torch.equal(value, before[key])
    if not training:
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("term", "passes"),
    [(GradAlign(BALL), 2), (ELLE(BALL), 1), (LLR(BALL, steps=7), 2), (LLRRandom(BALL), 2), (CURE(BALL), 2)],
    ids=["gradalign", "elle", "llr", "llr_random", "cure"],
)
def test_in_training_mode_only_the_terms_own_passes_reach_the_buffers(term, passes):
    net = net_with_norm().train()
    term.values(net, torch.rand(6, 1, 2, 3), torch.arange(6) % 3)
    assert net[1].num_batches_tracked == passes


def test_a_model_without_a_gradient_is_named(smooth):
    s = smooth()
    for model in (lambda x: s.net(x.detach()), lambda x: s.net(torch.zeros_like(x))):
        for term in (GradAlign(BALL), LLR(BALL), CURE(BALL)):
            with pytest.raises(ModelError, match="payoff: expected values that depend"):
                term.values(model, s.x, s.y)


def flops(act):
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()


#: Forward-equivalents of the term with its backward pass to the weights.
COST = {
    "elle": (ELLE(BALL), 9, {}),
    "gradalign": (GradAlign(BALL), 6, {"gradient"}),
    "gradalign alone": (GradAlign(BALL), 8, {}),
    "cure detached": (CURE(BALL, detach=True), 6, {"gradient"}),
    "cure": (CURE(BALL), 12, {}),
    "llr": (LLR(BALL, steps=5), 6 + 2 * 5 + 1 + 3, {}),
    "llr_random": (LLRRandom(BALL), 6 + 3, {}),
    "elle quarter": (ELLE(BALL, share=0.25), 9 / 4, {}),
}


@pytest.mark.parametrize("name", COST)
def test_the_cost_in_forward_passes(name):
    """Wide layers that are the whole cost; the input is 2-d, so that its own layer costs next to nothing."""
    term, passes, known = COST[name]
    net = nn.Sequential(nn.Linear(2, 64), *[nn.Sequential(nn.Tanh(), nn.Linear(64, 64)) for _ in range(6)])
    net.append(nn.Linear(64, 3))
    x, y = torch.rand(8, 2), torch.arange(8) % 3
    model = lambda z: net(z + 0)  # noqa: E731  the counter does not like leaves at the door of a module
    options = {"gradient": torch.randn(8, 2)} if known else {}
    one = flops(lambda: model(x))
    found = flops(lambda: term(model, x, y, **options).mean().backward()) / one
    assert found == pytest.approx(passes, rel=0.06)


def test_elle_a_costs_three_passes_while_off_and_nine_while_on():
    net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
    x, y = torch.rand(8, 2), torch.arange(8) % 3
    term, one = ELLE_A(BALL), flops(lambda: net(x))
    memory = term.begin()
    assert flops(lambda: term(net, x, y, memory=memory)) == 3 * one
    memory["switch"].fill_(1.0)
    assert flops(lambda: term(net, x, y, memory=memory).mean().backward()) == pytest.approx(9 * one, rel=0.06)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_compiled_module_gives_the_same_values_and_gradients(smooth, name):
    """ELLE runs on the compiled module itself, the others on the eager one inside it."""
    s = smooth()
    term, used = REGULARIZERS[name](BALL), []

    def backend(graph, inputs):
        from torch._dynamo.backends.debugging import aot_eager

        used.append(1)
        return aot_eager(graph, inputs)

    compiled = torch.compile(s.net, backend=backend)
    values = term.values(compiled, s.x, s.y)
    truth = term.values(s.net, s.x, s.y)
    torch.testing.assert_close(values, truth)
    for p, q in zip(parameters(values.mean(), s.net), parameters(truth.mean(), s.net), strict=True):
        torch.testing.assert_close(p, q)
    assert bool(used) is not term.double_backward


def test_a_compiled_module_cannot_be_differentiated_twice(smooth):
    """Why the eager module is used. Should this fail one day, the detour can go."""
    s = smooth()
    compiled = torch.compile(s.net, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"double backwards|donated buffers"):
        GradAlign(BALL).values(lambda x: compiled(x), s.x, s.y).mean().backward()


def test_the_eager_module_inside_wrappers(smooth):
    net = smooth().net
    assert eager(net) is net
    assert eager(torch.compile(net, backend="eager")) is net
    function = lambda x: x  # noqa: E731
    assert eager(function) is function


@pytest.mark.parametrize("name", REGULARIZERS)
def test_beside_a_loss_through_ddp_the_term_uses_the_raw_module(smooth, name, tmp_path):
    """Through the wrapper a second forward pass in the step would confuse its reducer."""
    s, term = smooth(), REGULARIZERS[name](BALL, schedule=None)
    truth = parameters(F.cross_entropy(s.net(s.x), s.y) + term(s.net, s.x, s.y).mean(), s.net)
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(s.net)
        assert eager(wrapped) is s.net
        entered = []
        wrapped.register_forward_pre_hook(lambda *_: entered.append(1))
        (F.cross_entropy(wrapped(s.x), s.y) + term(wrapped, s.x, s.y).mean()).backward()
    finally:
        wrapped = None
        gc.collect()  # the last owner of the group waits for gloo's threads, and a wrapper does so holding the GIL
        dist.destroy_process_group()
    assert len(entered) == 1
    for p, g in zip(s.net.parameters(), truth, strict=True):
        torch.testing.assert_close(p.grad, g)


def test_a_term_with_func_grad_inside_a_compiled_function(smooth):
    """The way to compile a double backward: torch.func.grad in the function that is compiled."""
    s = smooth()
    weights = dict(s.net.named_parameters())
    eta = BALL.sample(s.x, Streams.of_content(0, s.x).child(1))
    first = GradAlign(BALL)  # its gradient at x, known
    g = torch.func.grad(lambda z: F.cross_entropy(s.net(z), s.y, reduction="sum"))(s.x).detach()

    def penalty(weights, x, y, eta, g):
        total = lambda z: F.cross_entropy(functional_call(s.net, weights, (z,)), y, reduction="sum")  # noqa: E731
        return misalignment(g, torch.func.grad(total)(x + eta)).mean()

    found = torch.compile(penalty, backend="aot_eager", fullgraph=True)(weights, s.x, s.y, eta, g)
    truth = first.values(s.net, s.x, s.y, gradient=g).mean()
    torch.testing.assert_close(found, truth)
    for p, q in zip(parameters(found, s.net), parameters(truth, s.net), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_under_autocast_inputs_and_losses_stay_float32(smooth, name):
    s = smooth(dtype=torch.float32)
    term, seen = REGULARIZERS[name](BALL, loss="margin"), []

    def model(x):
        seen.append(x.detach().clone())
        return s.net(x)

    plain = term.values(model, s.x, s.y)
    exact, seen = seen, []
    with torch.autocast("cpu", torch.bfloat16):
        low = term.values(model, s.x, s.y)
        assert s.net(s.x).dtype == torch.bfloat16
    assert low.dtype == plain.dtype == torch.float32
    assert all(x.dtype == torch.float32 for x in seen)
    assert all(torch.equal(a, b) for a, b in zip(exact[:1], seen[:1], strict=True))
    if name in ("gradalign", "elle", "elle_a", "llr_random"):
        assert all(torch.equal(a, b) for a, b in zip(exact, seen, strict=True))
    assert bool(low.isfinite().all())
    assert bool(torch.stack(parameters(low.mean(), s.net)[:1]).isfinite().all())


def test_the_look_without_gradients_does_not_starve_the_loss_under_autocast(smooth):
    """Autocast caches casts of weights: one made under no_grad would cut the gradient of what follows."""
    s, term = smooth(dtype=torch.float32), ELLE_A(BALL)
    with torch.autocast("cpu", torch.bfloat16):
        extra = term(s.net, s.x, s.y, memory=term.begin())
        loss = F.cross_entropy(s.net(s.x), s.y) + extra.mean()
    assert all(bool(g.any()) for g in parameters(loss, s.net))


@pytest.mark.parametrize("name", REGULARIZERS)
def test_half_precision_inputs_are_moved_in_float32(smooth, name):
    s = smooth(dtype=torch.float32)
    seen = []

    def model(x):
        seen.append(x.dtype)
        return s.net(x.float())

    values = REGULARIZERS[name](BALL).values(model, s.x.bfloat16(), s.y)
    assert values.dtype == torch.float32
    assert set(seen) == {torch.bfloat16}
