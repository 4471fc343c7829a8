"""What every method owes its user: groups, state, buffers, bad gradients, closures, scalers, schedulers."""

import io

import optim_cases as cases
import pytest
import torch
from optim_cases import METHODS, batch, closure_of, everything, network, run, same, sgd
from torch import nn
from torch.nn import functional as F

from danskin import SAM, InputError

every = pytest.mark.parametrize("method", METHODS)
second = pytest.mark.parametrize("method", [m for m in METHODS if m != "plain"])


@every
def test_without_a_learning_rate_weights_stay_and_statistics_move_once(method):
    model, twin = network(), network()
    opt = METHODS[method](torch.optim.SGD(model.parameters(), lr=0.0))
    for step in range(4):
        opt.step(closure_of(model, step))
        twin(batch(step)[0])  # one pass in training mode
    assert same(everything(model), everything(twin))


@every
def test_a_resumed_run_is_the_uninterrupted_one(method):
    whole = network()
    run(whole, METHODS[method](sgd(whole)), 9)
    model = network()
    opt = METHODS[method](sgd(model))
    run(model, opt, 4)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    later = network(seed=5)
    later.load_state_dict(kept["model"])
    again = METHODS[method](sgd(later))
    again.load_state_dict(kept["opt"])
    run(later, again, 5, first=4)
    assert same(everything(whole), everything(later)) and again.steps == 9


@every
def test_resume_through_adamw_and_several_bases(method):
    def several(model):
        matrices = [p for p in model.parameters() if p.ndim == 2]
        rest = [p for p in model.parameters() if p.ndim < 2]
        muon = getattr(torch.optim, "Muon", torch.optim.Adam)
        return METHODS[method]([muon(matrices, lr=0.01), torch.optim.AdamW(rest, lr=0.01)])

    whole, model, later = network(), network(), network(seed=7)
    run(whole, several(whole), 7)
    opt, again = several(model), several(later)
    run(model, opt, 3)
    later.load_state_dict(everything(model))
    again.load_state_dict(opt.state_dict())
    run(later, again, 4, first=3)
    assert same(everything(whole), everything(later))


@every
def test_groups_are_the_bases_own_also_after_loading(method):
    model = network()
    base = sgd(model)
    opt = METHODS[method](base)
    assert opt.param_groups is base.param_groups
    run(model, opt, 2)
    opt.load_state_dict(opt.state_dict())
    assert opt.param_groups is base.param_groups and opt.state is base.state
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1, 0.5)
    run(model, opt, 1)
    schedule.step()
    assert base.param_groups[0]["lr"] == pytest.approx(0.05)


@every
def test_the_checkpoint_of_a_plain_base_goes_on(method):
    model = network()
    base = sgd(model)
    closure_of(model, 0)()
    base.step()
    opt = METHODS[method](sgd(model, lr=0.7))
    opt.load_state_dict(base.state_dict())
    assert opt.param_groups[0]["lr"] == 0.1 and opt.steps == 0 and len(opt.state) == 6
    run(model, opt, 3)
    assert opt.steps == 3


@every
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_distributed_checkpoint_of_several_bases_goes_on(method, tmp_path):
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def several(model):
        matrices = [p for p in model.parameters() if p.ndim == 2]
        rest = [p for p in model.parameters() if p.ndim < 2]
        return METHODS[method]([torch.optim.SGD(matrices, 0.1, momentum=0.9), torch.optim.AdamW(rest, lr=0.01)])

    model, later = network(), network(seed=3)
    opt, again = several(model), several(later)
    run(model, opt, 4)
    weights, state = get_state_dict(model, opt)
    dcp.save({"model": weights, "opt": state}, checkpoint_id=tmp_path, no_dist=True)
    run(model, opt, 3, first=4)
    weights, state = get_state_dict(later, again)
    dcp.load({"model": weights, "opt": state}, checkpoint_id=tmp_path, no_dist=True)
    set_state_dict(later, again, model_state_dict=weights, optim_state_dict=state)
    assert same(everything(model), everything(run(later, again, 3, first=4)))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_distributed_checkpoint_that_was_not_read_whole(tmp_path):
    """torch.distributed.checkpoint leaves all state out, in silence, where gradients are set and there is none yet."""
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def resumed(prepare):
        later = network(seed=3)
        again = SAM(sgd(later))
        closure_of(later, 0)()
        prepare(again)
        weights, state = get_state_dict(later, again)
        dcp.load({"model": weights, "opt": state}, checkpoint_id=tmp_path, no_dist=True)
        set_state_dict(later, again, model_state_dict=weights, optim_state_dict=state)
        return run(later, again, 3, first=4)

    model = network()
    opt = SAM(sgd(model))
    run(model, opt, 4)
    weights, state = get_state_dict(model, opt)
    dcp.save({"model": weights, "opt": state}, checkpoint_id=tmp_path, no_dist=True)
    run(model, opt, 3, first=4)
    with pytest.raises(InputError, match=r"the state of 6 parameters, got that of 0; .*zero_grad"):
        resumed(lambda again: None)
    assert same(everything(model), everything(resumed(lambda again: again.zero_grad())))


