"""Audit of a torch.export archive: what could run code is refused, the rest is copied into a clean archive.

`torch.export.load` is not meant for files of strangers: it unpickles (`weights_only=False` as a second try),
evaluates texts as symbolic expressions, resolves the target of a node by walking attributes from `torch` (which
reaches `torch.os.system`), writes names into Python source, and loads shared libraries. So nothing that was not
understood here reaches it: members, keys, targets, names and expressions are checked against what a classifier
needs, and a new archive is written from them alone.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from danskin.errors import CheckpointError, ModelError
from danskin.foreign.words import first_line

_NAME = re.compile(r"(?:[A-Za-z_]\w*)?")
_PATH = re.compile(r"[\w.\-]*")
_PLAIN = re.compile(r"[\w.+\-<=]*")
_SYMBOL = re.compile(r"[a-z]{1,3}\d+")
_EXPRESSION = re.compile(  # of sizes: numbers, symbols, their declarations, functions of sizes, arithmetic
    r"(?:\d+(?:\.\d+)?|Symbol\('[a-z]{1,3}\d+'|[a-z]{1,3}\d+|"
    r"\b(?:(?:positive|nonnegative|integer|real)=(?:True|False)|True|False|"
    r"FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|"
    r"FloatPow|FloatTrueDiv|IntTrueDiv|TruncToInt|TruncToFloat|RoundToInt|RoundDecimal|ToFloat|Identity|"
    r"Integer|Float|Rational|Add|Mul|Pow|Max|Min|Eq|Ne|Lt|Le|Gt|Ge|Not|And|Or|floor|ceiling|int_oo|oo)\b|"
    r"[-+*/%(),<>=&|~! ])*"
)
_GUARD = re.compile(r"(?:L\['\w+'\]|\.size\(\)|\[\d+\]|\d+|and|or|not|[-+*/%()<>=! ])*")
_OPERATOR = re.compile(r"torch\.ops\.(aten|torchvision|quantized_decomposed)\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)")
_ARITHMETIC = frozenset(
    [f"_operator.{n}" for n in "eq ne le ge lt gt neg pos mul add sub floordiv mod pow truediv and_ or_ not_".split()]
    + ["_operator.getitem"]
    + [f"math.{n}" for n in "trunc ceil floor sqrt".split()]
    + [f"torch.sym_{n}" for n in "not int float ite max min sqrt sum".split()]
    + [
        f"torch.ops.higher_order.{n}"
        for n in "wrap_with_set_grad_enabled wrap_with_autocast cond map_impl scan while_loop".split()
    ]
)
_TRAINS = re.compile(r"torch\.ops\.aten\.(?:\w*dropout|\w*batch_norm\w*)\.")
_NAMES = frozenset({"name", "as_name", "user_input_name", "forward_arg_names", "as_string_to_argument"})
_PATHS = frozenset({"fqn", "parameter_name", "buffer_name", "tensor_constant_name"})
_NAMED = frozenset({"tensor_values", "sym_int_values", "sym_float_values", "sym_bool_values", "as_string_to_argument"})
_TEXTS = frozenset({"as_string", "as_strings"})  # constants; torch writes them with repr
_OBJECTS = frozenset({"as_custom_obj", "custom_obj", "custom_obj_name", "class_fqn"})


@dataclass(frozen=True)
class Clean:
    """A program whose archive holds nothing that was not understood.

    Args:
        archive: to read with `torch.export.load`.
        shape: of the input as exported; None where the size is dynamic.
        dtype: number of the input's dtype in the export schema.
        batch: smallest and largest batch size; None for no limit.
    """

    archive: io.BytesIO
    shape: tuple[int | None, ...]
    dtype: int
    batch: tuple[int, int | None]


def audited(path: Path, device: torch.device) -> Clean:
    """The archive rewritten for a device, from what is known to be harmless.

    Raises:
        CheckpointError: the file does not read, or holds something that could run code.
        ModelError: it was exported in training mode, or does not take exactly one tensor.
    """
    members = _members(path)
    flat = "serialized_exported_program.json" in members  # torch 2.7 and before
    program_name = "serialized_exported_program.json" if flat else "models/model.json"
    if program_name not in members:
        raise CheckpointError(
            f"{path}: expected a program of torch.export.save, got an archive without {program_name}; save it again"
        )
    try:
        program = json.loads(members[program_name])
        cleaned = _Audit(path, device).clean(program)
        shape, dtype, batch = _input(path, cleaned)
        kept = _kept_flat(path, members) if flat else _kept(path, members, device)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected a program of torch.export.save, got another layout ({first_line(error)}); save it again "
            f"with this torch ({torch.__version__})"
        ) from error
    return Clean(_archive(kept | {program_name: json.dumps(cleaned).encode()}, flat), shape, dtype, batch)


def _members(path: Path) -> dict[str, bytes]:
    """Members by their name inside the archive's folder; each once."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            flat = "serialized_exported_program.json" in names
            found = {n if flat else n.partition("/")[2]: archive.read(n) for n in names}
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: expected a program of torch.export.save, got a file that does not read ({first_line(error)})"
        ) from error
    if len(found) != len(names):
        raise CheckpointError(f"{path}: expected each name once in the archive, got doubles; it was tampered with")
    compiled = [n for n in found if n.startswith("data/aotinductor")]
    if compiled:
        raise _refused(path, f"compiled code ({compiled[0]})")
    return found


