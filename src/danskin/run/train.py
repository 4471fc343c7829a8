"""`danskin train`: from a config to a finished run folder, resumable at any moment."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import danskin
from danskin.attacks import PGD, Attack
from danskin.data import Dataset
from danskin.data import load as load_data
from danskin.errors import CheckpointError, ConfigError
from danskin.files import make_folder, write_atomically, write_json
from danskin.losses import labelled_loss
from danskin.minmax.measured import largest_radius
from danskin.models import build as build_model
from danskin.models import describe
from danskin.run import checkpoint
from danskin.run.config import DataConfig, TrainConfig
from danskin.run.evaluation import default_attacks, evaluate_model, picture_grid
from danskin.run.interrupts import stop_between_steps
from danskin.run.recipe import to_yaml
from danskin.run.record import Record, config_in, environment
from danskin.run.runtime import Runtime
from danskin.run.schema import plain
from danskin.training import Hooks, TrainingState

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Split:
    """The data of a run: what is trained on, held out, and tested on, on the device."""

    data: Dataset
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load_split(config: DataConfig, seed: int, device: torch.device) -> Split:
    """Load a data set; validation examples are the set's own, or held out of the training examples."""
    data = load_data(config.name, config.folder, download=config.download).limit(config.train, config.test)
    if data.test_only or config.validation == "test":
        rest, x_val, y_val = data, data.x_test, data.y_test
    elif data.x_val is not None and data.y_val is not None:
        rest, x_val, y_val = data, data.x_val, data.y_val
    else:
        rest, x_val, y_val = data.split(config.validation, seed)
    pairs = ((rest.x_train, rest.y_train), (x_val, y_val), (data.x_test, data.y_test))
    if config.labels == "signs" and len(data.classes) != 2:
        raise ConfigError(f"data.labels: expected two classes for signs, got {len(data.classes)}; leave it out")
    signs = config.labels == "signs"
    if not 0 <= config.label_noise < 1:
        raise ConfigError(f"data.label_noise: expected a share in [0, 1), got {config.label_noise}; 0 is none")
    if config.label_noise:
        y = with_noise(rest.y_train, config.label_noise, len(data.classes), seed)
        pairs = ((rest.x_train, y), *pairs[1:])
    train, validation, test = ((x.to(device), (2 * y - 1 if signs else y).to(device)) for x, y in pairs)
    return Split(data, train, validation, test)


def with_noise(y: Tensor, share: float, classes: int, seed: int) -> Tensor:
    """Labels of which a share, drawn from a seed, is another class, each other one equally often."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(y), generator=generator) < share
    other = (y.cpu() + torch.randint(1, classes, (len(y),), generator=generator)) % classes
    return torch.where(wrong, other.to(y.dtype), y.cpu()).to(y.device)


def new_model(config: TrainConfig, data: Dataset, device: torch.device) -> nn.Module:
    """The config's model with weights drawn from its seed; the global random state is left alone."""
    outputs = 1 if config.data.labels == "signs" else len(data.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config.model.name, input_shape=data.image_shape, classes=outputs, **config.model.options)
    return model.to(device)


def monitor_of(config: TrainConfig) -> Attack:
    """The attack that watches validation accuracy."""
    attack = config.attack
    return config.monitor or PGD(
        attack.ball, 10, "radius/4", stop=True, box=attack.box, loss=labelled_loss(attack.loss)
    )


def train(
    config: TrainConfig, record: Record, runtime: Runtime, listen: Listener = lambda event: None
) -> dict[str, Any]:
    """Train every objective, evaluate, and write result.json, examples.npz and the weights.

    Returns:
        What result.json holds. A run that is finished is left alone.
    """
    done = runtime.share(record.result() if runtime.main else None)
    if done is not None:
        return done
    with record.running(runtime.main):
        split = load_split(config.data, config.seed, runtime.device)
        split.data.check_trainable()
        models: dict[str, nn.Module] = {}
        rows: dict[str, dict[str, Any]] = {}
        for label in config.objectives:
            models[label], rows[label] = _train_one(config, label, split, record, runtime, listen)
        result = _evaluate(config, split, models, rows, record, runtime, listen)
    return result


