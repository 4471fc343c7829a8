"""`danskin gan`: from a config to a finished run folder, resumable at any moment. Lecture: rows F1 to F7.

The folder holds config.yaml, status.json, metrics.jsonl (events "step", "judged" and "flag"), samples/STEP.npz (always
of the same latents; images as STEP.png, too), checkpoints/last.pt, generator.safetensors and critic.safetensors (of the
end), result.json and report.html.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import danskin
from danskin.data import DATASETS, Dataset
from danskin.data import load as load_data
from danskin.data.loading import spelled
from danskin.errors import CheckpointError, ConfigError, suggest
from danskin.files import write_atomically, write_json
from danskin.foreign.factory import model_from_code
from danskin.gan.loop import GANRun
from danskin.gan.networks import CRITICS, GENERATORS, Network
from danskin.gan.trainer import GANTrainer
from danskin.gan.watch import MEANINGS, Watch
from danskin.models import describe
from danskin.report.gan_figures import grid
from danskin.report.pictures import png_bytes
from danskin.run import checkpoint
from danskin.run.gan_judging import Judge, JudgingConfig
from danskin.run.interrupts import stop_between_steps
from danskin.run.own_set import names_code
from danskin.run.recipe import GAN_RECIPES, override, read_recipe, to_yaml
from danskin.run.record import Record, environment
from danskin.run.runtime import Runtime
from danskin.run.schema import build, plain
from danskin.run.train import npz_bytes

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class GANData:
    """Which data.

    Args:
        name: a name of `danskin list data`, "folder:/path" or "npz:/path/file.npz".
        folder: where the files are; default $DANSKIN_DATA or the user cache.
        download: fetch the set when it is not found.
        train: use the first so many training examples only.
        test: use the first so many test examples only.
    """

    name: str = "gaussians_8"
    folder: str | None = None
    download: bool = False
    train: int | None = None
    test: int | None = None


@dataclass(frozen=True)
class GANConfig:
    """A whole GAN run: data, networks, how they are trained and judged.

    Args:
        name: of the recipe; names the run folder.
        data: see `GANData`.
        generator: mlp, conv, or package.module:factory with its options.
        critic: likewise.
        latent: dimensions of the standard normal latent vector.
        trainer: see `danskin.gan.GANTrainer`.
        judging: see `JudgingConfig`.
        seed: of weights, latents and batches.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        threads: CPU threads of torch; 0 leaves torch's choice.
        deterministic: ask torch for deterministic algorithms on every device.
        checkpoint_every: generator steps between checkpoints.
        log_every: generator steps between lines of metrics.
    """

    kind: ClassVar[str] = "gan"

    name: str = "gan"
    data: GANData = field(default_factory=GANData)
    generator: Network = field(default_factory=Network)
    critic: Network = field(default_factory=Network)
    latent: int = 2
    trainer: GANTrainer = field(default_factory=GANTrainer)
    judging: JudgingConfig = field(default_factory=JudgingConfig)
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    deterministic: bool = False
    checkpoint_every: int = 500
    log_every: int = 10

    def __post_init__(self) -> None:
        for name, least in (("latent", 1), ("seed", 0), ("threads", 0), ("checkpoint_every", 1), ("log_every", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, got {getattr(self, name)}; correct it")


def load_gan_config(source: str | Path, assignments: list[str] | tuple[str, ...] = ()) -> GANConfig:
    """The config of a recipe with settings laid over it.

    Raises:
        ConfigError: unknown keys, values that do not fit, or a data set that is not known.
    """
    return gan_config_of(override(read_recipe(source, GAN_RECIPES), assignments))


def gan_config_of(node: dict[str, Any]) -> GANConfig:
    """The config that plain data say."""
    config: GANConfig = build(GANConfig, node)
    config = build(GANConfig, plain(config))  # defaults, too, as they will be read back
    name = config.data.name
    if ":" not in spelled(name) and name not in DATASETS:
        raise ConfigError(f"data.name: expected a known data set, got {name!r}; {suggest(name, DATASETS)}")
    return config


def new_networks(config: GANConfig, shape: tuple[int, ...], device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Generator and critic with weights drawn from the seed; the global random state is left alone."""
    given: dict[str, Any] = {"shape": shape}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        # images are in [0, 1]
        generator = _network(
            config.generator, GENERATORS, "generator",
            given | {"latent": config.latent, "range": "unit" if len(shape) == 3 else "any"},
        )  # fmt: skip
        critic = _network(config.critic, CRITICS, "critic", given | {"constraint": config.trainer.constraint})
    return generator.to(device), critic.to(device)


