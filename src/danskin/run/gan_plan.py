"""What a GAN run will cost, before it is started."""

from __future__ import annotations

import time

from danskin.data import load as load_data
from danskin.run.gan import GANConfig, new_networks
from danskin.run.runtime import Runtime

_BEFORE, _TIMED = 3, 5


def timed(config: GANConfig) -> float:
    """Seconds of a generator step, with the critic steps before it, on networks that are thrown away.

    Raises:
        MissingError: the data are not there.
    """
    runtime = Runtime.start(config.device, config.threads)
    data = load_data(config.data.name, config.data.folder, download=config.data.download)
    data = data.limit(config.data.train, config.data.test)
    data.check_trainable()
    x = data.x_train.to(runtime.device)
    networks = new_networks(config, data.image_shape, runtime.device)
    run = config.trainer.start(*networks, config.latent, config.seed)
    for _ in range(_BEFORE):
        run.step(x)
    started = time.perf_counter()
    for _ in range(_TIMED):
        run.step(x)
    return (time.perf_counter() - started) / _TIMED


def plan(config: GANConfig) -> str:
    """Steps and a time estimate from a few of them."""
    trainer, seconds = config.trainer, timed(config)
    return (
        f"{trainer.steps} generator steps, {trainer.critic_steps} critic steps before each, of {trainer.batch_size} "
        f"examples, {seconds:.4f} s each: about {seconds * trainer.steps:.0f} s of training, judging not counted"
    )
