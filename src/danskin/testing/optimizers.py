"""What every optimiser that asks a closure for several gradients owes its user, as functions for anyone's optimiser."""

from __future__ import annotations

import copy
import inspect
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from danskin.testing.expect import expect, expect_close, expect_same

Make = Callable[[nn.Module], Optimizer]
_STEPS = 6


class OptimizerCase:
    """A small network with BatchNorm, batches of it, and the optimiser of it.

    Args:
        make: model -> optimiser of model.parameters(), whose ``step(closure)`` runs the closure as often as it wants.
        seed: of weights and data.
    """

    def __init__(self, make: Make, seed: int = 0) -> None:
        self.make, self.seed = make, seed

    def network(self, other: int = 0) -> nn.Module:
        """The same one every time; `other` for other weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + other)
            net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        return net.double()

    def batch(self, k: int) -> tuple[Tensor, Tensor]:
        """(x, y) of step k."""
        generator = torch.Generator().manual_seed(1000 * self.seed + k)
        x = torch.randn(16, 5, generator=generator, dtype=torch.float64)
        return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()

    def closure(self, model: nn.Module, k: int, *, bad: int | None = None, calls: list[int] | None = None) -> Any:
        """Loss and gradients of batch k; NaN in the call of number `bad`."""
        x, y = self.batch(k)
        counted: list[int] = [] if calls is None else calls

        def closure() -> Tensor:
            factor = math.nan if len(counted) == bad else 1.0
            counted.append(k)
            loss = F.cross_entropy(model(x), y)
            (loss * factor).backward()
            return loss

        return closure

    def run(self, model: nn.Module, opt: Optimizer, steps: Sequence[int] | range) -> None:
        """Some steps."""
        for k in steps:
            opt.step(self.closure(model, k))

    def started(self, lr: float | None = None) -> tuple[nn.Module, Optimizer]:
        """A network and its optimiser, with another learning rate if one is given."""
        model = self.network()
        opt = self.make(model)
        for group in opt.param_groups if lr is not None else ():
            group["lr"] = lr
        return model, opt


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _expect_weights(model: nn.Module, wanted: dict[str, Tensor], what: str) -> None:
    for name, p in model.named_parameters():
        expect_same(p.detach(), wanted[name], f"{name} {what}")


def without_learning_rate_weights_stay(case: OptimizerCase) -> None:
    """With lr = 0 in the groups the weights are bit for bit what they were: no shift is left in them."""
    model, opt = case.started(lr=0.0)
    before = weights_of(model)
    case.run(model, opt, range(_STEPS))
    _expect_weights(model, before, f"after {_STEPS} steps with lr = 0")


def buffers_see_one_pass_a_step(case: OptimizerCase) -> None:
    """Running statistics and counters are those of one pass a step, at the weights themselves."""
    model, opt = case.started(lr=0.0)
    twin = case.network()
    for k in range(_STEPS):
        opt.step(case.closure(model, k))
        twin(case.batch(k)[0])
    for name, buffer in model.named_buffers():
        expect_same(buffer, dict(twin.named_buffers())[name], f"{name} against one pass a step")


def resumed_is_uninterrupted(case: OptimizerCase) -> None:
    """A run resumed through torch.save and weights_only=True is the one that went on, bit for bit."""
    model, opt = case.started()
    case.run(model, opt, range(_STEPS))
    file = io.BytesIO()
    torch.save([model.state_dict(), opt.state_dict()], file)
    case.run(model, opt, range(_STEPS, 2 * _STEPS))
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    later = case.network(other=1)
    later.load_state_dict(kept[0])
    again = case.make(later)
    again.load_state_dict(kept[1])
    case.run(later, again, range(_STEPS, 2 * _STEPS))
    for name, value in later.state_dict().items():
        expect_same(value, model.state_dict()[name], f"{name} of the resumed run against the one that went on")


def groups_are_those_it_steps_with(case: OptimizerCase) -> None:
    """A learning rate written into the groups counts, as schedulers do it; also after a state was loaded."""
    model, opt = case.started()
    case.run(model, opt, range(2))
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    before = weights_of(model)
    for group in opt.param_groups:
        group["lr"] = 0.0
    case.run(model, opt, range(2, 4))
    _expect_weights(model, before, "after lr = 0 was written into the groups of a loaded optimiser")


def closure_is_all_it_needs(case: OptimizerCase) -> None:
    """step(closure) alone makes a step: from no gradients, or from anyone's; and returns the loss of before it."""
    model, opt = case.started()
    twin, other = case.started()
    x, y = case.batch(0)
    wanted = F.cross_entropy(case.network()(x), y)
    loss = opt.step(case.closure(model, 0))
    expect(loss is not None, "step(closure): expected it to return the loss, got None")
    expect_close(torch.as_tensor(loss), wanted.detach(), 1e-12, "the loss that step returned")
    for p in twin.parameters():
        p.grad = torch.full_like(p, 1e3)
    other.step(case.closure(twin, 0))
    _expect_weights(twin, weights_of(model), "where gradients were left over from before, against none")


