"""Progress on stderr and the result table on stdout, with rich."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Column, Table

SAY_EVERY = 30  # seconds between two lines on how far a long stage is, without a terminal


def bar_for(console: Console, *, counts: bool, shown: bool) -> Bar:
    """A bar whose line fits the terminal: its name, how far, time gone and left, and of the note what has room."""
    how_far = MofNCompleteColumn() if counts else TaskProgressColumn()
    return Bar(
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=18)),
        BarColumn(bar_width=12),
        how_far,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        console=console,
        expand=True,
        disable=not shown,
    )


class _Shown:
    """A bar on stderr while a command works: on a terminal only, and not when quiet."""

    def __init__(self, quiet: bool, *, counts: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.terminal = sys.stderr.isatty() and not quiet
        self.bar = bar_for(self.console, counts=counts, shown=self.terminal)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def task(self, name: str, total: float | None) -> TaskID:
        """The line of this name, made when it is first asked for."""
        if name not in self.tasks:
            self.tasks[name] = self.bar.add_task(escape(name), total=total, note="")
        return self.tasks[name]


class Progress(_Shown):
    """A bar on a terminal; a line per epoch elsewhere; nothing when quiet.

    Args:
        epochs: of a model, by its label.
        quiet: show nothing.
    """

    def __init__(self, epochs: Callable[[str], int], quiet: bool) -> None:
        super().__init__(quiet, counts=True)
        self.epochs = epochs

    def event(self, event: dict[str, Any]) -> None:
        """Show one event of training or evaluation."""
        label = event["model"]
        match event["event"]:
            case "step":
                gauges = "".join(f", {name} {value:.3g}" for name, value in list(event.get("gauges", {}).items())[:3])
                note = f"loss {event['loss']:.3f}{gauges}"
                self.bar.update(self.task(label, event["of"]), completed=event["step"], note=note)
            case "epoch":
                self._epoch(label, event)
            case "catastrophic_overfitting":
                self.console.print(
                    f"[bold red]{label}: catastrophic overfitting at step {event['step']}[/]: accuracy "
                    f"{100 * event['fgsm']:.1f} % under FGSM, {100 * event['pgd']:.1f} % under PGD"
                )
            case "evaluate" if not self.terminal:
                self.console.print(f"{label}: evaluating {event['what']}", highlight=False)
            case "evaluate":
                self.bar.update(self.task("evaluate", None), note=f"{label}: {event['what']}")

    def _epoch(self, label: str, event: dict[str, Any]) -> None:
        robust = "" if event["robust"] is None else f", robust {100 * event['robust']:.1f} %"
        robust += f" (worst class {100 * event['worst_class']:.1f} %)" if "worst_class" in event else ""
        text = (
            f"{label}: epoch {event['epoch']}/{self.epochs(label)}, loss {event['train_loss']:.3f}, "
            f"clean {100 * event['clean']:.1f} %{robust}"
        )
        if self.terminal:
            if label in self.tasks:
                self.bar.update(self.tasks[label], completed=event["step"], note=text.split(", ", 1)[1])
        else:
            self.console.print(text, highlight=False)


class GANProgress(_Shown):
    """A bar of generator steps on a terminal; elsewhere a line for each look at the samples; flags always.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet, counts=True)
        self.looked = ""

    def event(self, event: dict[str, Any]) -> None:
        """Show one event of a GAN run."""
        match event["event"]:
            case "step":
                note = f"critic {event['critic_loss']:.3g}, generator {event['generator_loss']:.3g}{self.looked}"
                self.bar.update(self.task("gan", event["of"]), completed=event["step"], note=note)
            case "judged":
                modes = f", {event['modes']} of {event['of_modes']} modes" if "modes" in event else ""
                text = f"W1 {event['w1']:.3f} (floor {event['w1_floor']:.3f}){modes}"
                self.looked = f"; {text}"
                if not self.terminal:
                    self.console.print(f"step {event['step']}: {text}", highlight=False)
            case "flag":
                self.console.print(f"[bold red]step {event['step']}: {event['flag']}[/]: {event['text']}")
            case "evaluate" if not self.terminal:
                self.console.print(f"judging {event['what']}", highlight=False)


class JudgingProgress(_Shown):
    """A bar with the time left on a terminal; a line for each stage of each chunk; nothing when quiet.

    Where there is no terminal, a long stage says how far it is every half minute.

    Args:
        quiet: show nothing.
        clock: seconds from any start.
    """

    def __init__(self, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(quiet, counts=False)
        self.clock, self.said = clock, clock()
        self.began: dict[str, tuple[float, float]] = {}  # work -> when it was first heard of, and how far it was

    def event(self, event: dict[str, Any]) -> None:
        """How far a stage is ("done" of "total"), or what came of it ("state"). A bar for each work."""
        if "state" not in event:
            self._far(event["stage"], event["done"], event["total"], event.get("work", event["stage"]))
        elif event["state"] == "chosen":
            self.console.print(f"search: {event['form']}, the quickest here", highlight=False)
        elif event["state"] == "certified":
            self.console.print(event["found"], highlight=False, markup=False)
        elif event["state"] == "done":
            text = f"chunk {event['chunk']}: {event['stage']} broke {event['broken']} of {event['examples']}"
            self.console.print(f"{text} in {event['seconds']:.1f} s", highlight=False)

    def _far(self, stage: str, done: float, total: float | None, work: str) -> None:
        """How far the stages of one work are: `done` of `total`, all stages of it together."""
        began, first = self.began.setdefault(work, (self.clock(), done))
        if self.terminal:
            self.bar.update(self.task(work, total), completed=done, total=total, note=escape(stage))
            return
        now = self.clock()
        if total and now - self.said >= SAY_EVERY and done > first:
            self.said = now
            left = (now - began) * (total - done) / (done - first)
            text = f"{work}: {stage}, {100 * done / total:.0f} %, about {duration(left)} left"
            self.console.print(text, highlight=False)


def duration(seconds: float) -> str:
    """Seconds as text.

    >>> duration(42.3), duration(100), duration(5000)
    ('42 s', '1 min 40 s', '1 h 23 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def results_table(result: dict[str, Any]) -> None:
    """Clean, each attack and worst case of every model, on stdout."""
    from danskin.report.training import table_rows

    header, rows = table_rows(result)
    table = Table(
        title=f"Accuracy on {result['data']['test']} test examples of {result['data']['name']}", title_justify="left"
    )
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if console.width < 100 and not console.is_terminal:
        console = Console(width=140)
    console.print(table)
