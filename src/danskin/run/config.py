"""The config of a training run: its data, its model, what is minimised, how, and how it is judged."""

from __future__ import annotations

import dataclasses
import typing
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from danskin.attacks import PGD, Attack
from danskin.attacks.guard import BatchNormMode
from danskin.data import DATASETS
from danskin.data.loading import spelled
from danskin.errors import ConfigError, DanskinWarning, InputError, suggest
from danskin.losses import LossName
from danskin.minmax import Linf, Set
from danskin.run.recipe import merged, override, read_recipe
from danskin.run.schema import build, plain
from danskin.training import (
    OBJECTIVES,
    AdversarialTraining,
    Objective,
    StandardTraining,
    Trainer,
    inner_attack,
)


@dataclass(frozen=True)
class DataConfig:
    """Which data, and how it is divided.

    Args:
        name: a name of `danskin list data`, "folder:/path" or "npz:/path/file.npz"; a path alone will do.
        folder: where the files are; default $DANSKIN_DATA or the user cache.
        download: fetch the set when it is not found.
        validation: examples held out of the training set to choose the best epoch; "test" chooses it on the test set,
            as most released code does, which flatters the figures.
        train: use the first so many training examples only.
        test: use the first so many test examples only.
        label_noise: share of the training labels that are replaced by another class, drawn from the run's seed.
        labels: "classes" 0..C-1, with a logit each; or "signs": two classes are -1 and +1, and a model has one output.
            Losses and attacks then take loss "logistic", "hinge" or "squared".
    """

    name: str = "digits"
    folder: str | None = None
    download: bool = False
    validation: int | Literal["test"] = 200
    train: int | None = None
    test: int | None = None
    label_noise: float = 0.0
    labels: Literal["classes", "signs"] = "classes"


