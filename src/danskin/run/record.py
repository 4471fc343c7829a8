"""A run is a folder: config, command, environment, status, metrics, checkpoints, results, report."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch

import danskin
from danskin.errors import CheckpointError, ConfigError, DanskinWarning, MissingError
from danskin.files import append_line, cut_torn_line, make_folder, open_to_append, read_json, write_json, write_text
from danskin.run import lock
from danskin.run.recipe import override, parse_mapping, read_mapping, to_yaml
from danskin.run.schema import build, plain


class RunConfig(Protocol):
    """The config of one kind of run: a frozen dataclass."""

    #: The command that makes such runs.
    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Of the recipe."""
        ...


Config = TypeVar("Config", bound=RunConfig)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()


class Record:
    """The folder of one run.

    Layout: config.yaml, command.txt, environment.json, status.json, metrics.jsonl (append only),
    checkpoints/MODEL/{last.pt,best.safetensors,last.safetensors}, result.json, examples.npz, figures/,
    report.html. Nothing is overwritten by another run; all but metrics.jsonl is written atomically.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metrics: Any = None

    @staticmethod
    def create(config: RunConfig, root: Path, out: Path | None = None) -> Record:
        """A new folder runs/<recipe>/<UTC time>-<6 hex digits of the config>, or `out`.

        Raises:
            ConfigError: `out` exists and is not empty.
            MissingError: it cannot be made or written.
        """
        text = to_yaml(config)
        if out is None:
            out = _new_folder(root / config.name, hashlib.sha256(text.encode()).hexdigest()[:6])
        elif out.exists() and (not out.is_dir() or any(p.name != lock.NAME for p in out.iterdir())):
            raise ConfigError(
                f"{out}: expected a new or empty folder, got one with content; choose another, or go on with "
                f"danskin {config.kind} --resume {out}"
            )
        make_folder(out, _ELSEWHERE)
        record = Record(out)
        write_text(out / "config.yaml", to_yaml({"kind": config.kind} | plain(config)))
        write_text(out / "command.txt", " ".join(sys.argv) + "\n")
        write_json(out / "environment.json", environment())
        record.status("running", "started")
        return record

    @staticmethod
    def open(folder: Path, kind: type[Config]) -> tuple[Record, Config]:
        """An existing run and its config; what a kill left half-written in it is taken away.

        Raises:
            MissingError: there is no run in this folder.
            ConfigError: it is of another kind.
        """
        config, record = read_config(folder, kind), Record(folder)
        try:
            cut_torn_line(folder / "metrics.jsonl")
            for left in folder.rglob(".*.tmp"):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise MissingError(
                f"{folder}: expected to write in the run's folder, got {error}", "see who owns it"
            ) from error
        return record, config

    def checkpoints(self, label: str) -> Path:
        """The folder of a model's checkpoints."""
        return self.folder / "checkpoints" / label

    def status(self, state: str, message: str) -> None:
        """Say where the run stands: running, finished, failed or interrupted."""
        path = self.folder / "status.json"
        old = _read_or_none(path) or {}
        ended = None if state == "running" else now()
        started = old.get("started", now())
        write_json(path, {"state": state, "message": message, "started": started, "ended": ended, "pid": os.getpid()})

    @contextlib.contextmanager
    def running(self, main: bool = True) -> Iterator[None]:
        """Keep status.json true however the run ends; `main`: whether this process writes."""

        def say(state: str, message: str) -> None:
            if main:
                with contextlib.suppress(Exception):
                    self.status(state, message)

        say("running", "training")
        try:
            yield
        except KeyboardInterrupt:
            say("interrupted", "stopped by the user; go on with --resume")
            raise
        except BaseException as error:
            say("failed", f"{type(error).__name__}: {error}")
            raise
        else:
            say("finished", "done")
        finally:
            self.close()

    def result(self) -> dict[str, Any] | None:
        """What a finished run found; None before, or where the files that say so cannot be read: it is judged again."""
        status, result = (_read_or_none(self.folder / name) for name in ("status.json", "result.json"))
        return result if (status or {}).get("state") == "finished" else None

    def event(self, event: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if self._metrics is None:
            self._metrics = open_to_append(self.folder / "metrics.jsonl")
        append_line(self._metrics, self.folder / "metrics.jsonl", event)

    def close(self) -> None:
        """Close the metrics file."""
        metrics, self._metrics = self._metrics, None
        if metrics is not None:
            with contextlib.suppress(OSError):  # of a full disk; `event` has told
                metrics.close()


_ELSEWHERE = "choose another with --out or --runs"


def read_config(folder: Path, kind: type[Config], overrides: Iterable[str] = ()) -> Config:
    """The config of the run in a folder, with settings laid over it.

    Raises:
        MissingError: there is no run in this folder.
        ConfigError: it is of another kind, or its config cannot be read.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise MissingError(f"{folder}: expected the folder of a run, got no config.yaml there", "ls runs/*")
    return _config(read_mapping(path), kind, str(folder), overrides)


def config_in(text: str, kind: type[Config], source: str, overrides: Iterable[str] = ()) -> Config:
    """The same of a config that is kept as text in another file."""
    return _config(parse_mapping(text, source), kind, source, overrides)


def _config(node: dict[str, Any], kind: type[Config], source: str, overrides: Iterable[str]) -> Config:
    found = node.pop("kind", kind.kind)
    if found != kind.kind:
        raise ConfigError(
            f"{source}: expected a run of danskin {kind.kind}, got one of danskin {found}; use that command"
        )
    config: Config = build(kind, override(node, overrides))
    return config


def _new_folder(parent: Path, suffix: str) -> Path:
    """A folder named by the time that no other process has."""
    make_folder(parent, _ELSEWHERE)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    for i in range(1000):
        folder = parent / f"{stamp}-{suffix}{f'-{i}' if i else ''}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise MissingError(f"{parent}: expected a free name for the run, got a thousand of this second", _ELSEWHERE)


def _read_or_none(path: Path) -> dict[str, Any] | None:
    """The mapping in a file that can be made anew; None, with a warning, where it cannot be read."""
    if not path.exists():
        return None
    try:
        return read_json(path)
    except (CheckpointError, MissingError) as error:
        warnings.warn(f"{error} (it is made anew)", DanskinWarning, stacklevel=3)
        return None


def environment() -> dict[str, Any]:
    """What a result depends on besides the config."""
    names = ("torch", "numpy", "scikit-learn", "pydantic", "ruamel.yaml", "safetensors")
    packages = {}
    for name in names:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "danskin": danskin.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch_build": torch.version.git_version,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "packages": packages,
        "git": _git(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _git() -> dict[str, str] | None:
    """Commit and a digest of uncommitted changes of the checkout danskin runs from, if it is one."""

    def ask(*words: str) -> bytes:
        here = Path(danskin.__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, timeout=10, check=True).stdout

    try:
        diff = ask("diff", "HEAD", "--", ".")
        digest = hashlib.sha256(diff).hexdigest()[:12] if diff else ""
        return {"commit": ask("rev-parse", "HEAD").decode().strip(), "uncommitted": digest}
    except (OSError, subprocess.SubprocessError):
        return None
