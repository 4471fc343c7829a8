"""The loop: what it minimises, its rates, averages, clipping, precision, and which epoch it keeps."""

import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danskin.attacks import FGSM, PGD
from danskin.attacks.outcomes import outcomes
from danskin.data import load, to_float
from danskin.errors import CheckpointError, DivergenceError, InputError
from danskin.minmax import Linf
from danskin.models import build
from danskin.training import (
    CFOL,
    FOL,
    OBJECTIVES,
    SGD,
    AdamW,
    AdversarialTraining,
    Augment,
    ClassCVaR,
    DDi,
    Hooks,
    OneCycle,
    OverfittingWatch,
    StandardTraining,
    Trainer,
    WeightStability,
)

MONITOR = PGD(Linf(0.1), 3, stop=True)
ADVERSARIAL = AdversarialTraining(FGSM(Linf(0.1)))


def fit(trainer, model, data, objective=None, **more):
    """The state after training, its events, and copies of the state_dicts of all checkpoints."""
    events, saved = [], []

    def checkpoint(state):
        stream = io.BytesIO()
        torch.save(state.state_dict(), stream)
        saved.append(torch.load(io.BytesIO(stream.getvalue()), weights_only=True))

    hooks = Hooks(events.append, checkpoint, more.pop("checkpoint_every", 0), more.pop("stop", lambda: False))
    state = trainer.fit(trainer.start(model), objective or StandardTraining(), *data, hooks=hooks, **more)
    return state, events, saved


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "objective",
    [
        DDi(PGD(Linf(0.1), 1), 2),
        DDi(PGD(Linf(0.1), 1), 2, gram="layerwise"),
        CFOL(ADVERSARIAL, 10, eta=0.01),
        ClassCVaR(ADVERSARIAL, 10),
        FOL(ADVERSARIAL, 120),
        WeightStability(0.05),
    ],
    ids=lambda o: type(o).__name__,
)
def test_every_objective_trains(objective, precision, digits, make_model, make_trainer):
    state, events, _ = fit(make_trainer(epochs=6, precision=precision), make_model(), digits, objective)
    losses = [e["train_loss"] for e in events if e["event"] == "epoch"]
    assert losses[-1] < losses[0]
    assert type(objective) in OBJECTIVES.values()
    assert all(p.grad is not None for p in state.model.parameters())


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def of(events, kind):
    return [e for e in events if e["event"] == kind]


def test_train_loss_is_the_mean_over_the_examples_seen(digits, make_model, make_trainer):
    model = make_model()
    state, _, _ = fit(make_trainer(epochs=1, optimizer=SGD(1e-12)), model, digits)
    (x, y), _ = digits
    truth = F.cross_entropy(model(to_float(x)), y).item()
    assert state.history[0]["train_loss"] == pytest.approx(truth, rel=1e-6)


def test_one_step_is_the_optimisers_on_the_mean_gradient(digits, make_model, make_trainer):
    """With all examples in the batch, order and seed change nothing."""
    model, twin = make_model(), make_model()
    fit(make_trainer(epochs=1, batch_size=120, optimizer=SGD(0.5, momentum=0, weight_decay=0)), model, digits)
    (x, y), _ = digits
    F.cross_entropy(twin(to_float(x)), y).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), (q - 0.5 * q.grad).detach(), atol=1e-6, rtol=0)


def test_rates_follow_the_schedule_over_all_epochs(digits, make_model, make_trainer):
    trainer = make_trainer(optimizer=AdamW(0.2), schedule=OneCycle(0.5))  # 2 epochs of 3 steps
    _, events, _ = fit(trainer, make_model(), digits)
    rates = [0, 0.2 / 3, 0.4 / 3, 0.2, 0.4 / 3, 0.2 / 3]
    assert [e["lr"] for e in of(events, "step")] == pytest.approx(rates, abs=1e-12)
    assert [(e["step"], e["of"]) for e in of(events, "step")] == [(k, 6) for k in range(1, 7)]


def test_log_every(digits, make_model, make_trainer):
    _, events, _ = fit(make_trainer(log_every=4), make_model(), digits)
    assert [e["step"] for e in of(events, "step")] == [1, 5]


@pytest.mark.parametrize("decay", [0.9, 0.15])
def test_ema_closed_form(decay, digits, make_model, make_trainer):
    """a_1 = w_1; a_{t+1} = d a_t + (1 - d) w_{t+1} with d = min(decay, (1 + t) / (10 + t))."""
    state, _, saved = fit(make_trainer(ema=decay), make_model(), digits, checkpoint_every=1)
    assert [s["step"] for s in saved] == list(range(1, 7))
    average = saved[0]["model"]["4.weight"].double()
    for t, s in enumerate(saved[1:], 1):
        keep = min(decay, (1 + t) / (10 + t))
        average = keep * average + (1 - keep) * s["model"]["4.weight"].double()
        torch.testing.assert_close(s["ema"]["module.4.weight"].double(), average, atol=1e-7, rtol=0)
    assert state.weights is state.ema.module is not state.model