def _kept(path: Path, members: dict[str, bytes], device: torch.device) -> dict[str, bytes]:
    """Weights, constants and versions; sample inputs are pickled and not needed."""
    kept: dict[str, bytes] = {
        n: members[n] for n in ("archive_format", "archive_version", "byteorder", ".data/version") if n in members
    }
    kept["data/sample_inputs/model.pt"] = b""
    for folder, kind in (("data/weights/", "weights"), ("data/constants/", "constants")):
        old, listed = f"{folder}model.pt", f"{folder}model_{kind}_config.json"
        if old in members:
            kept[old] = _checked_pickle(path, members[old])
            continue
        config = json.loads(members[listed])
        for name, entry in config["config"].items():
            if entry["use_pickle"] or not _PATH.fullmatch(name) or not re.fullmatch(r"\w+", entry["path_name"]):
                raise _refused(path, f"a pickled object ({name})")
            entry["tensor_meta"]["device"] = _device(device)
            kept[folder + entry["path_name"]] = members[folder + entry["path_name"]]
        kept[listed] = json.dumps(config).encode()
    return kept


def _kept_flat(path: Path, members: dict[str, bytes]) -> dict[str, bytes]:
    kept = {"version": members["version"], "serialized_example_inputs.pt": b""}
    for name in ("serialized_state_dict.pt", "serialized_constants.pt"):
        kept[name] = _checked_pickle(path, members[name])
    return kept


def _checked_pickle(path: Path, content: bytes) -> bytes:
    """Tensors only: then torch's own first try, with weights_only=True, succeeds and there is no second."""
    try:
        if content:
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refused(path, f"pickled objects ({first_line(error)})") from error
    return content


def _archive(members: dict[str, bytes], flat: bool) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name if flat else f"model/{name}", content)
    stream.seek(0)
    return stream