def a_pass_that_is_not_finite_is_left_out(case: OptimizerCase) -> None:
    """NaN in any pass: weights and state are those of before, and the next steps are as if nothing had been."""
    for bad in (0, 1):
        for k in (3, 4, 5):
            model, opt = case.started()
            case.run(model, opt, range(k))
            calls: list[int] = []
            before, kept = weights_of(model), copy.deepcopy(opt.state_dict()["state"])
            opt.step(case.closure(model, k, bad=bad, calls=calls))
            if len(calls) <= bad:
                continue  # fewer passes in this step
            what = f"after NaN in pass {bad + 1} of step {k + 1}"
            _expect_weights(model, before, what)
            for i, held in opt.state_dict()["state"].items():
                for name, value in held.items():
                    if isinstance(value, Tensor):
                        expect_same(value, kept[i][name], f"state {name} of parameter {i} {what}")
            case.run(model, opt, range(k + 1, k + 3))
            finite = all(bool(p.isfinite().all()) for p in model.parameters())
            moved = any(not torch.equal(p.detach(), before[n]) for n, p in model.named_parameters())
            expect(finite and moved, f"two steps {what}: expected weights that move and are finite")


def a_pass_that_breaks_off_leaves_the_weights(case: OptimizerCase) -> None:
    """An exception in any pass comes out, and the weights are those of before."""
    for bad in (0, 1):
        model, opt = case.started()
        case.run(model, opt, range(3))
        before, calls = weights_of(model), 0

        def closure(model: nn.Module = model, bad: int = bad) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == bad + 1:
                raise KeyboardInterrupt
            loss: Tensor = case.closure(model, 3)()
            return loss

        try:
            opt.step(closure)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            _expect_weights(model, before, f"after an exception in pass {bad + 1}")


def a_missing_gradient_leaves_no_shift(case: OptimizerCase) -> None:
    """A parameter without a gradient in one of the passes, or in all, stays where it is under lr = 0."""
    for missing in (0, 1, None):
        model = case.network()
        model.register_parameter("late", nn.Parameter(torch.ones(3, dtype=torch.float64)))
        opt = case.make(model)
        for group in opt.param_groups:
            group["lr"] = 0.0
        late = weights_of(model)["late"]
        for k in range(3):
            calls = 0

            def closure(model: nn.Module = model, missing: int | None = missing, k: int = k) -> Tensor:
                nonlocal calls
                x, y = case.batch(k)
                loss = F.cross_entropy(model(x), y)
                if missing is not None and calls != missing:
                    loss = loss + model.get_parameter("late").square().sum()
                calls += 1
                loss.backward()
                return loss

            opt.step(closure)  # type: ignore[arg-type]
        passes = "all passes" if missing is None else f"pass {missing + 1}"
        expect_same(model.get_parameter("late").detach(), late, f"a parameter without gradient in {passes}, lr = 0")


