"""What each of two processes does for test_distributed.py; rank r writes r.pt into the folder argv[1]."""

import copy
import sys
from pathlib import Path

import torch
from torch import nn

from danskin.attacks import PGD
from danskin.attacks.outcomes import outcomes
from danskin.data import load, to_float
from danskin.minmax import Linf
from danskin.models import build
from danskin.run.runtime import Runtime
from danskin.training import (
    SGD,
    AdversarialTraining,
    Augment,
    Constant,
    FreeTraining,
    Hooks,
    OverfittingWatch,
    Trainer,
)

ATTACK = PGD(Linf(0.1), 3, restarts=2)
OBJECTIVE = AdversarialTraining(PGD(Linf(0.1), 3, keep="last"))


def data(n=60):
    digits = load("digits")
    return digits.x_train[:n], digits.y_train[:n]


def network():
    torch.manual_seed(0)
    return build("small_cnn", input_shape=(1, 8, 8), classes=10, width=4)


def fitted():
    """A network that knows its examples, by steps that each process takes alone."""
    model, (x, y) = network(), data()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(to_float(x)), y).backward()
        optimizer.step()
    return model.eval()


def with_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))


def trainer():
    watch = OverfittingWatch(0, 10, 2)
    return Trainer(2, 20, SGD(0.1), Constant(), ema=0.9, augment=Augment(1, True), watch=watch)


def gradient(model, x, y):
    """Of the adversarial loss at the mean over this part; and how often the wrapped and the raw module ran."""
    raw = getattr(model, "module", model)
    calls = {"wrapped": 0, "raw": 0}
    model.register_forward_hook(lambda *_: calls.update(wrapped=calls["wrapped"] + 1))
    if raw is not model:
        raw.register_forward_hook(lambda *_: calls.update(raw=calls["raw"] + 1))
    OBJECTIVE(model, to_float(x), y, seed=4).backward()
    return [p.grad for p in raw.parameters()], calls


def freely(runtime, cut):
    """Weights after Free training; with `cut`, stopped after three batches and continued from the main checkpoint."""
    free, (x, y), saved = FreeTraining(Linf(0.1), 2), data(), []
    part, held = (x[:40], y[:40]), (x[40:], y[40:])
    hooks = Hooks(checkpoint=lambda state: saved.append(copy.deepcopy(state.state_dict())), checkpoint_every=6)
    state = trainer().start(network())
    trainer().fit(state, free, part, held, hooks=hooks, process=runtime)
    if cut:
        state = trainer().start(network())
        state.load_state_dict(runtime.share(saved[1]))  # the second epoch's first batch is over: delta is not 0
        trainer().fit(state, free, part, held, process=runtime)
    return {"model": state.model.state_dict(), "steps": [s["step"] for s in saved], "kept": saved[1]["memory"]}


def work(runtime):
    part, (x, y) = slice(runtime.rank, None, runtime.world), data()
    found = {"who": (runtime.rank, runtime.world, runtime.main, str(runtime.device))}
    found["gradient"], found["calls"] = gradient(runtime.wrap(network()), x[part], y[part])
    model = fitted()
    found["correct"] = outcomes(model, x[part], y[part], ATTACK, batch_size=7, prepare=to_float).correct
    with torch.no_grad():
        found["points"] = ATTACK(model, to_float(x[part]), y[part], seed=3).x
    for name, make in (("plain", network), ("norm", with_norm)):
        state = trainer().start(make())
        trainer().fit(state, OBJECTIVE, (x[:40], y[:40]), (x[40:], y[40:]), monitor=ATTACK, process=runtime)
        found[name] = {"model": state.model.state_dict(), "ema": state.weights.state_dict(), "best": state.best}
        found[name]["history"] = [
            {k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in state.history
        ]
    found["free"], found["free, cut"] = freely(runtime, False), freely(runtime, True)
    found["sum"] = runtime.sum(torch.tensor(runtime.rank + 1.0))
    found["shared"] = runtime.share({"from": runtime.rank})
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    runtime = Runtime.start("cpu")
    torch.save(work(runtime), Path(sys.argv[1]) / f"{runtime.rank}.pt")
    runtime.close()
