"""What every attack must satisfy, as functions that third parties run on their own attacks."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from danskin.attacks import Attack, Attacked
from danskin.attacks.bounds import Ball
from danskin.errors import DanskinWarning
from danskin.minmax import Status
from danskin.minmax.measured import largest_radius
from danskin.testing.attack_case import AttackCase, Make
from danskin.testing.expect import expect, expect_close, expect_same
from danskin.testing.models import Counter, Doubling, FailsLater, Rooted, RowwiseLinear, convnet


def stays_in_ball_and_box(case: AttackCase) -> None:
    """Ball and box hold to 1e-6 (1e-5 in a set of one's own), and success agrees with a fresh forward pass."""
    small = case.with_radius(0.001 * largest_radius(case.ball))  # too small to break much
    for ball, box in ((case.ball, (0.0, 1.0)), (case.ball, None), (small, (0.0, 1.0))):
        case.attack_and_audit(case.images(), ball=ball, box=box)


def mistakes_count(case: AttackCase) -> None:
    """Examples that are misclassified without attack count as broken.

    An attack that returns its last point, or the one of largest value, may lose them: it says so by ``keep``, or leaves
    this check out.
    """
    if case.targeted or getattr(case.attack, "keep", "best") == "value":
        return
    small = case.with_radius(0.001 * largest_radius(case.ball))
    for ball, box in ((case.ball, (0.0, 1.0)), (case.ball, None), (small, (0.0, 1.0))):
        out = case.attack_and_audit(case.images(), ball=ball, box=box)
        expect(
            out.success[2::3],
            "success: expected examples already misclassified to count, got some that do not; an attack that returns "
            "its last point need not satisfy this: leave it out with skip=['mistakes_count']",
        )


def clean_input_at_radius_zero(case: AttackCase) -> None:
    """With no budget the input comes back, bit for bit."""
    x = case.images()
    out = case.attack_and_audit(x, ball=case.with_radius(0.0))
    expect_same(out.x, x, "x at radius 0")


def radius_per_example(case: AttackCase) -> None:
    """A tensor of equal radii is the number; of different ones, each example gets its own, whoever stands beside it."""
    # in float64 and without mixing rows: where outcomes differ, it is the attack's doing
    x, value, outputs = case.images(9).double(), largest_radius(case.ball), 1 if case.binary else 4
    hidden = [] if case.affine else [RowwiseLinear(48, 16, case.seed + 1, 0.3), nn.ReLU()]
    model = nn.Sequential(*hidden, RowwiseLinear(16 if hidden else 48, outputs, case.seed, 0.3)).double().eval()
    y = case.labels(model, x)

    def run(radius: float | Tensor, rows: Tensor) -> Attacked:
        attack = case.make(case.with_radius(radius), (0, 1))
        out = case.run(model, x[rows], y[rows], attack)
        case.audit(attack, out, model, x[rows], y[rows])
        return out

    def compare(got: Attacked, success: Tensor, loss: Tensor, what: str) -> None:
        expect_same(got.success, success, f"success, {what}")
        expect_close(got.loss, loss, 1e-9, f"loss, {what}")

    every = torch.arange(len(x))
    wanted = run(value, every)
    same = run(torch.full((len(x),), value, dtype=x.dtype), every)
    compare(same, wanted.success, wanted.loss, "a tensor of equal radii against the number")
    radii = torch.linspace(1.5 * value, 0, len(x), dtype=x.dtype)
    whole = run(radii, every)
    for i in every.split(1):
        what = f"example {int(i)} alone with its radius against the same in a batch"
        compare(run(float(radii[i]), i), whole.success[i], whole.loss[i], what)


def empty_batch(case: AttackCase) -> None:
    """No examples in, none out, and the status says so."""
    x = case.images(0)
    out = case.run(case.model(48), x, torch.zeros(0, dtype=torch.int64))
    expect(len(out.x) == len(out.success) == len(out.loss) == 0, "empty batch: expected empty results")
    expect(out.x.shape == x.shape and out.x.dtype == x.dtype, "empty batch: expected x as it was")
    expect(out.status is Status.EMPTY, f"status: expected {Status.EMPTY!r}, got {out.status!r}")


def tabular(case: AttackCase) -> None:
    """(N, 20) works as images do; so does one feature."""
    case.attack_and_audit(case.images(6, (20,)))
    case.attack_and_audit(case.images(6, (1,)))


def double_precision(case: AttackCase) -> None:
    """A float64 model is attacked in float64."""
    out = case.attack_and_audit(case.images().double())
    expect(out.loss.dtype == torch.float64, f"loss: expected float64, got {out.loss.dtype}")


def bfloat16_model(case: AttackCase) -> None:
    """A bf16 model and input give a bf16 result that is in ball and box."""
    case.attack_and_audit(case.images().bfloat16())


def inside_autocast(case: AttackCase) -> None:
    """Under autocast the search may be cheap, the verdict is not."""
    with torch.autocast("cpu", torch.bfloat16):
        case.attack_and_audit(case.images())


def two_and_three_classes(case: AttackCase) -> None:
    """Nothing needs four classes."""
    if not case.binary:
        for classes in (2, 3):
            case.attack_and_audit(case.images(), classes=classes)


def other_box(case: AttackCase) -> None:
    """Data in [-1, 1]."""
    case.attack_and_audit(case.images(box=(-1, 1)), box=(-1.0, 1.0))


def channels_last(case: AttackCase) -> None:
    """The memory format changes nothing but rounding, and is kept."""
    x = case.images()
    model = case.model(48) if case.affine else convnet(1 if case.binary else 4, case.seed)
    wanted = case.attack_and_audit(x, model)
    got = case.attack_and_audit(x.contiguous(memory_format=torch.channels_last), model)
    expect(got.x.is_contiguous(memory_format=torch.channels_last), "x: expected channels_last kept")
    expect_close(got.loss, wanted.loss, 1e-3, "loss in channels_last")


def gradients_switched_off(case: AttackCase) -> None:
    """Inside no_grad and inference_mode the result is what it is outside."""
    model = case.model(48)
    wanted = case.attack_and_audit(case.images(), model)
    modes: list[Callable[[], AbstractContextManager[Any]]] = [torch.no_grad, torch.inference_mode]
    for mode in modes:
        with mode():
            got = case.attack_and_audit(case.images(), model)
            expect_same(got.x, wanted.x, f"x under {mode.__name__}")
        expect(torch.is_grad_enabled(), "grad mode: expected as it was")


def _training_model(case: AttackCase) -> nn.Module:
    head = case.model(48) if case.affine else convnet(1 if case.binary else 4, case.seed)
    model = nn.Sequential(Counter(), nn.Dropout(0.0 if case.affine else 0.1), head)
    model.train()
    for i, module in enumerate(head.modules()):  # a mixture of modes: each must come back by itself
        if isinstance(module, nn.ReLU | nn.Flatten):
            module.training = i % 2 == 0
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    parameters[-1].grad = torch.ones_like(parameters[-1])
    return model


def _snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "training flags": [m.training for m in model.modules()],
        "track_running_stats": [getattr(m, "track_running_stats", None) for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad is None": [p.grad is None for p in model.parameters()],
        "tensors": copy.deepcopy(
            [*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None)]
        ),
        "random state": torch.get_rng_state(),
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    }


