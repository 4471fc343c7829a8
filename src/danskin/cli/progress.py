"""Progress on stderr and the result table on stdout, with rich."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from danskin.run.config import TrainConfig


class Progress:
    """A bar on a terminal; a line per epoch elsewhere; nothing when quiet."""

    def __init__(self, config: TrainConfig, quiet: bool) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet)
        self.terminal = sys.stderr.isatty() and not quiet
        columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        more = (TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        self.bar = Bar(*columns, *more, console=self.console, disable=not self.terminal)
        self.tasks: dict[str, TaskID] = {}
        self.epochs = config.trainer.epochs

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def event(self, event: dict[str, Any]) -> None:
        """Show one event of training or evaluation."""
        label = event["model"]
        match event["event"]:
            case "step":
                if label not in self.tasks:
                    self.tasks[label] = self.bar.add_task(label, total=event["of"], note="")
                gauges = "".join(f", {name} {value:.3g}" for name, value in list(event.get("gauges", {}).items())[:3])
                note = f"loss {event['loss']:.3f}{gauges}"
                self.bar.update(self.tasks[label], completed=event["step"], note=note)
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
                if "evaluate" not in self.tasks:
                    self.tasks["evaluate"] = self.bar.add_task("evaluate", total=None, note="")
                self.bar.update(self.tasks["evaluate"], note=f"{label}: {event['what']}")

    def _epoch(self, label: str, event: dict[str, Any]) -> None:
        robust = "" if event["robust"] is None else f", robust {100 * event['robust']:.1f} %"
        robust += f" (worst class {100 * event['worst_class']:.1f} %)" if "worst_class" in event else ""
        text = (
            f"{label}: epoch {event['epoch']}/{self.epochs}, loss {event['train_loss']:.3f}, "
            f"clean {100 * event['clean']:.1f} %{robust}"
        )
        if self.terminal:
            if label in self.tasks:
                self.bar.update(self.tasks[label], completed=event["step"], note=text.split(", ", 1)[1])
        else:
            self.console.print(text, highlight=False)


class JudgingProgress:
    """A line per stage of each chunk on stderr; nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet)

    def __enter__(self) -> JudgingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def event(self, event: dict[str, Any]) -> None:
        """Show one event of an evaluation."""
        if event["state"] == "chosen":
            self.console.print(f"search: {event['form']}, the quickest here", highlight=False)
        elif event["state"] == "done":
            text = f"chunk {event['chunk']}: {event['stage']} broke {event['broken']} of {event['examples']}"
            self.console.print(f"{text} in {event['seconds']:.1f} s", highlight=False)


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