@dataclass(frozen=True)
class ModelConfig:
    """Which model.

    Args:
        name: a name of `danskin list models`.
        options: its own options (`danskin show NAME`).
        weights: a .safetensors file to start from, for this model: for example `checkpoints/LABEL/last.safetensors`
            of another run; default: drawn from the seed. Read once, when training begins.
    """

    name: str = "small_cnn"
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """How finished models are judged on the test set.

    Args:
        attacks: default: FGSM, and PGD with 20 steps of radius/4 and two random starts, on the ball trained for.
        weights: "best" (on validation) or "last" epoch.
        batch_size: examples per call.
        curve: radii of the curve robust accuracy against radius, as multiples of the radius; () for none.
        curve_examples: test examples for the curve.
        pictures: examples in the picture grid; 0 for none.
        picture_balls: balls of the picture grid.
    """

    attacks: tuple[Attack, ...] = ()
    weights: Literal["best", "last"] = "best"
    batch_size: int = 250
    curve: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    curve_examples: int = 200
    pictures: int = 6
    picture_balls: tuple[Set, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("curve_examples", 1), ("pictures", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected at least {least}, got {getattr(self, name)}; correct it")


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run: data, model, what is minimised, how, and how it is judged.

    Args:
        name: of the recipe; names the run folder.
        data: see `DataConfig`.
        model: see `ModelConfig`.
        objectives: trained one after the other and compared: a list of "standard" and "adversarial", or a mapping from
            labels to objectives (`danskin list objectives`). An objective that names no attack has the one below; an
            attack or a term that names no ball has the ball of the one below.
        attack: of adversarial training; its ball is also the one evaluated.
        monitor: attack for the robust validation accuracy; default: PGD with 10 steps on the same ball.
        batchnorm: what BatchNorm and dropout do during the attack, for objectives in a list.
        loss: what the weights minimise, for objectives in a list.
        trainer: see `danskin.training.Trainer`.
        trainers: by label, what is other for one of `objectives` than in `trainer`: an optimiser, more epochs.
        evaluation: see `EvaluationConfig`.
        seed: of weights, order, augmentation and attacks.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        threads: CPU threads of torch; 0 leaves torch's choice.
        deterministic: ask torch for deterministic algorithms on every device.
        checkpoint_every: steps between checkpoints inside an epoch; 0 for only at its end.
    """

    kind: ClassVar[str] = "train"

    name: str = "train"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objectives: tuple[Literal["standard", "adversarial"], ...] | dict[str, Objective] = ("adversarial",)
    attack: Attack = field(default_factory=lambda: PGD(Linf(0.1), steps=10, keep="last"))
    monitor: Attack | None = None
    batchnorm: BatchNormMode = "eval"
    loss: LossName = "cross_entropy"
    trainer: Trainer = field(default_factory=Trainer)
    trainers: dict[str, Trainer] = field(default_factory=dict)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    deterministic: bool = False
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        if not self.objectives or len(set(self.objectives)) != len(self.objectives):
            raise ConfigError(
                f"objectives: expected 'standard', 'adversarial' or both, each once, got {list(self.objectives)}; "
                "write objectives: [standard, adversarial], or a mapping from labels to objectives"
            )
        for label in self.objectives:
            if not label or any(c in label for c in "/\\ ") or label.startswith("."):
                raise ConfigError(f"objectives: expected labels that can name a folder, got {label!r}; use words and _")
        for label in self.objectives:
            attack = inner_attack(self.objective(label))
            if attack is not None and repr(attack.ball) != repr(self.attack.ball):
                warnings.warn(
                    f"objectives.{label}: expected the ball that is evaluated, {self.attack.ball!r}, got "
                    f"{attack.ball!r}; if training on another ball is meant, ignore this",
                    DanskinWarning,
                    stacklevel=3,
                )
        for label in self.trainers:
            if label not in self.objectives:
                raise ConfigError(
                    f"trainers: expected labels of objectives, got {label!r}; {suggest(label, self.objectives)}"
                )
        for name in ("seed", "threads", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected a number >= 0, got {getattr(self, name)}; use 0, 1, 2, ...")

    def trainer_of(self, label: str) -> Trainer:
        """How `label` is trained."""
        return self.trainers.get(label, self.trainer)

    def objective(self, label: str) -> Objective:
        """The objective called `label`."""
        if isinstance(self.objectives, dict):
            return self.objectives[label]
        if label == "standard":
            return StandardTraining(self.loss)
        return AdversarialTraining(self.attack, self.loss, self.batchnorm)


def completed(node: dict[str, Any]) -> dict[str, Any]:
    """A recipe whose objectives all say their attack and ball, and whose trainers say everything.

    What they do not name is as in the recipe's own `attack` and `trainer`.
    """
    if isinstance(node.get("trainers"), Mapping):
        trainers = {label: merged(node.get("trainer", {}), over) for label, over in node["trainers"].items()}
        node = node | {"trainers": trainers}
    attack = node.get("attack", plain(TrainConfig().attack))
    attack = {"name": attack} if isinstance(attack, str) else attack
    objectives = node.get("objectives")
    if not isinstance(objectives, Mapping) or not isinstance(attack, Mapping):
        return node
    return node | {"objectives": {label: _complete(inner, attack) for label, inner in objectives.items()}}


def _complete(node: Any, attack: Mapping[str, Any]) -> Any:
    """One objective, and those inside it."""
    node = {"name": node} if isinstance(node, str) else node
    if not isinstance(node, Mapping) or node.get("name") not in OBJECTIVES:
        return node
    node, ball = dict(node), {"ball": attack["ball"]} if "ball" in attack else {}
    fields = {f.name for f in dataclasses.fields(OBJECTIVES[node["name"]])}  # type: ignore[arg-type]

    def with_ball(part: Any) -> Any:
        part = {"name": part} if isinstance(part, str) else part
        return ball | dict(part) if isinstance(part, Mapping) else part

    if "attack" in fields:
        node["attack"] = with_ball(node["attack"]) if "attack" in node else dict(attack)
    if "ball" in fields:
        node = ball | node
    if "objective" in node:
        node["objective"] = _complete(node["objective"], attack)
    if isinstance(node.get("terms"), list | tuple):
        node["terms"] = [with_ball(term) for term in node["terms"]]
    return node


def load_config(source: str | Path, assignments: typing.Iterable[str] = ()) -> TrainConfig:
    """The config of a recipe with overrides applied."""
    return config_of(override(read_recipe(source), assignments))


def config_of(node: dict[str, Any]) -> TrainConfig:
    """The config that plain data say.

    Raises:
        ConfigError: unknown keys, values that do not fit, or a data set that is not known.
    """
    config: TrainConfig = build(TrainConfig, completed(node))
    config = build(TrainConfig, plain(config))  # defaults, too, as they will be read back: 0 as 0.0
    if ":" not in spelled(config.data.name) and config.data.name not in DATASETS:
        raise ConfigError(
            f"data.name: expected a known data set, got {config.data.name!r}; {suggest(config.data.name, DATASETS)}"
        )
    return config