def _expect_as_found(model: nn.Module, before: dict[str, Any], when: str) -> None:
    after = _snapshot(model)
    for name, was in before.items():
        tensors = isinstance(was, Tensor) or name == "tensors"
        pairs = [(was, after[name])] if isinstance(was, Tensor) else list(zip(was, after[name], strict=True))
        same = all(torch.equal(a, b) if tensors else a == b for a, b in pairs)
        expect(same, f"{when}: expected the model's {name} as found, got them changed")


def model_left_as_found(case: AttackCase) -> None:
    """Flags, buffers, .grad, requires_grad and the random state; a model in training mode gives a warning."""
    model, x = _training_model(case), case.images()
    y = case.labels(copy.deepcopy(model).eval(), x)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True) as caught:
        torch.manual_seed(987654321)  # a state that nobody comes to by seeding with 0
        before = _snapshot(model)
        warnings.simplefilter("always")
        case.run(model, x, y)
        _expect_as_found(model, before, "after an attack")
    if getattr(case.attack, "batchnorm", "as_is") == "as_is":
        warned = any(issubclass(w.category, DanskinWarning) for w in caught)
        expect(warned, "training mode: expected a DanskinWarning, got none")


def failing_model_left_as_found(case: AttackCase) -> None:
    """The same when the model raises, at its first call or later; the error comes through."""
    for calls in (0, 1):
        model, x = FailsLater(_training_model(case), calls), case.images()
        y = case.labels(copy.deepcopy(model.model).eval(), x)
        before = _snapshot(model)
        raised = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                case.run(model, x, y)
            except RuntimeError as error:
                raised = str(error)
        expect(raised == "model failed", f"a failing model: expected its own error, got {raised!r}")
        _expect_as_found(model, before, "after the model failed")


