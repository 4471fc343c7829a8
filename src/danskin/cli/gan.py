"""`danskin gan`."""

from __future__ import annotations

from typing import Any

import typer

from danskin.cli.running import Command, carry_out


def gan(*words_and_options: Any) -> None:
    """Start or go on with a run; see `carry_out` for the arguments."""
    from danskin.cli.progress import GANProgress
    from danskin.report.gan import result_lines, write_gan_report
    from danskin.run.gan import GANConfig, load_gan_config, train_gan
    from danskin.run.gan_plan import plan

    command = Command(
        name="gan",
        recipe="gan_8_gaussians",
        config=GANConfig,
        load=load_gan_config,
        plan=plan,
        run=train_gan,
        progress=lambda config, quiet: GANProgress(quiet),
        show=lambda result: typer.echo("\n".join(result_lines(result))),
        report=write_gan_report,
    )
    carry_out(command, *words_and_options)
