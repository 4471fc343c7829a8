"""`danskin train`."""

from __future__ import annotations

from typing import Any

from danskin.cli.running import Command, carry_out


def train(*words_and_options: Any) -> None:
    """Start or go on with a run; see `carry_out` for the arguments."""
    from danskin.cli.progress import Progress, results_table
    from danskin.report.training import write_report
    from danskin.run.config import TrainConfig, load_config
    from danskin.run.plan import plan
    from danskin.run.train import train as run_training

    command = Command(
        name="train",
        recipe="digits",
        config=TrainConfig,
        load=load_config,
        plan=plan,
        run=run_training,
        progress=lambda config, quiet: Progress(lambda label: config.trainer_of(label).epochs, quiet),
        show=results_table,
        report=write_report,
    )
    carry_out(command, *words_and_options)