def _train_one(
    config: TrainConfig, label: str, split: Split, record: Record, runtime: Runtime, listen: Listener
) -> tuple[nn.Module, dict[str, Any]]:
    folder = record.checkpoints(label)
    make_folder(folder)
    model, last = new_model(config, split.data, runtime.device), folder / "last.pt"
    if config.model.weights is not None and not last.exists():
        checkpoint.load_weights(Path(config.model.weights).expanduser(), model)
    trainer = config.trainer_of(label)
    state = trainer.start(model)
    torch.manual_seed(config.seed + runtime.rank)  # dropout; a checkpoint brings its own state
    if last.exists():
        saved = checkpoint.load(last)
        _check_same(saved, config, last)
        state.load_state_dict(saved["state"])

    def on_event(event: dict[str, Any]) -> None:
        event = {"model": label, **event}
        if runtime.main:
            record.event(event)
            listen(event)

    def on_checkpoint(now: TrainingState) -> None:
        if runtime.main:
            checkpoint.save(last, {"state": now.state_dict(), "config": to_yaml(config)})

    with stop_between_steps() as stop:
        trainer.fit(
            state,
            config.objective(label),
            split.train,
            split.validation,
            monitor=monitor_of(config),
            seed=config.seed,
            hooks=Hooks(on_event, on_checkpoint, config.checkpoint_every, stop),
            process=runtime,
        )
    if runtime.main:
        _share_weights(config, label, state, folder)
    row = {
        "overfitted": state.overfitted,
        "epochs": state.epoch,
        "best_epoch": state.best.get("epoch"),
        "train_seconds": sum(row["seconds"] for row in state.history),
        "parameters": describe(model).parameters,
        "weights": config.evaluation.weights,
        "history": state.history,
    }
    if config.evaluation.weights == "best":
        state.use_best()
    return state.weights, row


def _check_same(saved: dict[str, Any], config: TrainConfig, path: Path) -> None:
    if not isinstance(saved.get("state"), dict) or "config" not in saved:
        raise CheckpointError(
            f"{path}: expected a checkpoint of danskin train, got a file with {', '.join(map(str, saved))[:80]!r}; "
            "delete it and start again"
        )
    if config_in(saved["config"], TrainConfig, str(path)) != config:
        raise CheckpointError(
            f"{path}: expected a checkpoint of this very config, got one of another; resume without changing settings, "
            "or start a new run"
        )


def _share_weights(config: TrainConfig, label: str, state: TrainingState, folder: Path) -> None:
    card = {"danskin": danskin.__version__, "model": label, "config": to_yaml(config)}
    last = state.weights.state_dict()
    checkpoint.save_weights(folder / "last.safetensors", last, card | {"epoch": str(state.epoch)})
    if state.best:
        weights = state.best["weights"]
        checkpoint.save_weights(folder / "best.safetensors", weights, card | {"epoch": str(state.best["epoch"])})


def _evaluate(
    config: TrainConfig,
    split: Split,
    models: dict[str, nn.Module],
    rows: dict[str, dict[str, Any]],
    record: Record,
    runtime: Runtime,
    listen: Listener,
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if runtime.main:
        result = evaluate_all(config, split, models, listen)
        for label, row in rows.items():
            result["models"][label] |= row
        write_json(record.folder / "result.json", result)
        pictures = picture_grid(models, *split.test, config.attack, config.evaluation, config.seed)
        if pictures:
            write_atomically(record.folder / "examples.npz", lambda stream: stream.write(npz_bytes(pictures)))
    runtime.barrier()
    return result


def evaluate_all(
    config: TrainConfig, split: Split, models: dict[str, nn.Module], listen: Listener = lambda event: None
) -> dict[str, Any]:
    """result.json without the training rows: every model, judged on the test set."""
    attacks = config.evaluation.attacks or default_attacks(config.attack)
    judged = {}
    for label, model in models.items():

        def progress(text: str, label: str = label) -> None:
            listen({"event": "evaluate", "model": label, "what": text})

        judged[label] = evaluate_model(model, *split.test, attacks, config.evaluation, config.seed, progress)
    data = split.data
    return {
        "danskin": danskin.__version__,
        "name": config.name,
        "seed": config.seed,
        "data": {
            "name": data.name,
            "test": len(data.y_test),
            "train": len(split.train[1]),
            "validation": len(split.validation[1]),
            "sha256_test": data.sha256_test,
            "classes": list(data.classes),
        },
        "model": plain(config.model),
        "attack": repr(config.attack),
        "radius": largest_radius(config.attack.ball) if hasattr(config.attack.ball, "value") else None,
        "models": judged,
        "environment": {k: environment()[k] for k in ("python", "processor", "cuda", "threads", "packages")},
    }


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """The arrays as a compressed .npz file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def load_models(record: Record, config: TrainConfig, data: Dataset, device: torch.device) -> dict[str, nn.Module]:
    """The trained models of a run, in eval mode, with the weights its config says (best or last)."""
    models: dict[str, nn.Module] = {}
    for label in config.objectives:
        model = new_model(config, data, device)
        checkpoint.load_weights(record.checkpoints(label) / f"{config.evaluation.weights}.safetensors", model)
        models[label] = model.eval()
    return models