def _network(asked: Network, of: dict[str, Callable[..., nn.Module]], what: str, given: dict[str, Any]) -> nn.Module:
    if names_code(asked.name):
        found: nn.Module = model_from_code(asked.name, asked.options, what)
        return found
    return asked.build(of, what, **given)


def train_gan(
    config: GANConfig, record: Record, runtime: Runtime, listen: Listener = lambda event: None
) -> dict[str, Any]:
    """Train, judge while training and at the end, and write result.json, samples and weights.

    Returns:
        What result.json holds. A run that is finished is left alone.

    Raises:
        DivergenceError: a loss or a weight is no longer finite.
        KeyboardInterrupt: asked to stop; a checkpoint is saved.
    """
    done = runtime.share(record.result() if runtime.main else None)
    if done is not None:
        return done
    with record.running(runtime.main):
        work = _Work(config, record, runtime, listen)
        work.train()
        return work.finish()


class _Work:
    """One run between its first step and its result."""

    def __init__(self, config: GANConfig, record: Record, runtime: Runtime, listen: Listener) -> None:
        self.config, self.record, self.runtime, self.listen = config, record, runtime, listen
        data = load_data(config.data.name, config.data.folder, download=config.data.download)
        self.data: Dataset = data.limit(config.data.train, config.data.test)
        self.data.check_trainable()
        networks = new_networks(config, self.data.image_shape, runtime.device)
        self.run: GANRun = config.trainer.start(*networks, config.latent, config.seed, runtime)
        self._check_shapes(networks[0])
        self.judge = Judge(config.judging, self.data, config.seed)
        self.watch, self.seconds = Watch(), 0.0
        self.last = record.folder / "checkpoints" / "last.pt"
        if runtime.share(self.last.is_file()):
            self._load()

    def _check_shapes(self, generator: nn.Module) -> None:
        made, wanted = tuple(self.run.sample(2).shape[1:]), self.data.image_shape
        if made != wanted:
            raise ConfigError(f"generator: expected examples of shape {wanted} as in the data, got {made}; correct it")

    def _load(self) -> None:
        saved = checkpoint.load(self.last)
        if set(saved) != {"run", "watch", "seconds", "config"} or saved["config"] != to_yaml(self.config):
            raise CheckpointError(f"{self.last}: expected a checkpoint of this very run, got another; delete it")
        self.run.load_state_dict(saved["run"])
        self.watch.load_state_dict(saved["watch"])
        self.seconds = saved["seconds"]

    def _save(self) -> None:
        for net in (self.run.generator, self.run.critic):
            self.runtime.average_buffers(net)
        if self.runtime.main:
            state = {"run": self.run.state_dict(), "watch": self.watch.state_dict(), "seconds": self.seconds}
            checkpoint.save(self.last, state | {"config": to_yaml(self.config)})
        self.runtime.barrier()

    def train(self) -> None:
        """All steps that are left."""
        config, run, steps = self.config, self.run, self.config.trainer.steps
        x = self.data.x_train.to(self.runtime.device)
        every = config.judging.every or max(steps // 10, 1)
        if run.t == 0:
            if self.runtime.main:
                self._write_samples("real", self.judge.real_shown)
            self._judged()
        with stop_between_steps() as stop:
            while run.t < steps:
                started = time.perf_counter()
                told = run.step(x)
                self.seconds += time.perf_counter() - started
                last = run.t == steps
                if run.t % config.log_every == 0 or last or run.t == 1:
                    self._report(told)
                if run.t % every == 0 and not last:
                    self._judged()
                stopping = self._any(stop()) if run.t % config.log_every == 0 or self.runtime.world == 1 else False
                if run.t % config.checkpoint_every == 0 or last or stopping:
                    run.check_finite(told)
                    self._save()
                if stopping:
                    raise KeyboardInterrupt

    def _any(self, mine: bool) -> bool:
        if self.runtime.world == 1:
            return mine
        return bool(self.runtime.sum(torch.tensor(float(mine), device=self.runtime.device)) > 0)

    def _report(self, told: dict[str, Tensor]) -> None:
        names = sorted(told)
        values = self.runtime.sum(torch.stack([told[n].double() for n in names])) / self.runtime.world
        self.run.check_finite(dict(zip(names, values.unbind(), strict=True)))
        numbers = {n: float(v) for n, v in zip(names, values, strict=True)}
        t = self.run.t
        self._event({"event": "step", "step": t, "of": self.config.trainer.steps} | numbers)
        for name in self.watch.look(t, numbers):
            self._event({"event": "flag", "step": t, "flag": name, "text": MEANINGS[name]})

    def _event(self, event: dict[str, Any]) -> None:
        event = {"model": "gan"} | event
        if self.runtime.main:
            self.record.event(event)
        self.listen(event)

    def _judged(self) -> None:
        """A look at the samples while training."""
        if not self.runtime.main:
            return
        found, seen = self.judge.live(self.run)
        self._event({"event": "judged", "step": self.run.t} | found)
        self._write_samples(f"{self.run.t:06d}", seen)

    def _write_samples(self, name: str, samples: Tensor) -> None:
        array, folder = samples.float().cpu().numpy(), self.record.folder / "samples"
        write_atomically(folder / f"{name}.npz", lambda stream: stream.write(npz_bytes({"samples": array})))
        if array.ndim == 4 and array.shape[1] in (1, 3):  # to look at while it trains
            sheet = png_bytes(grid(array))
            write_atomically(folder / f"{name}.png", lambda stream: stream.write(sheet))

    def finish(self) -> dict[str, Any]:
        """The result, on the main process."""
        config, run = self.config, self.run
        result: dict[str, Any] = {}
        if self.runtime.main:
            self.listen({"event": "evaluate", "model": "gan", "what": "samples"})
            self._judged()
            data = self.data
            result = {
                "danskin": danskin.__version__,
                "kind": "gan",
                "name": config.name,
                "seed": config.seed,
                "steps": run.t,
                "seconds": self.seconds,
                "data": {
                    "name": data.name,
                    "train": len(data.y_train),
                    "test": len(data.y_test),
                    "shape": list(data.image_shape),
                    "sha256_test": data.sha256_test,
                },
                "objective": repr(config.trainer.objective),
                "constraint": repr(config.trainer.constraint),
                "parameters": {
                    "generator": describe(run.generator).parameters,
                    "critic": describe(run.critic).parameters,
                },
                "judged": self.judge.final(run),
                "flags": [
                    {"flag": name, "step": step, "text": MEANINGS[name]} for name, step in self.watch.seen.items()
                ],
                "environment": {k: environment()[k] for k in ("python", "processor", "cuda", "threads", "packages")},
            }
            card = {"danskin": danskin.__version__, "config": to_yaml({"kind": config.kind} | plain(config))}
            for name, net in (("generator", run.sampler), ("critic", run.critic)):
                path = self.record.folder / f"{name}.safetensors"
                checkpoint.save_weights(path, net.state_dict(), card | {"model": name})
            write_json(self.record.folder / "result.json", result)
        return self.runtime.share(result)