def test_the_learning_rate_of_a_scheduler_is_the_one_of_all_bases():
    model = network()
    first, rest = list(model.parameters())[:2], list(model.parameters())[2:]
    bases = [torch.optim.SGD(first, lr=0.1), torch.optim.AdamW(rest, lr=0.2)]
    opt = SAM(bases)
    for group in opt.param_groups:
        group["lr"] /= 10
    assert [b.param_groups[0]["lr"] for b in bases] == [pytest.approx(0.01), pytest.approx(0.02)]


@every
@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_pass_that_is_not_finite_is_left_out_and_counted(method, bad, number):
    if method == "plain" and bad:
        pytest.skip("has one pass")
    model = network()
    opt = METHODS[method](sgd(model))
    run(model, opt, 3)
    before, state, calls = everything(model), opt.state_dict(), 0
    x, y = batch(9)

    def closure():
        nonlocal calls
        loss = F.cross_entropy(model(x), y)
        (loss * number if calls == bad else loss).backward()
        calls += 1
        return loss

    opt.step(closure)
    if calls <= bad:
        pytest.skip("took no second gradient in this step")
    weights = dict(model.named_parameters())
    assert opt.last.skipped and opt.skipped == 1 and all(torch.equal(before[n], weights[n]) for n in weights)
    assert all(
        torch.equal(v, opt.state_dict()["state"][i][k])
        for i, kept in state["state"].items() for k, v in kept.items() if torch.is_tensor(v)
    )  # fmt: skip
    opt.step(closure_of(model, 10))
    assert not opt.last.skipped and opt.skipped == 1


@every
@pytest.mark.parametrize("given", [False, True])
def test_statistics_of_a_batch_that_is_not_finite_do_not_stay(method, given):
    model = network()
    opt = METHODS[method](sgd(model), model=model if given else None)
    run(model, opt, 2)
    before = everything(model)
    x, y = batch(5)

    def closure():
        loss = F.cross_entropy(model(x * float("nan")), y)
        loss.backward()
        return loss

    opt.step(closure)
    assert opt.last.skipped and same(before, everything(model))


@second
def test_weights_come_back_when_the_second_pass_breaks_off(method):
    model = network()
    opt = METHODS[method](sgd(model))
    before, calls = everything(model), 0

    def closure():
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return closure_of(model, 0)()

    try:
        opt.step(closure)
    except KeyboardInterrupt:
        weights = dict(model.named_parameters())
        assert all(torch.equal(before[n], weights[n]) for n in weights)
    else:
        assert calls == 1


def test_a_parameter_without_gradient_in_the_second_pass_comes_back():
    w, v = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    opt, calls = SAM(torch.optim.SGD([w, v], lr=0.0), 0.5), 0

    def closure():
        nonlocal calls
        calls += 1
        loss = (w**2).sum() + ((v**2).sum() if calls == 1 else 0)
        loss.backward()
        return loss

    opt.step(closure)
    assert w.tolist() == [1, 1] and v.tolist() == [1, 1]


def test_a_parameter_that_is_never_used_stays():
    used, left = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    opt = SAM(torch.optim.SGD([used, left], lr=0.1))

    def closure():
        loss = (used**2).sum()
        loss.backward()
        return loss

    opt.step(closure)
    assert left.tolist() == [1, 1] and left.grad is None and used[0] < 1


@every
def test_a_zero_gradient_moves_nothing(method):
    w = nn.Parameter(torch.ones(3))
    opt = METHODS[method](torch.optim.SGD([w], lr=0.1))

    def closure():
        loss = (w * 0).sum()
        loss.backward()
        return loss

    for _ in range(3):
        opt.step(closure)
    assert w.tolist() == [1, 1, 1] and not opt.last.skipped


@pytest.mark.parametrize("answer", [None, 3.0, torch.ones(2)])
def test_a_closure_that_returns_no_loss(answer):
    model = network()
    with pytest.raises(InputError, match=r"SAM.step: expected a closure that calls backward\(\) and returns the loss"):
        SAM(sgd(model)).step(lambda: answer)


def test_no_closure():
    model = network()
    opt = SAM(sgd(model))
    closure_of(model, 0)()
    with pytest.raises(InputError, match=r"SAM\.step: expected a closure that computes the loss"):
        opt.step()
    with pytest.raises(InputError, match="at least one closure"):
        opt.step([])


def test_closures_that_zero_their_gradients_do_no_harm():
    a, b = network(), network()
    one, two = SAM(sgd(a)), SAM(sgd(b))
    for step in range(3):
        one.step(closure_of(a, step))
        two.step(closure_of(b, step, zero=True, opt=two))
    assert same(everything(a), everything(b))


def test_statistics_of_the_second_pass_stand_on_request():
    model, both = network(), network()
    SAM(sgd(model), 0.5).step(closure_of(model, 0))
    SAM(sgd(both), 0.5, buffers="both").step(closure_of(both, 0))
    assert int(both[1].num_batches_tracked) == 2 and int(model[1].num_batches_tracked) == 1
    assert not torch.equal(model[1].running_mean, both[1].running_mean)
    assert torch.equal(model[0].weight, both[0].weight)


