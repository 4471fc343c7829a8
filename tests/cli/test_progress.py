"""What is shown while a command works: bars that fit 80 columns, lines without a terminal, nothing when quiet."""

import io
import sys

import pytest
from rich.console import Console

from danskin.cli import progress
from danskin.cli.progress import JudgingProgress, Progress, bar_for


class Terminal(io.StringIO):
    def isatty(self):
        return True


def far(done, total=1000, work="attacks", stage="apgd-ce"):
    return {"work": work, "stage": stage, "done": done, "total": total}


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("width", [80, 60, 120])
def test_a_bar_is_one_line_of_the_terminal(width, counts):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    bar = bar_for(console, counts=counts, shown=True)
    task = bar.add_task("adversarial_with_a_long_label", total=123456, note="")
    bar.update(task, completed=77777, note="loss 0.123, misalignment 0.523, elle 0.1234, lambda 4e+03, weight 0.3")
    with console.capture() as shown:
        console.print(bar.get_renderable())
    (line,) = shown.get().splitlines()
    assert len(line.rstrip("\n")) <= width
    if width >= 80:
        assert "left" in line and "loss" in line and ("77777/123456" if counts else "63%") in line


def test_events_move_bars_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with JudgingProgress(quiet=False) as shown:
        for done in (0, 250, 1000):
            shown.event(far(done))
        shown.event(far(3, 200, work="certificates", stage="crown"))
        shown.event({"stage": "alpha-crown", "done": 7, "total": 50})  # without a work: a bar of its own
        tasks = {t.description: (t.completed, t.total) for t in shown.bar.tasks}
    assert tasks == {"attacks": (1000, 1000), "certificates": (3, 200), "alpha-crown": (7, 50)}


def test_lines_without_a_terminal_say_how_long_it_will_take(capsys, monkeypatch):
    now = [0.0]
    shown = JudgingProgress(quiet=False, clock=lambda: now[0])
    for seconds, done in ((0, 0), (10, 100), (40, 400), (50, 500), (100, 900)):
        now[0] = seconds
        shown.event(far(done))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["attacks: apgd-ce, 40 %, about 1 min 0 s left", "attacks: apgd-ce, 90 %, about 11 s left"]


def test_quiet_and_unknown_totals_say_nothing(capsys):
    now = [0.0]
    quiet, open_end = (JudgingProgress(q, clock=lambda: now[0]) for q in (True, False))
    for done in range(3):
        now[0] += progress.SAY_EVERY + 1
        quiet.event(far(done))
        open_end.event(far(done, None))
    assert capsys.readouterr().err == ""


def test_training_moves_its_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(2, quiet=False) as shown:
        shown.event({"event": "step", "model": "adversarial", "step": 21, "of": 100, "loss": 0.5, "lr": 0.1})
        (task,) = shown.bar.tasks
    assert (task.completed, task.total, task.fields["note"]) == (21, 100, "loss 0.500")