def test_ema_averages_running_statistics_and_copies_counters(digits, make_trainer):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    state, _, saved = fit(make_trainer(epochs=1, ema=0.9), model, digits, checkpoint_every=1)
    means = [s["model"]["1.running_mean"] for s in saved]
    truth = means[0]
    for t, mean in enumerate(means[1:], 1):
        keep = (1 + t) / (10 + t)
        truth = keep * truth + (1 - keep) * mean
    torch.testing.assert_close(state.weights[1].running_mean, truth, atol=1e-6, rtol=0)
    assert int(state.weights[1].num_batches_tracked) == 3


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_clip_bounds_the_step(limit, digits, make_model, make_trainer):
    def moved(clip):
        model = make_model()
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        sgd = SGD(1.0, momentum=0, weight_decay=0)
        fit(make_trainer(epochs=1, batch_size=120, optimizer=sgd, clip=clip), model, digits)
        return (torch.cat([p.detach().flatten() for p in model.parameters()]) - before).norm().item()

    free = moved(None)
    assert 1e-2 < free < 1e2
    assert moved(limit) == pytest.approx(min(free, limit), rel=1e-3)


def test_augmentation_is_decided_by_the_seed(digits, make_model, make_trainer):
    def run(augment, seed=0):
        model = make_model()
        fit(make_trainer(augment=augment), model, digits, seed=seed)
        return weights(model)

    both = Augment(crop=1, flip=True)
    assert same(run(both), run(both))
    assert not same(run(both), run(both, seed=1))
    different = [run(a) for a in (Augment(), both, Augment(crop=1), Augment(flip=True))]
    assert not any(same(a, b) for i, a in enumerate(different) for b in different[:i])


def test_training_reads_no_global_random_state(digits, make_model, make_trainer):
    """Without dropout all chance comes from the seed."""
    found = []
    for s in (1, 2):
        torch.manual_seed(s)
        state, _, _ = fit(make_trainer(augment=Augment(1, True)), make_model(), digits, ADVERSARIAL, monitor=MONITOR)
        found.append(weights(state.model))
    assert same(*found)


def test_bfloat16_keeps_weights_and_numbers_in_float32(digits, make_model, make_trainer):
    losses = {}
    for precision in ("float32", "bfloat16"):
        state, _, _ = fit(make_trainer(precision=precision), make_model(), digits, ADVERSARIAL, monitor=MONITOR)
        assert all(p.dtype == torch.float32 for p in state.model.parameters())
        losses[precision] = [row["train_loss"] for row in state.history]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"]


