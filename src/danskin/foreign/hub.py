"""Classifiers of Hugging Face transformers and of timm, with their normalisation as the first layer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danskin.errors import ConfigError, MissingError, ModelError
from danskin.foreign.opened import Logits, Opened, ready, set_eval, warn
from danskin.foreign.untrained import random_weights
from danskin.foreign.weights import load_weights
from danskin.foreign.words import first_line, near, needed
from danskin.models import Normalize


class Flipped(nn.Module):
    """Channels in reverse order: RGB to BGR."""

    def forward(self, x: Tensor) -> Tensor:
        """X with dimension 1 reversed."""
        return x.flip(1)


def open_transformers(name: str, device: torch.device, classes: int | None, arguments: dict[str, Any]) -> Opened:
    """An image classifier of transformers: a local folder, or a name on the hub.

    Only safetensors are read, and never code that comes with a model. Inputs are in [0, 1]: what its processor
    does to the numbers is put in front; what it does to sizes is not.

    Args:
        name: folder with config.json and model.safetensors, or "organisation/model".
        device: where it goes.
        classes: how many logits are expected.
        arguments: `revision` of a model on the hub.

    Raises:
        MissingError: transformers, or the model, is not there.
        ModelError: weights are lacking (transformers would draw them at random).
    """
    unknown = sorted(arguments.keys() - {"revision"})
    if unknown:
        raise ConfigError(f"hf:{name}: expected no argument but revision, got {unknown[0]!r}; leave it out")
    folder = Path(name).expanduser()
    local = folder.is_dir()
    _check_place(name, folder, local)
    try:
        from transformers import AutoModelForImageClassification
    except Exception as error:  # a torchvision that does not fit torch breaks it, too
        raise needed(f"hf:{name}", "transformers", "pip install transformers safetensors", error) from error
    source = str(folder) if local else name
    try:
        net, info = AutoModelForImageClassification.from_pretrained(
            source,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=local,
            output_loading_info=True,
            **arguments,
        )
    except (ImportError, RuntimeError) as error:
        raise needed(f"hf:{name}", "transformers", "pip install transformers safetensors", error) from error
    except Exception as error:  # OSError, ValueError and the hub's own kinds
        raise MissingError(
            f"hf:{name}: expected an image classifier with safetensors and without code of its own, got "
            f"{first_line(error)}",
            "see that the folder holds config.json and model.safetensors" if local else f"hf download {name}",
        ) from error
    lacking = [*info["missing_keys"], *info["mismatched_keys"]]
    if lacking:
        raise ModelError(
            f"hf:{name}: expected the weights of a classifier, got none for {len(lacking)} ({sorted(lacking)[0]!s}, "
            "...), which would be random; use a model that was trained to classify"
        )
    try:
        processor = _processor(source, local, arguments)
    except (OSError, ValueError) as error:
        raise MissingError(
            f"hf:{name}: expected a processor config that reads, got {first_line(error)}", "fetch the model again"
        ) from error
    layers, notes = _front(processor, f"hf:{name}")
    whole = nn.Sequential(*layers, net.float())  # full precision, whatever the file holds
    set_eval(whole)
    return ready(Logits(whole), f"hf:{name}", device, notes=notes, classes=classes)


def _check_place(name: str, folder: Path, local: bool) -> None:
    if local:
        if not (folder / "config.json").is_file():
            raise MissingError(f"hf:{name}: expected config.json in this folder, got none", f"ls {folder}")
    elif name.count("/") > 1 or name.startswith(("/", ".", "~")) or not name:
        beside = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        raise MissingError(
            f"hf:{name}: expected a folder or organisation/model, got nothing there",
            near(folder.name, beside, "check the path"),
        )


def _processor(source: str, local: bool, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """What the image processor's config says; None where there is none."""
    for file in ("preprocessor_config.json", "processor_config.json"):
        path: Path | None = Path(source) / file
        if not local:
            from transformers.utils import cached_file

            found = cached_file(source, file, _raise_exceptions_for_missing_entries=False, **arguments)
            path = Path(found) if found else None
        if path is not None and path.is_file():
            config = json.loads(path.read_text(encoding="utf-8"))
            return dict(config.get("image_processor", config))
    return None


