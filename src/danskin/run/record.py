"""A run is a folder: config, command, environment, status, metrics, checkpoints, results, report."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import danskin
from danskin.errors import ConfigError, MissingError
from danskin.files import write_json, write_text
from danskin.run.config import TrainConfig
from danskin.run.recipe import parse_yaml, to_yaml
from danskin.run.schema import build


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
    def create(config: TrainConfig, root: Path, out: Path | None = None) -> Record:
        """A new folder runs/<recipe>/<UTC time>-<6 hex digits of the config>, or `out`.

        Raises:
            ConfigError: `out` exists and is not empty.
        """
        text = to_yaml(config)
        if out is None:
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
            base = root / config.name / f"{stamp}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
            out = next(p for i in range(1000) if not (p := Path(f"{base}{f'-{i}' if i else ''}")).exists())
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(
                f"{out}: expected a new or empty folder, got one with content; choose another, or go on with "
                f"danskin train --resume {out}"
            )
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MissingError(
                f"{out}: expected to make the folder of the run, got {error}", "choose another with --out or --runs"
            ) from error
        record = Record(out)
        write_text(out / "config.yaml", text)
        write_text(out / "command.txt", " ".join(sys.argv) + "\n")
        write_json(out / "environment.json", environment())
        record.status("running", "started")
        return record

    @staticmethod
    def open(folder: Path) -> tuple[Record, TrainConfig]:
        """An existing run and its config.

        Raises:
            MissingError: there is no run in this folder.
        """
        path = folder / "config.yaml"
        if not path.is_file():
            raise MissingError(f"{folder}: expected the folder of a run, got no config.yaml there", "ls runs/*")
        record = Record(folder)
        record._mend_metrics()
        for left in folder.rglob(".*.tmp"):  # by a kill in the middle of a write
            left.unlink(missing_ok=True)
        return record, build(TrainConfig, parse_yaml(path.read_text(encoding="utf-8"), str(path)))

    def checkpoints(self, label: str) -> Path:
        """The folder of a model's checkpoints."""
        return self.folder / "checkpoints" / label

    def status(self, state: str, message: str) -> None:
        """Say where the run stands: running, finished, failed or interrupted."""
        path = self.folder / "status.json"
        old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        ended = None if state == "running" else now()
        started = old.get("started", now())
        write_json(path, {"state": state, "message": message, "started": started, "ended": ended, "pid": os.getpid()})

    def result(self) -> dict[str, Any] | None:
        """What a finished run found; None before."""
        status, result = self.folder / "status.json", self.folder / "result.json"
        if not (status.is_file() and result.is_file()):
            return None
        finished = json.loads(status.read_text(encoding="utf-8"))["state"] == "finished"
        return json.loads(result.read_text(encoding="utf-8")) if finished else None

    def event(self, event: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if self._metrics is None:
            self._metrics = open(self.folder / "metrics.jsonl", "a", encoding="utf-8")
        try:
            self._metrics.write(json.dumps(event) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise MissingError(
                f"{self.folder / 'metrics.jsonl'}: expected to append a line, got {error}",
                "free some space, then go on with --resume",
            ) from error

    def _mend_metrics(self) -> None:
        """Cut a line that a kill left half-written; it will be written again."""
        path = self.folder / "metrics.jsonl"
        if path.is_file():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                with open(path, "r+b") as stream:
                    stream.truncate(len(whole))

    def close(self) -> None:
        """Close the metrics file."""
        metrics, self._metrics = self._metrics, None
        if metrics is not None:
            with contextlib.suppress(OSError):  # of a full disk; `event` has told
                metrics.close()


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
