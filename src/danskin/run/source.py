"""Open what was trained: the folder of a run, or a weights file whose header says how it was made."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from danskin.errors import CheckpointError, MissingError
from danskin.run import checkpoint
from danskin.run.config import TrainConfig
from danskin.run.record import Record, config_in, read_config
from danskin.run.train import Split, load_models, load_split, new_model


def open_source(
    source: Path, overrides: list[str], device: torch.device
) -> tuple[TrainConfig, Split, dict[str, nn.Module]]:
    """The config (with overrides), the data and the models.

    Raises:
        MissingError: there is nothing at this path.
        CheckpointError: a weights file without danskin's card, or of another architecture.
    """
    if source.is_dir():
        config, record = read_config(source, TrainConfig, overrides), Record(source)
    else:
        config, record = config_in(_card(source)["config"], TrainConfig, str(source), overrides), None
    split = load_split(config.data, config.seed, device)
    if record is not None:
        return config, split, load_models(record, config, split.data, device)
    model = new_model(config, split.data, device)
    checkpoint.load_weights(source, model)
    return config, split, {_card(source)["model"]: model.eval()}


def _card(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingError(f"{path}: expected a run folder or a weights file, got nothing there", "ls runs/*/*")
    try:
        with safe_open(path, framework="pt") as file:
            card = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: expected safetensors, got a file that does not read ({error})") from error
    if "config" not in card:
        raise CheckpointError(
            f"{path}: expected weights that danskin wrote, got a file without its card; load others in Python"
        )
    return card