def _expect_same_rows(case: AttackCase, x: Tensor, model: nn.Module, tolerance: float) -> None:
    y = case.labels(model, x)
    whole = case.run(model, x, y)
    # the last bit of a logistic depends on where a row stands in a vector register
    exact = tolerance == 0 and getattr(case.attack, "loss", "") != "logistic"
    order = torch.randperm(len(x), generator=case.generator())

    def compare(got: Attacked, rows: Tensor, what: str) -> None:
        expect_same(got.success, whole.success[rows], f"success, {what}")
        if exact:
            expect_same(got.x, whole.x[rows], f"x, {what}")
        expect_close(got.loss, whole.loss[rows], tolerance or 1e-12, f"loss, {what}")

    for size in (1, 7, 64):
        for part in torch.arange(len(x)).split(size)[:10]:
            compare(case.run(model, x[part], y[part]), part, f"batches of {size}")
    compare(case.run(model, x[order], y[order]), order, "shuffled")


def batch_and_order_do_not_matter(case: AttackCase) -> None:
    """The outcome for an example is its own: in batches of 1, 7 and 64, and in any order.

    Bit for bit for a float64 model whose forward pass does not mix rows.
    """
    x = case.images(64)
    _expect_same_rows(case, x.double(), RowwiseLinear(48, 1 if case.binary else 4, case.seed, 0.3).double(), 0.0)
    if not case.affine:
        _expect_same_rows(case, x.double(), case.model(48).double(), 1e-6)


