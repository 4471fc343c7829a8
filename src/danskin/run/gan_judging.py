"""How the samples of a GAN run are judged, while it trains and at the end. Lecture: row F7."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.data import SUPPORTS, Dataset, to_float
from danskin.errors import ConfigError, DivergenceError, InputError
from danskin.gan.copying import memorization
from danskin.gan.distances import certified_gap, sample_distance
from danskin.gan.features import FEATURE_NETS, classes_seen, frechet_on
from danskin.gan.loop import GANRun
from danskin.gan.manifold import precision_recall
from danskin.gan.support import mode_coverage

_DRAWS = 3  # of the sampling floor


@dataclass(frozen=True)
class JudgingConfig:
    """How samples are judged.

    Args:
        every: generator steps between two looks; 0 for a tenth of the run.
        live: real and generated examples in a look; fewer where the test set has fewer.
        examples: at the end.
        neighbours: k of precision and recall.
        shown: examples in a grid or a scatter plot; 0 for 64 images or 500 points.
    """

    every: int = 0
    live: int = 512
    examples: int = 2048
    neighbours: int = 5
    shown: int = 0

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("live", 2), ("examples", 2), ("neighbours", 1), ("shown", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"judging.{name}: expected at least {least}, got {getattr(self, name)}; correct it")


class Judge:
    """Real examples that were not trained on, and what samples are compared with."""

    def __init__(self, config: JudgingConfig, data: Dataset, seed: int) -> None:
        self.config, self.data, self.seed = config, data, seed
        order = torch.randperm(len(data.y_test), generator=torch.Generator().manual_seed(seed))
        self.test = to_float(data.x_test[order])
        self.floors: dict[int, dict[str, Any]] = {}
        self.shown = config.shown or (64 if len(data.image_shape) == 3 else 500)
        self.real_shown = self.test[: self.shown]

    def _pair(self, wanted: int, draw: int = 0) -> tuple[Tensor, Tensor, str]:
        """Held-out examples, as many other real ones, and where those are from; another `draw`, others."""
        n = min(wanted, len(self.test))
        random = torch.Generator().manual_seed(self.seed + draw)
        if 2 * n <= len(self.test):
            test = self.test if draw == 0 else self.test[torch.randperm(len(self.test), generator=random)]
            return test[:n], test[n : 2 * n], "other held-out examples"
        n = min(n, len(self.data.y_train))
        rows = torch.randperm(len(self.data.y_train), generator=random)[:n]
        return self.test[:n], to_float(self.data.x_train[rows]), "training examples"

    def _floor(self, wanted: int) -> dict[str, Any]:
        """Distances of real examples to each other, means of a few draws."""
        if wanted not in self.floors:
            pairs = [self._pair(wanted, draw) for draw in range(_DRAWS)]
            w1, w2 = ([sample_distance(one, other, q) for one, other, _ in pairs] for q in (1, 2))
            self.floors[wanted] = {
                "n": len(pairs[0][0]), "other": pairs[0][2], "w1": sum(w1) / _DRAWS, "w2": sum(w2) / _DRAWS,
                "w1_range": [min(w1), max(w1)],
            }  # fmt: skip
        return self.floors[wanted]

    def _distances(self, run: GANRun, wanted: int) -> tuple[dict[str, Any], Tensor, Tensor]:
        """W1, W2, their floors and what the critic proves, on the same examples."""
        real, floor = self._pair(wanted)[0], self._floor(wanted)
        fake = run.sample(len(real), self.seed + 1).float().cpu()
        if not bool(fake.isfinite().all()):
            raise DivergenceError(
                f"step {run.t}: expected finite numbers, got NaN or infinity in samples; lower the learning rates, or "
                "constrain the critic more; the last checkpoint is from before"
            )
        proved = certified_gap(run.critic, real, fake)
        found: dict[str, Any] = {
            "n": len(real), "w1": sample_distance(real, fake), "w1_floor": floor["w1"],
            "w1_floor_range": floor["w1_range"],
            "w2": sample_distance(real, fake, 2), "w2_floor": floor["w2"], "floor_of": floor["other"],
            "certified": proved.lower_bound,
        }  # fmt: skip
        return found, real, fake

    def live(self, run: GANRun) -> tuple[dict[str, Any], Tensor]:
        """Numbers of a look, and samples of the same latents at every look."""
        found, _, fake = self._distances(run, self.config.live)
        support = SUPPORTS.get(self.data.name)
        if support is not None:
            seen = mode_coverage(fake, support.points, support.labels, support.sigma)
            found |= {"modes": seen.covered, "of_modes": seen.modes, "high_quality": seen.high_quality}
        return found, run.sample(self.shown, self.seed + 2)

    def final(self, run: GANRun) -> dict[str, Any]:
        """Everything, as plain data; what could not be computed is there as a sentence under "refused"."""
        found, real, fake = self._distances(run, self.config.examples)
        proved = certified_gap(run.critic, real, fake)
        bound = proved.lipschitz
        found |= {
            "gap": proved.gap,
            "lipschitz": None if bound is None else bound.value,
            "lipschitz_method": None if bound is None else bound.method,
            "refused": {},
        }
        if bound is None:
            found["refused"]["certified"] = proved.reason
        support = SUPPORTS.get(self.data.name)
        if support is not None:
            covered = mode_coverage(fake, support.points, support.labels, support.sigma)
            found["coverage"] = asdict(covered) | {"shares": list(covered.shares)}
        try:
            found["manifold"] = precision_recall(real, fake, self.config.neighbours)._asdict()
            other = self._pair(self.config.examples)[1]
            found["manifold_of_real"] = precision_recall(real, other, self.config.neighbours)._asdict()
        except InputError as error:
            found["refused"]["manifold"] = str(error)
        if self.data.name in FEATURE_NETS:
            self._features(found, real, fake)
        copied = memorization(fake, to_float(self.data.x_train), real)
        found["copying"] = asdict(copied) | {"copied": copied.copied}
        return found

    def _features(self, found: dict[str, Any], real: Tensor, fake: Tensor) -> None:
        """Fréchet distance beside its floor, and classes, on the project's own network for this data."""
        name, other = self.data.name, self._pair(self.config.examples)[1]
        try:
            distance, floor = frechet_on(name, real, fake), frechet_on(name, real, other)
            found["frechet"] = {distance.features: asdict(distance) | {"floor": floor.value}}
        except InputError as error:
            found["refused"]["frechet"] = str(error)
        found["classes"] = asdict(classes_seen(name, fake, real))