def no_gradient_no_harm(case: OptimizerCase) -> None:
    """Where the gradient is 0 weights stay finite: no 0 / 0."""
    model, opt = case.started()

    def closure() -> Tensor:
        loss = sum((p.sum() * 0 for p in model.parameters()), torch.zeros((), dtype=torch.float64))
        loss.backward()
        return loss

    for _ in range(3):
        opt.step(closure)  # type: ignore[arg-type]
    for name, p in model.named_parameters():
        expect(p.isfinite(), f"{name} after steps with a gradient of 0: expected finite numbers")


#: The checks by name.
OPTIMIZER_CHECKS: dict[str, Callable[[OptimizerCase], None]] = {
    f.__name__: f
    for f in (
        without_learning_rate_weights_stay,
        buffers_see_one_pass_a_step,
        resumed_is_uninterrupted,
        groups_are_those_it_steps_with,
        closure_is_all_it_needs,
        a_pass_that_is_not_finite_is_left_out,
        a_pass_that_breaks_off_leaves_the_weights,
        a_missing_gradient_leaves_no_shift,
        no_gradient_no_harm,
    )
}


def check_optimizer(make: Make, *, seed: int = 0, skip: Sequence[str] = (), only: Sequence[str] = ()) -> None:
    """Run all of `OPTIMIZER_CHECKS` on an optimiser.

    Args:
        make: model -> optimiser of model.parameters(), called anew for each check. Its ``step(closure)`` runs the
            closure; it steps with `lr` of its groups.
        seed: of models and data.
        skip: names of checks to leave out.
        only: names of checks to run; default: all.

    Raises:
        AssertionError: the optimiser breaks its contract; the message names the check.

    >>> from danskin import SAM
    >>> check_optimizer(lambda model: SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05))
    """
    for name, check in OPTIMIZER_CHECKS.items():
        if name in skip or (only and name not in only):
            continue
        try:
            check(OptimizerCase(make, seed))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def check_optimizer_in_processes(
    make: Callable[[nn.Module, nn.Module], Optimizer], *, seed: int = 0, tolerance: float = 1e-10
) -> None:
    """Replicas that share each batch walk the path of one process that takes it whole, and stay equal bit for bit.

    Call it in every process of an initialised group whose size divides 16 (gloo will do), under torchrun.

    Args:
        make: (raw model, the same in DistributedDataParallel) -> optimiser of the raw model's parameters. With one
            gradient of all processes for the ascent, not one for each.
        seed: of model and data.
        tolerance: of the weights after six steps, in float64.

    Raises:
        AssertionError: see above.
    """
    case = OptimizerCase(lambda model: make(model, model), seed)
    rank, world = dist.get_rank(), dist.get_world_size()

    def network() -> nn.Module:  # BatchNorm would see another batch
        return nn.Sequential(*(layer for layer in case.network().children() if not isinstance(layer, nn.BatchNorm1d)))

    alone, raw = network(), network()
    names = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    model = nn.parallel.DistributedDataParallel(raw, **{name: False})  # type: ignore[arg-type]
    for net, inner, part in ((alone, alone, slice(None)), (model, raw, slice(rank, None, world))):
        opt = make(inner, net)
        for k in range(_STEPS):
            x, y = case.batch(k)

            def closure(net: nn.Module = net, x: Tensor = x[part], y: Tensor = y[part]) -> Tensor:
                loss = F.cross_entropy(net(x), y)
                loss.backward()
                return loss

            opt.step(closure)  # type: ignore[arg-type]
    for (n, p), q in zip(raw.named_parameters(), alone.parameters(), strict=True):
        expect_close(p, q, tolerance, f"{n} of {world} processes against one")
        every = [torch.empty_like(p.detach()) for _ in range(world)]
        dist.all_gather(every, p.detach().clone())
        for r, other in enumerate(every):
            expect_same(p.detach(), other, f"{n} in process {rank} against process {r}")
