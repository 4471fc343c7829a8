"""From words of the command line to questions about models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import torch

from danskin.attacks.asking import Precision
from danskin.attacks.bounds import Ball
from danskin.data import Dataset, load, to_float
from danskin.errors import ConfigError, suggest
from danskin.evaluation import SUITES
from danskin.evaluation.certify import CertifyMethod
from danskin.evaluation.fingerprint import state_hash
from danskin.foreign import Opened, check_model, is_onnx, open_model
from danskin.models import MODELS
from danskin.run.recipe import parse_yaml
from danskin.run.source import open_source
from danskin.run.verdict import Question, parse_ball


def questions(
    source: Path | None,
    overrides: list[str],
    spec: str | None,
    weights: Path | None,
    arguments: list[str],
    statistics: tuple[str | None, str | None],
    data: str | None,
    ball: str | None,
    settings: dict[str, Any],
    device: torch.device,
) -> list[Question]:
    """One question per model.

    Raises:
        ConfigError: words that do not go together, or unknown ones.
    """
    _check(settings)
    settings = {key: value for key, value in settings.items() if value is not None}  # left out: as Question has it
    if source is None:
        return [_foreign(spec, overrides, weights, arguments, statistics, data, ball, settings, device)]
    if weights is not None or arguments or data is not None or any(statistics):
        raise ConfigError(
            "evaluate: expected --weights, --arg and --data only without SOURCE, got both; a run brings its own, also "
            "--mean and --std (change its data with data.name=...)"
        )
    config, split, models = open_source(source, overrides, device)
    if spec is not None and spec not in models:
        raise ConfigError(f"--model: expected one of {', '.join(models)}, got {spec!r}; leave it out for all")
    chosen = models if spec is None else {spec: models[spec]}
    asked: Ball = parse_ball(ball) if ball else config.attack.ball
    return [
        Question(Opened(model, label, state_hash(model), True), split.data, asked, **settings)
        for label, model in chosen.items()
    ]


_SPELLED = {"certificate": "certify"}  # settings whose option has another name


def _check(settings: dict[str, Any]) -> None:
    known = {
        "suite": tuple(SUITES),
        "precision": (*get_args(Precision), "auto"),
        "certificate": ("no", *get_args(CertifyMethod)),
    }
    for key, choices in known.items():
        if settings[key] not in choices:
            told = f"expected one of {', '.join(choices)}, got {settings[key]!r}; {suggest(settings[key], choices)}"
            raise ConfigError(f"--{_SPELLED.get(key, key)}: {told}")
    budget = settings["budget"]
    if budget is not None and settings["certificate"] != "auto":
        raise ConfigError(
            f"--certify-budget: expected only with --certify auto, got --certify {settings['certificate']}; every "
            "other method takes what it takes"
        )
    if budget is not None and not budget > 0:
        raise ConfigError(
            f"--certify-budget: expected more than 0 multiplications, got {budget:g}; 2e11 is the default"
        )
    if settings["precision"] == "auto" and settings["channels_last"]:
        raise ConfigError("--channels-last: expected without --precision auto, which chooses it; leave one out")


def _foreign(
    spec: str | None,
    overrides: list[str],
    weights: Path | None,
    arguments: list[str],
    statistics: tuple[str | None, str | None],
    data: str | None,
    ball: str | None,
    settings: dict[str, Any],
    device: torch.device,
) -> Question:
    missing = [flag for flag, value in (("--model", spec), ("--data", data), ("--ball", ball)) if value is None]
    if missing or spec is None or data is None or ball is None:
        raise ConfigError(
            f"evaluate: expected a SOURCE, or --model, --data and --ball; {' and '.join(missing)} missing; for example "
            "danskin evaluate --model mynets:resnet18 --weights w.safetensors --data cifar10 --ball linf:8/255"
        )
    if overrides:
        raise ConfigError(f"evaluate: expected overrides only with SOURCE, got {' '.join(overrides)}; use the options")
    found: Dataset = load(data)
    keywords = _arguments(arguments)
    if spec in MODELS:
        keywords = {"input_shape": found.image_shape, "classes": len(found.classes)} | keywords
    elif is_onnx(spec):
        keywords = {"input_shape": found.image_shape} | keywords
    mean, std = (_numbers(flag, text) for flag, text in zip(("--mean", "--std"), statistics, strict=True))
    count = None if found.test_only else len(found.classes)  # test examples need not know all classes
    opened = open_model(spec, weights=weights, device=device, classes=count, arguments=keywords, mean=mean, std=std)
    opened = check_model(opened, to_float(found.x_test[:4].to(device)))
    if not opened.differentiable:
        raise ConfigError(
            f"--model: expected a model with gradients for suite {settings['suite']!r}, got one without "
            f"({opened.note}); "
            "attack it in Python with Square, Boundary or HopSkipJump: evaluate(model, data, ball, [Square(ball)])"
        )
    return Question(opened, found, parse_ball(ball), **settings)


def _numbers(flag: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(word) for word in text.strip("[]() ").split(",")]
    except ValueError as error:
        raise ConfigError(
            f"{flag}: expected numbers such as 0.4914,0.4822,0.4465, got {text!r}; give one, or one per channel"
        ) from error


def _arguments(words: list[str]) -> dict[str, Any]:
    out = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"--arg: expected key=value, got {word!r}; for example --arg depth=18")
        out[key] = parse_yaml(value, "--arg") if value else ""
    return out
