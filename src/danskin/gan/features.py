"""Small networks of this project whose features Fréchet distances are taken on. They are no Inception: nothing is FID.

Each was trained on the training part of one data set by `docs/collect_features.py`; its name and digest go with every
number, as distances on other features do not compare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from danskin.errors import CheckpointError, InputError, MissingError, suggest
from danskin.gan.frechet import Frechet, frechet_distance

FOLDER = Path(__file__).parent / "weights"
DIMENSIONS = 32


class FeatureNet(nn.Module):
    """Two convolutions of stride 2, a layer of 32 features, ten classes.

    Args:
        shape: of one image, (C, H, W).
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        c, h, w = shape
        self.body = nn.Sequential(
            nn.Conv2d(c, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * -(-h // 4) * -(-w // 4), DIMENSIONS),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(DIMENSIONS, 10))

    def features(self, x: Tensor) -> Tensor:
        """(n, C, H, W) images in [0, 1] to (n, 32), before the last activation: no coordinate is constant."""
        found: Tensor = self.body(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(n, 10) logits."""
        logits: Tensor = self.head(self.features(x))
        return logits


@dataclass(frozen=True)
class FeatureInfo:
    """What is known about a network.

    Args:
        data: it was trained on.
        shape: of one image.
        sha256: of its file.
        accuracy: on the test part of that set.
    """

    data: str
    shape: tuple[int, int, int]
    sha256: str
    accuracy: float

    @property
    def name(self) -> str:
        """What goes with its numbers."""
        return f"danskin-{self.data}-cnn{DIMENSIONS} sha256:{self.sha256[:8]}"


FEATURE_NETS = {
    info.data: info
    for info in (
        FeatureInfo(
            data="digits",
            shape=(1, 8, 8),
            sha256="e18f90df84ada7453647c3c3794500d98767d7b61825fafd9e0c587508860d21",
            accuracy=0.961,
        ),
        FeatureInfo(
            data="mnist",
            shape=(1, 28, 28),
            sha256="0656e2f001d8773bf3fe017313aa536a49c54be58eea6c47008509fe9a232970",
            accuracy=0.976,
        ),
        FeatureInfo(
            "fashion_mnist", (1, 28, 28), "429fea164adfbf4dcc5a4368f61ae338c18786f6ec8566b112b3b00277da092e", 0.856
        ),
    )
}


def feature_net(data: str) -> FeatureNet:
    """The network trained on a data set, in eval mode.

    Raises:
        InputError: there is none.
        CheckpointError: its file is another than was shipped.
        MissingError: safetensors is not installed.
    """
    if data not in FEATURE_NETS:
        raise InputError(f"features: expected a data set with a network, got {data!r}; {suggest(data, FEATURE_NETS)}")
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise MissingError("features: safetensors is needed", "pip install 'danskin[run]'") from error
    info = FEATURE_NETS[data]
    content = (FOLDER / f"{data}.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != info.sha256:
        raise CheckpointError(f"{FOLDER}/{data}.safetensors: expected the file that danskin ships; install it again")
    net = FeatureNet(info.shape)
    net.load_state_dict(load(content))
    return net.eval()


@torch.no_grad()
def frechet_on(data: str, x: Tensor, y: Tensor, batch_size: int = 1000) -> Frechet:
    """The Fréchet distance of two samples of images on the features of the network trained on a data set.

    Args:
        data: which network: "digits", "mnist" or "fashion_mnist".
        x: (n, C, H, W) in [0, 1].
        y: (m, C, H, W).
        batch_size: images in a pass.

    Raises:
        InputError: no network for these data, images of another shape, none, NaN; too few for a covariance.

    Lecture: F7.
    """
    net = feature_net(data)
    _check(data, x, y)
    one, two = (torch.cat([net.features(part) for part in t.split(batch_size)]) for t in (x, y))
    return frechet_distance(one, two, FEATURE_NETS[data].name)


@dataclass(frozen=True)
class Classes:
    """Which classes samples are seen as.

    Args:
        covered: with at least a fifth of their share among real examples.
        classes: how many there are.
        variation: total variation between the shares of classes of samples and of real examples, in [0, 1].
        by: the network that sees them.
    """

    covered: int
    classes: int
    variation: float
    by: str


@torch.no_grad()
def classes_seen(data: str, fake: Tensor, real: Tensor, batch_size: int = 1000) -> Classes:
    """The shares of classes among generated and real images, as the network trained on a data set sees them.

    Raises:
        InputError: no network for these data, images of another shape, none, NaN.

    Lecture: F7.
    """
    net = feature_net(data)
    _check(data, fake, real)
    one, two = (
        torch.cat([net(part).argmax(1) for part in t.split(batch_size)]).bincount(minlength=10).double() / len(t)
        for t in (fake, real)
    )
    return Classes(
        covered=int(((one >= 0.2 * two) & (two > 0)).sum()),
        classes=int((two > 0).sum()),
        variation=float((one - two).abs().sum() / 2),
        by=FEATURE_NETS[data].name,
    )


def _check(data: str, *samples: Tensor) -> None:
    shape = FEATURE_NETS[data].shape
    for x in samples:
        if not len(x) or x.shape[1:] != shape or not bool(x.isfinite().all()):
            raise InputError(
                f"features of {data}: expected finite images {('n', *shape)}, got shape {tuple(x.shape)}, or NaN or "
                "infinity among them"
            )
