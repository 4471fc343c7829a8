"""Run the seeds of a plan: one ordinary training run each, then a look at its weights; several at a time.

A seed that is finished is left alone, one that was interrupted goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from danskin import errors
from danskin.errors import DanskinError
from danskin.recipes.judge import judge, read_cells
from danskin.recipes.rows import Column, Plan
from danskin.run.config import TrainConfig
from danskin.run.interrupts import term_as_interrupt
from danskin.run.lock import locked
from danskin.run.record import Record
from danskin.run.runtime import Runtime
from danskin.run.train import train

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """One run: its config, where it is kept, and what is looked at."""

    config: TrainConfig
    folder: Path
    columns: tuple[Column, ...]
    weights: tuple[str, ...]
    label: str
    quiet: bool = False

    @property
    def finished(self) -> bool:
        """Whether every cell is there."""
        known = {(c["method"], c["weights"], c["column"]) for c in read_cells(self.folder)}
        return known >= {(m, w, c.name) for m in self.config.objectives for w in self.weights for c in self.columns}


def tasks_of(plan: Plan, out: Path, quiet: bool = False) -> list[Task]:
    """The runs of a plan."""
    return [
        Task(
            plan.config(case, seed),
            run_folder(out, case, seed),
            plan.columns[case],
            plan.weights,
            f"{case} seed {seed}".strip(),
            quiet,
        )
        for case, seed in plan.tasks()
    ]


def run_folder(out: Path, case: str, seed: int) -> Path:
    """Where a run is kept."""
    return out / case / f"seed-{seed}"


def default_jobs(plan: Plan) -> int:
    """As many runs at a time as there are cores, where each uses one thread and none a GPU."""
    alone = torch.cuda.is_available() or any(c.threads != 1 or c.device == "cuda" for c in plan.cases.values())
    return 1 if alone else max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def work(tasks: list[Task], jobs: int) -> None:
    """Do all tasks that are not finished.

    Raises:
        DanskinError: what a run ended with; the others are stopped and can go on.
        KeyboardInterrupt: after every run has saved a checkpoint.
    """
    tasks = [task for task in tasks if not task.finished]
    if jobs <= 1 or len(tasks) <= 1:
        for task in tasks:
            do(task)
        return
    _Pool(tasks, jobs).run()


def do(task: Task, parent: int | None = None) -> None:
    """One run, from wherever it is to its last cell."""
    config = task.config

    def listen(event: dict[str, Any]) -> None:
        if (
            parent is not None and os.getppid() != parent
        ):  # killed: nobody waits for this run, and another may resume it
            os._exit(errors_code("KeyboardInterrupt"))
        text = None if task.quiet else line_of(event, config.trainer_of(event["model"]).epochs)
        if text:
            print(f"{task.label}  {text}", file=sys.stderr, flush=True)

    runtime = Runtime.start(config.device, config.threads, config.deterministic)
    try:
        with locked(task.folder):
            train(config, opened(task), runtime, listen)
            judge(config, task.columns, task.weights, Record(task.folder), runtime.device, listen)
    finally:
        runtime.close()


def opened(task: Task) -> Record:
    """The run's folder, new or as it was left.

    Raises:
        ConfigError: it holds a run of another config.
    """
    if (task.folder / "config.yaml").is_file():
        record, known = Record.open(task.folder, TrainConfig)
        if known != task.config:
            raise errors.ConfigError(
                f"{task.folder}: expected a run of this very config, got one of another; choose another --out"
            )
        return record
    for left in task.folder.glob(".*.tmp"):  # by a kill in the middle of the first write
        left.unlink()
    return Record.create(task.config, task.folder.parent, task.folder)


def line_of(event: dict[str, Any], epochs: int) -> str | None:
    """An event as a line of progress, or None."""
    match event["event"]:
        case "epoch":
            robust = "" if event["robust"] is None else f", robust {100 * event['robust']:.1f} %"
            return (
                f"{event['model']}: epoch {event['epoch']}/{epochs}, loss {event['train_loss']:.3f}, "
                f"clean {100 * event['clean']:.1f} %{robust}, {event['seconds']:.1f} s"
            )
        case "evaluate":
            return f"{event['model']}: evaluating {event['what']}"
        case "catastrophic_overfitting":
            return f"{event['model']}: catastrophic overfitting at step {event['step']}"
    return None


_KINDS = ("ConfigError", "InputError", "ModelError", "DivergenceError", "CheckpointError", "MissingError")
_INTERRUPTED = 130


def errors_code(kind: str) -> int:
    """The exit code by which a worker says how it ended."""
    return _INTERRUPTED if kind == "KeyboardInterrupt" else 1


def _worker(task: Task, parent: int, sender: Any) -> None:
    """`do` in a process of its own; says what went wrong through the pipe."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C reaches the parent alone, which asks once: asked twice, a run breaks off without saving
    try:
        with term_as_interrupt():
            do(task, parent)
    except KeyboardInterrupt:
        sys.exit(errors_code("KeyboardInterrupt"))
    except DanskinError as error:
        kind = next((k for k in _KINDS if type(error).__name__ == k), "ModelError")
        sender.send((kind, f"{task.label}: {error}"))
        sys.exit(1)


class _Pool:
    """At most `jobs` processes at a time, one run each."""

    def __init__(self, tasks: list[Task], jobs: int) -> None:
        self.waiting, self.jobs = list(tasks), jobs
        self.context = multiprocessing.get_context("spawn")
        self.running: dict[Any, tuple[Any, Any, Task]] = {}

    def run(self) -> None:
        """Until all are done, one failed, or the user stops."""
        with term_as_interrupt():
            try:
                while self.waiting or self.running:
                    while self.waiting and len(self.running) < self.jobs:
                        self._start(self.waiting.pop(0))
                    for sentinel in multiprocessing.connection.wait(list(self.running)):
                        self._finish(*self.running.pop(sentinel))
            except BaseException:
                self._stop()
                raise

    def _start(self, task: Task) -> None:
        receiver, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_worker, args=(task, os.getpid(), sender))
        process.start()
        sender.close()
        self.running[process.sentinel] = process, receiver, task

    def _finish(self, process: Any, receiver: Any, task: Task) -> None:
        process.join()
        if process.exitcode == _INTERRUPTED:
            raise KeyboardInterrupt
        if process.exitcode:
            try:
                kind, text = receiver.recv()
            except EOFError:
                raise RuntimeError(
                    f"{task.label}: ended with exit code {process.exitcode}; go on with --resume"
                ) from None
            raise getattr(errors, kind)(text)

    def _stop(self) -> None:
        """Ask all to save a checkpoint and end, and wait for it."""
        for process, _, _ in self.running.values():
            process.terminate()
        for process, _, _ in self.running.values():
            process.join()