def _front(config: dict[str, Any] | None, name: str) -> tuple[list[nn.Module], list[str]]:
    """The layers that do to [0, 1] what the processor does to the numbers of an image of 0..255.

    processor: ((255 x f - o) - mean) / std / s, with f the rescale factor; EfficientNet's may have o = 1, and divides
    once more by s = std, normalisation or not. So mean' = (mean + o) / (255 f) and std' = std s / (255 f).
    """
    if config is None:
        return [], [warn(f"{name}: no processor config; inputs of [0, 1] are taken as they are, without normalisation")]
    layers: list[nn.Module] = [Flipped()] if config.get("do_flip_channel_order") else []
    notes = ["channels reversed to BGR"] if layers else []
    unit = 255 * float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 255.0
    # MobileViT's processors, which flip, write statistics that they do not use
    normal = bool(config.get("do_normalize", "do_flip_channel_order" not in config))
    odd = str(config.get("image_processor_type", config.get("feature_extractor_type"))).startswith("EfficientNet")
    twice = odd and config.get("include_top", True)
    if (normal or twice) and not (config.get("image_mean") and config.get("image_std")):
        normal = twice = False
        notes.append(warn(f"{name}: its processor normalises, but does not say by what; inputs are not normalised"))
    mean, std = (_numbers(config["image_mean"]), _numbers(config["image_std"])) if normal else ([0.0], [1.0])
    again = _numbers(config["image_std"]) if twice else [1.0]
    size = max(len(std), len(again))
    mean = [(m + (odd and config.get("rescale_offset", False))) / unit for m in _wide(mean, size)]
    std = [s * t / unit for s, t in zip(_wide(std, size), _wide(again, size), strict=True)]
    if not (all(math.isclose(m, 0, abs_tol=1e-12) for m in mean) and all(math.isclose(s, 1) for s in std)):
        layers.append(Normalize(mean, std))
    notes.append(f"first layer {layers[-1]}" if layers and isinstance(layers[-1], Normalize) else "no normalisation")
    pixels = config.get("crop_size") if config.get("do_center_crop") else config.get("size")
    if pixels:
        notes.append(f"its processor makes images of size {pixels}; give images of that size")
    return layers, notes


def _wide(values: list[float], size: int) -> list[float]:
    return values * size if len(values) == 1 else values


def _numbers(value: float | Sequence[float]) -> list[float]:
    return [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)]  # type: ignore[arg-type]


def open_timm(
    name: str, device: torch.device, weights: Path | None, classes: int | None, arguments: dict[str, Any]
) -> Opened:
    """A network of timm with the normalisation of its pretrained weights as the first layer.

    Args:
        name: as `timm.list_models` gives it.
        device: where it goes.
        weights: a file to load; else `arguments` may hold pretrained=True.
        classes: number of classes, where the weights are not timm's own.
        arguments: keywords of `timm.create_model`; mean and std here replace the normalisation.

    Raises:
        MissingError: timm is not installed, or its weights cannot be fetched.
        ConfigError: an unknown name or argument.
    """
    arguments = dict(arguments)
    statistics = {key: arguments.pop(key) for key in ("mean", "std") if key in arguments}
    if "checkpoint_path" in arguments:
        raise ConfigError(f"timm:{name}: expected the file as --weights, got checkpoint_path; write --weights FILE")
    try:
        import timm
    except Exception as error:  # a torchvision that does not fit torch raises RuntimeError
        raise needed(f"timm:{name}", "timm", "pip install timm safetensors", error) from error
    plain = name.split(".")[0]
    if ":" not in name and not timm.is_model(plain):
        raise ConfigError(
            f"timm:{name}: expected a model of timm, got {name!r}; "
            + near(plain, timm.list_models(), "see timm.list_models()")
        )
    pretrained = bool(arguments.get("pretrained", False))
    if classes is not None and not pretrained:  # another head on pretrained weights would be random
        arguments.setdefault("num_classes", classes)
    try:
        net = timm.create_model(name, **arguments)
    except TypeError as error:
        raise ConfigError(
            f"timm:{name}: expected arguments of the model, got {first_line(error)}; correct them"
        ) from error
    except Exception as error:
        how = "load them where there is a network, or give --weights FILE" if pretrained else "correct the arguments"
        raise MissingError(f"timm:{name}: expected a model, got {first_line(error)}", how) from error
    notes = [] if weights is None else load_weights(weights, net)
    if weights is None and not pretrained:
        notes.append(warn(f"timm:{name}: random weights; give pretrained=true or --weights FILE"))
    config = {"mean": 0.0, "std": 1.0} | (getattr(net, "pretrained_cfg", None) or {}) | statistics
    layer = Normalize(_numbers(config["mean"]), _numbers(config["std"]))
    channels = arguments.get("in_chans", len(layer.mean))
    if len(layer.mean) not in (1, channels):
        raise ConfigError(
            f"timm:{name}: expected mean and std of {channels} channels, got {len(layer.mean)}; give them as "
            "arguments, mean=[...] std=[...]"
        )
    notes.append(f"first layer {layer}")
    if config.get("input_size"):
        notes.append(f"made for inputs of shape {tuple(config['input_size'])}")
    whole = nn.Sequential(layer, net)
    set_eval(whole)
    flags = random_weights() if weights is None and not pretrained else ()
    return ready(whole, f"timm:{name}", device, notes=notes, classes=classes, flags=flags)