def seed_decides(case: AttackCase) -> None:
    """The same seed gives the same bits, whatever the global random state."""
    model, x = case.model(48), case.images()
    y = case.labels(model, x)
    first = case.run(model, x, y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        again = case.run(model, x, y)
    expect_same(again.x, first.x, "x, run again")


def more_work_is_never_worse(case: AttackCase) -> None:
    """More steps or restarts never lower the best outcome of an example (success first, then loss)."""
    fields = {f.name for f in dataclasses.fields(case.attack)} if dataclasses.is_dataclass(case.attack) else set()
    keep, schedule = getattr(case.attack, "keep", "best"), getattr(case.attack, "schedule", "constant")
    if keep == "last" or getattr(case.attack, "precision", "model") != "model":
        return  # nothing is kept, or it is chosen by values of low precision
    model, x = case.model(48), case.images(24)
    y = case.labels(model, x)
    fixed: dict[str, Any] = {}
    if "step" in fields:  # a default step that shrinks with the number of steps makes another path
        fixed["step"] = 0.3 * largest_radius(case.ball)
    grow: list[tuple[str, tuple[int, ...], dict[str, Any]]] = []
    if "steps" in fields and schedule not in ("linear", "cosine"):
        grow.append(("steps", (1, 2, 5, 9), fixed))
    if {"restarts", "random_start"} <= fields:
        grow.append(("restarts", (1, 2, 4), fixed | {"random_start": True}))
    for name, counts, others in grow:
        settings: list[dict[str, Any]] = [others | {name: n} for n in counts]
        runs = [case.run(model, x, y, dataclasses.replace(case.attack, **each)) for each in settings]
        for n, less, more in zip(counts[1:], runs, runs[1:], strict=False):
            rounding = 1e-5 * (1 + less.loss.abs())
            higher = more.loss >= less.loss - rounding
            fine = (
                higher if keep == "value" else (more.success & ~less.success) | (more.success == less.success) & higher
            )
            expect(
                fine,
                f"{name}={n}: expected no example worse than with fewer, got {int((~fine).sum())}; an attack that does "
                "not keep its best point need not satisfy this: leave it out with skip=['more_work_is_never_worse']",
            )


def _same_outcome(case: AttackCase, odd: nn.Module, plain: nn.Module, x: Tensor, what: str) -> None:
    """The attack finds the same on both models; warnings about the odd one are expected."""
    y = case.labels(plain, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DanskinWarning)
        found = case.run(odd, x, y)
    known = case.run(plain, x, y)
    expect_same(found.x, known.x, f"x on a model {what}")
    expect_same(found.success, known.success, f"success on a model {what}")


def bad_partial_derivatives_count_as_zero(case: AttackCase) -> None:
    """NaN and infinite partial derivatives change nothing: the others lead the search as if these were 0."""
    if case.affine:
        return
    x, model = case.images(), case.model(48)
    _same_outcome(case, Rooted(model), Rooted(model, tame=True), x, "with infinite partial derivatives")


def points_are_those_tried(case: AttackCase) -> None:
    """A model that writes into its input is attacked as one that works on a copy."""
    if case.affine:
        return
    x, model = case.images(), case.model(48)
    _same_outcome(case, Doubling(model, honest=False), Doubling(model, honest=True), x, "that writes into its input")


#: The checks by name.
ATTACK_CHECKS: dict[str, Callable[[AttackCase], None]] = {
    f.__name__: f
    for f in (
        stays_in_ball_and_box,
        mistakes_count,
        clean_input_at_radius_zero,
        radius_per_example,
        empty_batch,
        tabular,
        double_precision,
        bfloat16_model,
        inside_autocast,
        two_and_three_classes,
        other_box,
        channels_last,
        gradients_switched_off,
        model_left_as_found,
        failing_model_left_as_found,
        batch_and_order_do_not_matter,
        seed_decides,
        more_work_is_never_worse,
        bad_partial_derivatives_count_as_zero,
        points_are_those_tried,
    )
}


def check_attack(
    attack: Attack | Make,
    *,
    ball: Ball | None = None,
    affine: bool = False,
    seed: int = 0,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
) -> None:
    """Run all of `ATTACK_CHECKS` on an attack.

    Args:
        attack: an attack whose class is a frozen dataclass with `ball` and `box` (as those of danskin are), or a
            function (ball, box) -> attack.
        ball: the ball to check it with; default: the attack's own. Its radius should break some examples of small
            random models on [0, 1] data and leave others, and must not be a tensor.
        affine: it handles affine models only.
        seed: of models, data and attack.
        skip: names of checks to leave out.
        only: names of checks to run; default: all.

    Raises:
        AssertionError: the attack breaks its contract; the message names the check.
    """
    for name, check in ATTACK_CHECKS.items():
        if name in skip or (only and name not in only):
            continue
        try:
            check(AttackCase(attack, ball, affine, seed))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
