"""Weights from strangers: safetensors, or torch files read with weights_only=True. No code from a file is run."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danskin.errors import CheckpointError, MissingError
from danskin.foreign.words import first_line, near, needed

#: Where training code puts the state of the model in a larger dictionary.
KEYS = ("state_dict", "model", "model_state_dict", "net")
#: What wrappers put in front of every name: DataParallel, Lightning, torch.compile.
PREFIXES = ("module.", "model.", "_orig_mod.")
_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of torch files before 1.6


def load_weights(path: Path, model: Any) -> list[str]:
    """Load a file strictly into a model.

    Returns:
        what the user should know: prefixes taken away, other precision.

    Raises:
        MissingError: there is no such file, or safetensors is not installed.
        CheckpointError: it does not read, would run code, or does not fit.
    """
    if not isinstance(model, nn.Module):
        raise CheckpointError(
            f"{path}: expected a torch module to load weights into, got {type(model).__name__}; leave --weights out "
            "and load them where the model is made"
        )
    state, notes = read_weights(path)
    own = model.state_dict()
    state, stripped = _without_prefix(model, state, own)
    if stripped:
        notes.append(f"names in {path.name} without their prefix {stripped!r}")
    misfit = _misfit(model, state, own)
    if misfit:
        raise CheckpointError(
            f"{path}: expected the weights of this model, got {', '.join(misfit)}; {_fix(path, model, own, state)}"
        )
    try:
        model.load_state_dict(state, strict=False)  # names were checked; only aliases lack
    except Exception as error:  # a module's own hook may refuse
        raise CheckpointError(
            f"{path}: expected weights of this architecture, got {first_line(error)}; check the factory's arguments"
        ) from error
    changed = {f"{v.dtype} to {own[k].dtype}" for k, v in state.items() if k in own and v.dtype != own[k].dtype}
    return notes + [f"weights converted from {text}" for text in sorted(changed)]


def read_weights(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file by name, and where in the file they were."""
    missing_file(path, "a weights file")
    with open(path, "rb") as stream:
        start = stream.read(16)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _read_safetensors(path), []
    if start[:2] == b"PK" or start.startswith(_MAGIC):
        return _state_in(path, _read_torch(path))
    if start[:1] == b"\x80":
        raise CheckpointError(_refusal(path, "Python objects, as pickle writes them", "pickle.load(open({!r}, 'rb'))"))
    raise CheckpointError(
        f"{path}: expected weights written by safetensors or torch.save, got a file of another kind; fetch it again"
    )


def missing_file(path: Path, what: str) -> None:
    """Refuse a path where there is no file, with the nearest name in its folder."""
    if path.is_file():
        return
    if path.is_dir():
        raise MissingError(f"{path}: expected {what}, got a folder", f"ls {path}")
    names = [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
    raise MissingError(f"{path}: expected {what}, got nothing there", near(path.name, names, "check the path"))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except Exception as error:
        raise needed(str(path), "safetensors", "pip install safetensors", error) from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: expected safetensors, got a file that does not read ({first_line(error)}); fetch it again"
        ) from error


