"""Recipes: YAML to frozen dataclasses and back.

The classes are the library's own; there is no parallel tree. A mapping with a key ``name`` picks among the
choices for its place (an attack, a ball, an optimiser); leaf values are read by pydantic, so that
``step: "2/255"``, ``epochs: 10`` and ``milestones: [0.5, 0.75]`` become what the class declares. Unknown
keys are refused with the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from danskin.attacks import ATTACKS, PGD, Attack
from danskin.attacks.guard import BatchNormMode
from danskin.data import DATASETS
from danskin.errors import ConfigError, DanskinError, DanskinWarning, InputError, MissingError
from danskin.losses import LossName
from danskin.minmax import L1, L2, Linf
from danskin.regularizers import REGULARIZERS
from danskin.training import (
    OBJECTIVES,
    OPTIMIZERS,
    SCHEDULES,
    AdversarialTraining,
    Objective,
    StandardTraining,
    Trainer,
    inner_attack,
)

_SHIPPED = Path(__file__).parent.parent / "recipes"
#: Recipes that danskin ships: name -> YAML file; those under `published` follow released code, quirks and all.
RECIPES = {path.stem: path for path in sorted([*_SHIPPED.glob("*.yaml"), *_SHIPPED.glob("published/*.yaml")])}
BALLS: dict[str, type] = {"linf": Linf, "l2": L2, "l1": L1}


@dataclass(frozen=True)
class DataConfig:
    """Which data, and how it is divided.

    Args:
        name: a name of `danskin list data`, "folder:/path" or "npz:/path/file.npz".
        folder: where the files are; default $DANSKIN_DATA or the user cache.
        download: fetch the set when it is not found.
        validation: examples held out of the training set to choose the best epoch; "test" chooses it on the test set,
            as most released code does, which flatters the figures.
        train: use the first so many training examples only.
        test: use the first so many test examples only.
    """

    name: str = "digits"
    folder: str | None = None
    download: bool = False
    validation: int | Literal["test"] = 200
    train: int | None = None
    test: int | None = None


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
    picture_balls: tuple[Linf | L2 | L1, ...] = ()

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
        evaluation: see `EvaluationConfig`.
        seed: of weights, order, augmentation and attacks.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        threads: CPU threads of torch; 0 leaves torch's choice.
        deterministic: ask torch for deterministic algorithms on every device.
        checkpoint_every: steps between checkpoints inside an epoch; 0 for only at its end.
    """

    name: str = "train"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objectives: tuple[Literal["standard", "adversarial"], ...] | dict[str, Objective] = ("adversarial",)
    attack: Attack = field(default_factory=lambda: PGD(Linf(0.1), steps=10, keep="last"))
    monitor: Attack | None = None
    batchnorm: BatchNormMode = "eval"
    loss: LossName = "cross_entropy"
    trainer: Trainer = field(default_factory=Trainer)
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
        for name in ("seed", "threads", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected a number >= 0, got {getattr(self, name)}; use 0, 1, 2, ...")

    def objective(self, label: str) -> Objective:
        """The objective called `label`."""
        if isinstance(self.objectives, dict):
            return self.objectives[label]
        if label == "standard":
            return StandardTraining(self.loss)
        return AdversarialTraining(self.attack, self.loss, self.batchnorm)


#: Settings that all attacks have.
_COMMON = {f.name for f in dataclasses.fields(Attack)}
#: Names of the choices at each place, by the abstract type or any member of the union.
_CHOICES: tuple[dict[str, Any], ...] = (ATTACKS, BALLS, OBJECTIVES, OPTIMIZERS, REGULARIZERS, SCHEDULES)


def suggest(word: str, known: typing.Iterable[str]) -> str:
    """'did you mean X?', or the list of what is known."""
    options = sorted(known)
    near = difflib.get_close_matches(word, options, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(options)}"


def name_of(value: Any) -> str | None:
    """The name a class goes by in recipes, or None."""
    kind = value if isinstance(value, type) else type(value)
    return next((name for table in _CHOICES for name, cls in table.items() if cls is kind), None)


def _members(kind: Any) -> list[Any]:
    """The members of a union, or the type itself."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [m for arg in typing.get_args(kind) for m in _members(arg)]
    return [kind]


def _choices(members: list[Any]) -> dict[str, type]:
    """Names that may stand at a place whose type has these members."""
    classes = tuple(m for m in members if isinstance(m, type))
    return {n: c for table in _CHOICES for n, c in table.items() if classes and issubclass(c, classes)}


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def build(kind: Any, node: Any, path: str = "") -> Any:
    """A value of type `kind` from plain YAML data.

    Raises:
        ConfigError: with the path of what is wrong, what was expected, and the nearest known name.
    """
    members = _members(kind)
    if node is None and type(None) in members:
        return None
    classes = [m for m in members if dataclasses.is_dataclass(m) or m is Objective]
    if classes:
        return _build_class(classes, node, path)
    mapping = next((m for m in members if typing.get_origin(m) is dict), None)
    if mapping is not None and typing.get_args(mapping)[1] is Objective and isinstance(node, Mapping):
        return {str(key): build(Objective, value, f"{path}.{key}") for key, value in node.items()}
    if len(members) > 1 and mapping is not None:
        kind = next(m for m in members if m is not mapping)
    if typing.get_origin(kind) is tuple and typing.get_args(kind)[1:] == (Ellipsis,):
        inner = typing.get_args(kind)[0]
        if any(dataclasses.is_dataclass(m) for m in _members(inner)):
            if not isinstance(node, list | tuple):
                raise ConfigError(f"{path}: expected a list, got {node!r}; write it as [ ... ]")
            return tuple(build(inner, item, f"{path}[{i}]") for i, item in enumerate(node))
    return _leaf(kind, node, path)


def _build_class(classes: list[Any], node: Any, path: str) -> Any:
    if isinstance(node, tuple(classes)):
        return node
    choices = _choices(classes)
    if choices and isinstance(node, str):
        node = {"name": node}
    if not isinstance(node, Mapping):
        raise ConfigError(f"{path or 'recipe'}: expected a mapping of keys and values, got {node!r}; write key: value")
    cls, values = classes[0], dict(node)
    if choices:
        name = values.pop("name", None)
        if name not in choices:
            got = "nothing" if name is None else repr(name)
            raise ConfigError(f"{path}.name: expected a known name, got {got}; {suggest(str(name), choices)}")
        cls = choices[name]
    fields = {f.name for f in dataclasses.fields(cls)}
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in fields:
            raise ConfigError(f"{prefix}{key}: expected a known key, got {key!r}; {suggest(str(key), fields)}")
    made = {
        key: build(_hints(cls)[key], _with_default_name(cls, key, value), f"{prefix}{key}")
        for key, value in values.items()
    }
    try:
        return cls(**made)
    except TypeError as error:
        missing = str(error).split("argument")[-1].strip(" :s")
        raise ConfigError(f"{path}: expected a value for {missing}, got none; add it") from error
    except ConfigError:
        raise
    except DanskinError as error:
        raise ConfigError(f"{path}: {error}") from error


def _with_default_name(cls: Any, key: str, node: Any) -> Any:
    """A choice that is not named is the one this key has by default: `optimizer: {lr: 0.01}` is SGD."""
    if not isinstance(node, Mapping) or "name" in node:
        return node
    f = next(f for f in dataclasses.fields(cls) if f.name == key)
    default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
    name = name_of(default)
    return {"name": name, **node} if name else node


def _leaf(kind: Any, node: Any, path: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(node)
    except ValidationError as error:
        first = error.errors()[0]
        wanted = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        raise ConfigError(f"{path}: expected {wanted}, got {node!r}; see `danskin show config`") from error


def plain(value: Any) -> Any:
    """A config as YAML-ready data: what `build` reads back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = name_of(value)
        out = {"name": name} if name else {}
        return out | {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def _yaml() -> Any:
    try:
        from ruamel.yaml import YAML
    except ImportError as error:
        raise MissingError("config: ruamel.yaml is needed", "pip install 'danskin[run]'") from error
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.width = 100
    yaml.representer.sort_base_mapping_type_on_output = False
    return yaml


def to_yaml(config: Any) -> str:
    """The config as YAML text."""
    stream = StringIO()
    _yaml().dump(plain(config), stream)
    return stream.getvalue()


def parse_yaml(text: str, source: str) -> Any:
    """YAML 1.2 to plain data.

    Raises:
        ConfigError: not YAML.
    """
    from ruamel.yaml.error import YAMLError

    try:
        return _yaml().load(text)
    except YAMLError as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{source}: expected YAML, got a text that does not parse ({detail}); correct it") from error


def read_recipe(source: str | Path) -> dict[str, Any]:
    """A recipe as plain data: a path, or the name of one that danskin ships.

    Raises:
        MissingError: there is no such file or recipe.
        ConfigError: it is not a mapping.
    """
    path = Path(source)
    if str(source) in RECIPES:
        path = RECIPES[str(source)]
    elif not path.is_file():
        raise MissingError(
            f"recipe: expected a file or one of {', '.join(sorted(RECIPES))}, got {str(source)!r}",
            suggest(str(source), RECIPES),
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected YAML in UTF-8, got other bytes ({error}); give a recipe") from error
    node = parse_yaml(text, str(path))
    if not isinstance(node, dict):
        raise ConfigError(f"{path}: expected a mapping of keys and values, got {type(node).__name__}; write key: value")
    return {"name": path.stem} | node


def override(node: dict[str, Any], assignments: typing.Iterable[str]) -> dict[str, Any]:
    """Apply `a.b.c=value` texts to plain data, in order.

    A new `name` replaces its whole node: the old options belonged to the old choice. Only what all attacks
    have (ball, loss, box, ...) stays when one attack takes another's place.

    Raises:
        ConfigError: not of the form key=value.
    """
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override: expected key=value, got {text!r}; write for example trainer.epochs=5")
        keys = key.strip().split(".")
        at = node
        for k in keys[:-1]:
            inner = at.get(k)
            at[k] = dict(inner) if isinstance(inner, Mapping) else {"name": inner} if isinstance(inner, str) else {}
            at = at[k]
        new = parse_yaml(value, f"override {key}") if value.strip() else None
        if keys[-1] == "name" and len(keys) > 1 and at.get("name") != new:
            kept = _COMMON if at.get("name") in ATTACKS and new in ATTACKS else set()
            for old in at.keys() - kept:
                del at[old]
        at[keys[-1]] = new
    return node


def completed(node: dict[str, Any]) -> dict[str, Any]:
    """A recipe whose objectives all say their attack and ball: those of the recipe where they name none."""
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
    if ":" not in config.data.name and config.data.name not in DATASETS:
        raise ConfigError(
            f"data.name: expected a known data set, got {config.data.name!r}; {suggest(config.data.name, DATASETS)}"
        )
    return config