def test_channels_last_changes_layout_not_results(digits, make_trainer):
    data = load("digits")
    (x, y), held = digits
    colour = (x.expand(-1, 3, -1, -1), y), (held[0].expand(-1, 3, -1, -1), held[1])
    found = []
    for flag in (False, True):
        torch.manual_seed(3)
        model = build("small_cnn", input_shape=(3, 8, 8), classes=len(data.classes))
        state, _, _ = fit(make_trainer(channels_last=flag), model, colour, ADVERSARIAL, monitor=MONITOR)
        found.append(weights(state.model))
    layout = [w for w in found[1].values() if w.ndim == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in layout)
    for a, b in zip(found[0].values(), found[1].values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_vectors(make_trainer):
    data = load("two_moons")
    rest, *held = data.split(200, 0)
    model = build("mlp", input_shape=(2,), classes=2, hidden=(64,))
    trainer = make_trainer(epochs=20, batch_size=50, optimizer=AdamW(0.03), schedule=OneCycle())
    objective = AdversarialTraining(PGD(Linf(0.02), 3))
    state, _, _ = fit(trainer, model, ((rest.x_train, rest.y_train), held), objective, monitor=PGD(Linf(0.02), 5))
    assert state.history[-1]["robust"] > 0.9
    assert outcomes(state.weights, data.x_test, data.y_test).correct.float().mean() > 0.95


def test_best_is_the_epoch_of_largest_robust_accuracy(digits, make_model, make_trainer):
    trainer = make_trainer(epochs=6, optimizer=SGD(0.3))  # unsteady on purpose
    state, _, saved = fit(trainer, make_model(), digits, ADVERSARIAL, monitor=MONITOR)
    robust = [row["robust"] for row in state.history]
    first = robust.index(max(robust))
    assert 0 < first < 5, f"choose another rate: {robust}"
    assert (state.best["epoch"], state.best["value"]) == (first + 1, max(robust))
    assert same(state.best["weights"], saved[first]["model"])
    state.use_best()
    _, (x, y) = digits
    clean = outcomes(state.weights, x, y, prepare=to_float).correct
    again = outcomes(state.weights, x, y, MONITOR, prepare=to_float, among=clean).correct
    assert again.float().mean().item() == pytest.approx(max(robust), abs=1e-6)


def test_best_without_monitor_is_by_clean_accuracy(digits, make_model, make_trainer):
    state, _, _ = fit(make_trainer(epochs=4, optimizer=SGD(0.6)), make_model(), digits)
    assert state.best["value"] == max(row["clean"] for row in state.history)
    assert all(row["robust"] is None for row in state.history)


@pytest.mark.parametrize(
    ("objective", "select", "by"),
    [
        (StandardTraining(), "auto", "clean"),
        (StandardTraining(), "robust", "robust"),
        (ADVERSARIAL, "auto", "robust"),
        (ADVERSARIAL, "clean", "clean"),
    ],
)
def test_what_the_best_epoch_is_selected_by(objective, select, by, digits, make_model, make_trainer):
    trainer = make_trainer(epochs=5, optimizer=SGD(0.3), select=select)
    state, _, _ = fit(trainer, make_model(), digits, objective, monitor=PGD(Linf(0.2), 3))
    values = [row[by] for row in state.history]
    assert (state.best["value"], state.best["epoch"]) == (max(values), values.index(max(values)) + 1)
    assert all(row["robust"] < row["clean"] for row in state.history[-1:])


def test_selection_by_robust_accuracy_needs_a_monitor(digits, make_model, make_trainer):
    events = []
    trainer = make_trainer(select="robust")
    with pytest.raises(InputError, match=r"Trainer.select: expected a monitor to select by robust accuracy, got none"):
        trainer.fit(trainer.start(make_model()), ADVERSARIAL, *digits, hooks=Hooks(events.append))
    assert events == []  # told before any work


def test_best_of_equals_is_the_first(digits, make_model, make_trainer):
    state, _, _ = fit(make_trainer(epochs=3, optimizer=SGD(1e-12)), make_model(), digits)
    assert len({row["clean"] for row in state.history}) == 1
    assert state.best["epoch"] == 1


def test_best_of_averaged_weights_is_the_average(digits, make_model, make_trainer):
    state, _, saved = fit(make_trainer(epochs=1, ema=0.9), make_model(), digits)
    assert same(state.best["weights"], {k.removeprefix("module."): v for k, v in saved[0]["ema"].items() if "." in k})


def test_the_best_average_goes_into_the_average_and_the_model_goes_on(digits, make_model, make_trainer):
    state, _, _ = fit(make_trainer(epochs=3, ema=0.9), make_model(), digits)
    state.best["weights"] = {k: v + 1 if v.is_floating_point() else v for k, v in state.best["weights"].items()}
    own = {k: v.clone() for k, v in state.model.state_dict().items()}
    state.use_best()
    assert same(state.ema.module.state_dict(), state.best["weights"]) and same(state.model.state_dict(), own)


@pytest.mark.parametrize("objective", [StandardTraining(), ADVERSARIAL])
@pytest.mark.parametrize("batch", [40, 120])
@pytest.mark.parametrize("monitor", [None, MONITOR])
def test_divergence_names_the_step_and_nothing_ruined_is_kept(
    objective, batch, monitor, digits, make_model, make_trainer
):
    trainer, finite = make_trainer(batch_size=batch, optimizer=SGD(1e30)), []
    hooks = Hooks(lambda e: None, lambda s: finite.append(s.model(to_float(digits[1][0])).isfinite().all()), 1)
    with pytest.raises(DivergenceError, match=r"training: expected .* step \d.*; lower the learning rate"):
        trainer.fit(trainer.start(make_model()), objective, *digits, monitor=monitor, hooks=hooks)
    assert all(finite)


def test_divergence_at_a_rate_of_1e9(digits, make_model, make_trainer):
    with pytest.raises(DivergenceError, match=r"got (nan|inf|NaN or infinity) (in|after) step \d"):
        fit(make_trainer(epochs=10, optimizer=SGD(1e9)), make_model(), digits, ADVERSARIAL, monitor=MONITOR)


def test_checkpoint_before_a_divergence_goes_on(digits, make_model, make_trainer):
    """A batch with a NaN in the second epoch: the checkpoint of the first is finite."""
    (x, y), held = digits
    x, saved = to_float(x).flatten(1), []
    held = to_float(held[0]).flatten(1), held[1]
    trainer, model = make_trainer(), nn.Linear(64, 10)

    def poison(state):
        saved.append(weights(state.model))
        x[0, 0] = math.nan

    with pytest.raises(DivergenceError, match=r"got nan in step [456];"):
        trainer.fit(trainer.start(model), StandardTraining(), (x, y), held, hooks=Hooks(checkpoint=poison))
    assert len(saved) == 1 and all(w.isfinite().all() for w in saved[0].values())


@pytest.mark.parametrize("part", [0, 1])
def test_empty_data(part, digits, make_model, make_trainer):
    data = list(digits)
    data[part] = data[part][0][:0], data[part][1][:0]
    with pytest.raises(InputError, match=r"fit: expected training and validation examples, got an empty set"):
        fit(make_trainer(), make_model(), data)


def test_batch_larger_than_the_data_is_all_of_it(digits, make_model, make_trainer):
    state, events, _ = fit(make_trainer(batch_size=500), make_model(), digits)
    assert state.step == 2
    assert len(of(events, "step")) == 2


def test_last_incomplete_batch_is_left_out(digits, make_model, make_trainer):
    assert fit(make_trainer(batch_size=50), make_model(), digits)[0].step == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"Trainer.epochs: expected at least 1, got 0"),
        ({"batch_size": -3}, r"Trainer.batch_size: expected at least 1, got -3"),
        ({"ema": 1.0}, r"Trainer.ema: expected a decay between 0 and 1, got 1.0"),
        ({"clip": 0.0}, r"Trainer.clip: expected a norm above 0, got 0.0"),
        ({"clip": math.nan}, r"Trainer.clip: expected a norm above 0, got nan"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        Trainer(**settings)


def test_bad_augmentation_and_watch():
    with pytest.raises(InputError, match=r"Augment.crop: expected a padding of 0 or more pixels, got -1"):
        Augment(crop=-1)
    with pytest.raises(InputError, match=r"OverfittingWatch.examples: expected at least 1, got 0"):
        OverfittingWatch(examples=0)


class OneOfTwo:
    """The first of two processes, which hears nothing of the other."""

    rank, world = 0, 2

    def wrap(self, model):
        return model

    def sum(self, value):
        return value

    def average_buffers(self, model):
        pass


def test_batch_that_processes_cannot_share(digits, make_model, make_trainer):
    with pytest.raises(InputError, match=r"batch_size: expected a multiple of the 2 processes, got 41"):
        fit(make_trainer(batch_size=41), make_model(), digits, process=OneOfTwo())


@pytest.mark.parametrize(("after", "step"), [(1, 2), (3, 3), (4, 5), (6, 6)])
def test_stop_saves_and_interrupts(after, step, digits, make_model, make_trainer):
    """Also when asked for in the last step, or during the last validation."""
    asked, saved = [], []
    hooks = Hooks(
        event=lambda e: asked.append(e["step"]) if e["event"] == "step" else None,
        checkpoint=lambda s: saved.append(s.step),
        stop=lambda: len(asked) >= after,
    )
    trainer = make_trainer()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(trainer.start(make_model()), StandardTraining(), *digits, hooks=hooks)
    assert saved[-1] == step


def state_of(trainer, model):
    return trainer.start(model).state_dict()


def test_state_of_another_architecture(make_model, make_trainer):
    trainer = make_trainer()
    saved = state_of(trainer, build("mlp", input_shape=(1, 8, 8), classes=10))
    with pytest.raises(CheckpointError, match=r"checkpoint: expected one of the same architecture.*resume with the"):
        trainer.start(make_model()).load_state_dict(saved)


def test_state_of_another_optimiser(make_model, make_trainer):
    saved = state_of(make_trainer(), nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match="expected one of the same architecture and optimiser"):
        make_trainer().start(nn.Linear(2, 2, bias=False)).load_state_dict(saved)


def test_state_with_and_without_average(make_model, make_trainer):
    saved = state_of(make_trainer(ema=0.9), make_model())
    with pytest.raises(CheckpointError, match=r"^checkpoint: expected averaged weights in both.*as it was$"):
        make_trainer().start(make_model()).load_state_dict(saved)


@pytest.mark.parametrize("key", ["model", "optimizer", "history", "random"])
def test_state_that_misses_something(key, make_model, make_trainer):
    saved = state_of(make_trainer(), make_model())
    del saved[key]
    with pytest.raises(CheckpointError):
        make_trainer().start(make_model()).load_state_dict(saved)