def _read_torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
        if any(name.startswith("code/") for name in names) or "archive_format" in names:
            raise CheckpointError(
                f"{path}: expected weights, got a whole model (TorchScript or torch.export); use --model {path}"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch asks to file an issue about old pickles
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        holds = named[1] if named else "Python objects"
        raise CheckpointError(_refusal(path, holds, "torch.load({!r}, 'cpu', weights_only=False)")) from error
    except Exception as error:  # torch raises many kinds for a broken file
        raise CheckpointError(
            f"{path}: expected weights written by torch.save, got a file that does not read ({first_line(error)}); it "
            "is truncated: fetch it again"
        ) from error


def _refusal(path: Path, holds: str, load: str) -> str:
    """Why a pickle is refused, and the way out."""
    keys = "".join(f"found.get({key!r}, " for key in KEYS) + "found" + ")" * len(KEYS)
    return (
        f"{path}: expected tensors only, got a file that also holds {holds}; to read it would run code from it, which "
        "danskin never does. If you trust where it comes from, convert it once in Python:\n"
        f"    import pickle, torch, safetensors.torch; found = {load.format(str(path))}\n"
        f"    found = {keys} if isinstance(found, dict) else found; "
        "found = found.state_dict() if hasattr(found, 'state_dict') else found\n"
        "    safetensors.torch.save_file({k: v.contiguous().clone() for k, v in found.items() if torch.is_tensor(v)}, "
        f"{str(path.with_suffix('.safetensors'))!r})"
    )


def _state_in(path: Path, found: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The dictionary of tensors in what a file held."""
    if _is_state(found):
        return dict(found), []
    if isinstance(found, Mapping):
        held = [key for key in KEYS if key in found and _is_state(found[key])]
        if held:
            also = f" (there is also {', '.join(map(repr, held[1:]))})" if held[1:] else ""
            return dict(found[held[0]]), [f"weights under {held[0]!r} in {path.name}{also}"]
    raise CheckpointError(
        f"{path}: expected tensors by name, or such a dictionary under one of {', '.join(map(repr, KEYS))}, got "
        f"{_got(found)}; save model.state_dict()"
    )


def _got(found: Any) -> str:
    """What a file holds instead of a state."""
    if not isinstance(found, Mapping):
        return f"list of {len(found)}" if isinstance(found, list) else type(found).__name__
    inside = next((key for key in KEYS if key in found), None)
    if inside is None:
        return f"keys {', '.join(map(repr, list(found)[:6]))}"
    value = found[inside]
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__} under {inside!r}"
    odd = [k for k, v in value.items() if not isinstance(v, Tensor)]
    return f"{f'a {type(value[odd[0]]).__name__} as {odd[0]!r}' if odd else 'an empty dictionary'} under {inside!r}"


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) for k in value)
        and all(isinstance(v, Tensor) or k.endswith("_extra_state") for k, v in value.items())
    )


def _without_prefix(
    model: nn.Module, state: dict[str, Tensor], own: Mapping[str, Any]
) -> tuple[dict[str, Tensor], str]:
    """The state with common prefixes taken away, where exactly that makes it fit."""
    stripped, names = "", set(state)
    while names and any(_odd_names(model, {name: state[stripped + name] for name in names}, own)):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if prefix is None:
            return state, ""
        stripped, names = stripped + prefix, {name[len(prefix) :] for name in names}
    return {name[len(stripped) :]: value for name, value in state.items()}, stripped


def _misfit(model: nn.Module, state: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """What does not fit, in words; nothing where torch would load it strictly."""
    missing, unexpected = _odd_names(model, state, own)
    shapes = [
        f"{k} is {tuple(v.shape)} in the file and {tuple(own[k].shape)} in the model"
        for k, v in state.items()
        if isinstance(v, Tensor) and isinstance(own.get(k), Tensor) and v.shape != own[k].shape
    ]
    return [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("missing in the file", missing),
            ("not in the model", unexpected),
            ("of other shape", shapes),
        )
        if names
    ]


def _odd_names(model: nn.Module, state: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names that lack, and names that are too many.

    Names that share memory with one that is there may lack, and so may what modules fill in for older files.
    """
    missing, unexpected = [k for k in own if k not in state], [k for k in state if k not in own]
    present = {_place(own[k]) for k in own if missing and k in state and isinstance(own[k], Tensor)}
    missing = [k for k in missing if not (isinstance(own[k], Tensor) and own[k].numel() and _place(own[k]) in present)]
    if missing and len(missing) < len(own):
        lacking, left = _as_torch_sees_it(model, state)
        if not lacking.intersection(missing) and not left:
            return [], []
    return missing, unexpected


def _as_torch_sees_it(model: nn.Module, state: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Names that lack and names that are too many, after modules have translated older files; nothing is loaded.

    Modules do that while loading, so a model of the same kind without memory loads a state without memory.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            twin = copy.deepcopy(model).to("meta")
            twin_state = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in state.items()}
            told = twin.load_state_dict(twin_state, strict=False)
    except Exception:  # cannot be copied, or shapes differ, which is told elsewhere
        own = model.state_dict()
        return {k for k in own if k not in state}, {k for k in state if k not in own}
    return set(told.missing_keys), set(told.unexpected_keys)


def _fix(path: Path, model: nn.Module, own: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    if written_by_danskin(path):
        return f"danskin wrote this file and knows its model: danskin evaluate {path}"
    inner = {k.removeprefix("1.") for k in own if k.startswith("1.")}
    if inner and inner == set(state):
        return "they fit the second part of the model: load them in the factory, before normalisation is put in front"
    prefix, extra = _hidden(model, own, state)
    if prefix or extra:
        told = [f"without their prefix {prefix!r}"] if prefix else []
        told += [f"but for {len(extra)} more ({', '.join(extra[:3])}{', ...' if len(extra) > 3 else ''})"] * bool(extra)
        return (
            f"they would fit {', '.join(told)}: save {{k.removeprefix({prefix!r}): v for k, v in state.items() if "
            f"k.removeprefix({prefix!r}) in model.state_dict()}}"
        )
    return "give the name, options and number of classes that the weights were trained with"


def _hidden(model: nn.Module, own: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The prefix without which a part of the state fits the model, and the names that are too many then."""
    first = next(iter(own), "")
    prefixes = {name.removesuffix(first) for name in state if first and name.endswith(first)}
    for prefix in sorted(prefixes, key=len):
        if prefix and not prefix.endswith("."):
            continue
        part = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
        kept = {name: value for name, value in part.items() if name in own}
        if kept and not _misfit(model, kept, own):
            return prefix, [name for name in state if not (name.startswith(prefix) and name[len(prefix) :] in own)]
    return "", []


def written_by_danskin(path: Path) -> bool:
    """Whether a safetensors file has the card of danskin."""
    if path.suffix != ".safetensors":
        return False
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return "config" in (file.metadata() or {})


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.untyped_storage().data_ptr(), tuple(tensor.shape), tensor.storage_offset()