class Counting(nn.Module):
    """A norm of somebody's own, which no list of classes knows."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(5))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        self.mean = self.mean.lerp(x.detach().mean(0), 0.1)  # another tensor, as some norms have it
        return x - x.mean(0)


@pytest.mark.parametrize("given", [False, True])
def test_buffers_of_any_module_are_kept_as_the_first_pass_left_them(given):
    model = nn.Sequential(nn.Linear(5, 5), Counting(), nn.Linear(5, 3))
    opt = SAM(sgd(model), 0.5, model=model if given else None)
    opt.step(closure_of(model, 0))
    opt.step(closure_of(model, 1))
    assert int(model[1].calls) == 2


def test_the_same_dropout_masks_on_request():
    def first_and_second(**options):
        model, seen = network(dropout=0.5), []
        model[3].register_forward_hook(lambda m, i, o: seen.append((o == 0).clone()))
        SAM(torch.optim.SGD(model.parameters(), lr=0.0), 1e-6, **options).step(closure_of(model, 0))
        return seen

    a, b = first_and_second(same_rng=True)
    assert torch.equal(a, b)
    a, b = first_and_second()
    assert not torch.equal(a, b)


def test_micro_batches_together_are_the_batch():
    def net():
        torch.manual_seed(0)
        return nn.Linear(5, 3).double()

    x, y = batch(0)
    x = x.double()

    def part(model, rows):
        def closure():
            loss = F.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            return loss

        return closure

    whole, parts, local, by_hand = net(), net(), net(), net()
    loss = SAM(sgd(whole)).step(part(whole, slice(0, 16)))
    opt = SAM(sgd(parts))
    mean = opt.step([part(parts, slice(k, k + 4)) for k in range(0, 16, 4)])
    torch.testing.assert_close(loss, mean)
    torch.testing.assert_close(whole.weight, parts.weight, rtol=0, atol=1e-14)
    assert opt.last.gradients == 2
    SAM(sgd(local), perturbation="local").step([part(local, slice(k, k + 4)) for k in range(0, 16, 4)])
    total = [torch.zeros_like(p) for p in by_hand.parameters()]
    for k in range(0, 16, 4):  # m-sharpness: a shift for each
        twin = net()
        SAM(torch.optim.SGD(twin.parameters(), lr=1.0)).step(part(twin, slice(k, k + 4)))
        for t, p, q in zip(total, by_hand.parameters(), twin.parameters(), strict=True):
            t += (p - q).detach() / 4
    base = sgd(by_hand)
    for p, t in zip(by_hand.parameters(), total, strict=True):
        p.grad = t
    base.step()
    torch.testing.assert_close(local.weight, by_hand.weight, rtol=0, atol=1e-14)
    assert not torch.allclose(local.weight, whole.weight, rtol=0, atol=1e-9)


def test_micro_batches_with_shifts_of_their_own_are_for_sam_only():
    model = network()
    opt = cases.METHODS["look"](sgd(model), perturbation="local")
    with pytest.raises(InputError, match="only SAM and ASAM shift the weights for each micro-batch"):
        opt.step([closure_of(model, 0), closure_of(model, 1)])


def scaled(model, scaler, step, factor=1.0):
    x, y = batch(step)

    def closure():
        loss = F.cross_entropy(model(x), y)
        scaler.scale(loss * factor).backward()
        return loss

    return closure


@every
def test_a_scaler_changes_nothing_but_the_range(method):
    plain, model = network(), network()
    run(plain, METHODS[method](sgd(plain)), 6)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    opt = METHODS[method](sgd(model), scaler=scaler)
    for step in range(6):
        opt.step(scaled(model, scaler, step))
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert scaler.get_scale() == 2.0**13  # updated once a step


@every
@pytest.mark.parametrize("bad", [0, 1])
def test_an_overflow_halves_the_scale_and_leaves_the_step_out(method, bad):
    model = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    opt, calls = METHODS[method](sgd(model), scaler=scaler), 0
    before = everything(model)

    def closure():
        nonlocal calls
        calls += 1
        return scaled(model, scaler, 0, float("inf") if calls == bad + 1 else 1.0)()

    opt.step(closure)
    if calls <= bad:
        return
    assert opt.last.skipped and scaler.get_scale() == 2.0**9
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())


def test_gradients_that_were_unscaled_already():
    model = network()
    scaler = torch.amp.GradScaler("cpu")
    opt = SAM(sgd(model), scaler=scaler)

    def closure():
        loss = scaled(model, scaler, 0)()
        scaler.unscale_(opt)
        return loss

    with pytest.raises(InputError, match="expected gradients still multiplied by the scaler"):
        opt.step(closure)


def test_sparse_gradients_are_refused():
    table = nn.Embedding(4, 2, sparse=True)
    opt = SAM(torch.optim.SGD(table.parameters(), lr=0.1))

    def closure():
        loss = table(torch.tensor([1])).sum()
        loss.backward()
        return loss

    with pytest.raises(InputError, match="expected dense gradients, got sparse ones"):
        opt.step(closure)