class _Audit:
    """Walks the JSON of a program; every text must be of the kind that its key calls for."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path, self.device = path, device

    def clean(self, program: dict[str, Any]) -> dict[str, Any]:
        """A copy with every text checked, on the device, without metadata."""
        symbols = program["range_constraints"]
        if not all(_SYMBOL.fullmatch(name) for name in symbols):
            raise _refused(self.path, "an unknown symbol")
        rest = {k: v for k, v in program.items() if k != "range_constraints"}
        module = rest["graph_module"]
        module["module_call_graph"] = [entry for entry in module["module_call_graph"] if not entry["fqn"]]
        module.pop("treespec_namedtuple_fields", None)
        return self._value(rest, "") | {"range_constraints": symbols}

    def _value(self, node: Any, key: str) -> Any:
        if isinstance(node, dict):
            return self._mapping(node, key)
        if isinstance(node, list):
            return [self._value(item, key) for item in node]
        if isinstance(node, str):
            self._text(node, key)
        return node

    def _mapping(self, node: dict[str, Any], key: str) -> dict[str, Any]:
        if key == "device":
            return _device(self.device)
        if key == "metadata":
            return {}
        if (key == "custom_obj_values" and node) or _OBJECTS & node.keys():
            raise _refused(self.path, "an object of its own class")
        if "target" in node:
            self._mode(node)
        rule = _NAME if key in _NAMED else _PATH
        if not all(rule.fullmatch(name) for name in node):
            raise _refused(self.path, f"a name that is none ({next(n for n in node if not rule.fullmatch(n))[:60]!r})")
        return {name: self._value(value, name if key not in _NAMED else "") for name, value in node.items()}

    def _text(self, text: str, key: str) -> None:
        if key in _TEXTS:
            return
        if key in ("target", "as_operator"):
            self._target(text)
        elif key in ("in_spec", "out_spec"):
            self._tree(json.loads(text))
        else:
            rules = {"expr_str": _EXPRESSION, "guards_code": _GUARD}
            rules |= dict.fromkeys(_NAMES, _NAME) | dict.fromkeys(_PATHS, _PATH)
            if not rules.get(key, _PLAIN).fullmatch(text):
                raise _refused(self.path, f"a text that could be code ({key}: {text[:80]!r})")

    def _target(self, target: str) -> None:
        """Arithmetic on sizes, or a registered operator that touches no file."""
        if target in _ARITHMETIC:
            return
        parts = _OPERATOR.fullmatch(target)
        if parts is None:
            raise _refused(self.path, f"a call of {target[:80]!r}")
        packet = getattr(getattr(torch.ops, parts[1]), parts[2], None)
        overload = getattr(packet, parts[3], None)
        if not isinstance(overload, torch._ops.OpOverload):
            need = "; pip install torchvision" if parts[1] == "torchvision" else ""
            raise CheckpointError(
                f"{self.path}: expected operators of torch, got {target}, which is unknown here{need}"
            )
        if any(argument.name == "filename" for argument in overload._schema.arguments):
            raise _refused(self.path, f"access to files ({target})")

    def _mode(self, node: dict[str, Any]) -> None:
        if _TRAINS.match(node["target"]) and any(
            argument["name"] in ("train", "training") and argument["arg"].get("as_bool") for argument in node["inputs"]
        ):
            raise ModelError(
                f"{self.path}: expected a model in eval mode, got one exported in training mode ({node['target']}); "
                "call model.eval() before torch.export.export"
            )

    def _tree(self, tree: Any) -> None:
        """The structure of inputs and outputs: tuples, lists and mappings of tensors."""
        nodes = [tree[1]]
        while nodes:
            node = nodes.pop()
            if node["type"] not in (
                None,
                "builtins.tuple",
                "builtins.list",
                "builtins.dict",
                "collections.OrderedDict",
            ):
                raise ModelError(
                    f"{self.path}: expected tensors, tuples or dictionaries as inputs and outputs, got {node['type']}; "
                    "export a module that returns the logits only"
                )
            context = json.loads(node["context"] or "null")
            if context is not None and not all(isinstance(key, str) for key in context):
                raise _refused(self.path, "a key that is no text")
            nodes += node["children_spec"]


def _input(path: Path, program: dict[str, Any]) -> tuple[tuple[int | None, ...], int, tuple[int, int | None]]:
    """Shape, dtype and batch sizes of the one input."""
    module = program["graph_module"]
    inputs = [spec for spec in module["signature"]["input_specs"] if {"user_input", "constant_input"} & spec.keys()]
    names = [spec["user_input"]["arg"]["as_tensor"]["name"] for spec in inputs if "user_input" in spec]
    call = json.loads(module["module_call_graph"][0]["signature"]["in_spec"])[1]["children_spec"]
    if len(inputs) != 1 or len(names) != 1 or len(call[0]["children_spec"]) != 1:
        raise ModelError(
            f"{path}: expected a program that takes one tensor by position, got {len(inputs)} inputs; export a module "
            "whose forward takes the images only"
        )
    meta = module["graph"]["tensor_values"][names[0]]
    shape = tuple(size.get("as_int") for size in meta["sizes"])
    if not shape or shape[0] is not None:
        size = shape[0] if shape else 1
        return shape, meta["dtype"], (size or 1, size)
    symbol = re.fullmatch(r"(?:Symbol\(')?([a-z]+\d+)\b.*", meta["sizes"][0]["as_expr"]["expr_str"])
    limits = program["range_constraints"].get(symbol[1], {}) if symbol else {}
    return shape, meta["dtype"], (max(limits.get("min_val") or 1, 1), limits.get("max_val"))


def _device(device: torch.device) -> dict[str, Any]:
    return {"type": device.type, "index": device.index}


def _refused(path: Path, holds: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: expected a network of torch operators, got {holds}; to open it could run code from the file, which "
        "danskin never does. If it is your own, name the code instead: --model package.module:factory"
    )
