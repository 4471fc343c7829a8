"""PreActResNet-18 for small images, in the two forms that the adversarial training literature calls by that name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from danskin.models.names import activation_named, unknown
from danskin.models.parts import Statistics, at_least, image_size, norm_named, with_normalize

VARIANTS = ("locuslab", "gradalign")


class PreActBlock(nn.Module):
    """x + conv(act(bn(conv(act(bn(x)))))), with a 1x1 convolution on the shortcut where the shape changes.

    Args:
        channels: of the input.
        width: channels of the output.
        stride: of the first convolution.
        activation: name in `ACTIVATIONS`.
        shortcut_on_raw: whether that 1x1 convolution sees x, or act(bn(x)).
        norm: name in `NORMS`.
    """

    def __init__(
        self, channels: int, width: int, stride: int, activation: str, shortcut_on_raw: bool, norm: str
    ) -> None:
        super().__init__()
        self.bn1 = norm_named(norm, channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn2 = norm_named(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.act = activation_named(activation)
        self.shortcut_on_raw = shortcut_on_raw
        changes = stride != 1 or channels != width
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        active = self.act(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(x if self.shortcut_on_raw else active)
        return self.conv2(self.act(self.bn2(self.conv1(active)))) + skip


class PreActResNet(nn.Module):
    """Four stages of two blocks; `final_norm` puts a norm and an activation before the average pooling."""

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int,
        activation: str,
        norm: str,
        final_norm: bool,
        shortcut_on_raw: bool,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        blocks, last = [], width
        for size, stride in zip((width, 2 * width, 4 * width, 8 * width), (1, 2, 2, 2), strict=True):
            for s in (stride, 1):
                blocks.append(PreActBlock(last, size, s, activation, shortcut_on_raw, norm))
                last = size
        self.blocks = nn.Sequential(*blocks)
        self.final: nn.Module | None = None
        if final_norm:
            self.final = nn.Sequential(norm_named(norm, last), activation_named(activation))
        self.fc = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        x = self.blocks(self.conv1(x))
        if self.final is not None:
            x = self.final(x)
        return self.fc(x.mean((2, 3)))


def preact_resnet18(
    *,
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    variant: str = "locuslab",
    width: int = 64,
    activation: str = "relu",
    norm: str = "batch",
    normalize: Statistics = None,
) -> nn.Module:
    """PreActResNet-18 for small images (11.17 M parameters at the defaults).

    Args:
        input_shape: (C, H, W), from 8x8 pixels up.
        classes: number of logits.
        variant: "locuslab" (Fast AT, robust overfitting, ELLE, N-FGSM): norm and activation before the
            pooling, shortcut convolutions on the pre-activated tensor, torch's own initial weights;
            "gradalign": neither of the first two (shortcuts on the raw tensor), He-normal initial weights.
        width: channels of the first stage.
        activation: name in `ACTIVATIONS`.
        norm: "batch", or "group": GroupNorm with min(8, channels / 4) groups, which sees no other examples.
        normalize: see `with_normalize`.

    Reference: He et al., "Identity mappings in deep residual networks", ECCV 2016.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    at_least(1, classes=classes, width=width)
    c, _, _ = image_size(input_shape)
    gradalign = variant == "gradalign"
    net = PreActResNet(c, classes, width, activation, norm, final_norm=not gradalign, shortcut_on_raw=gradalign)
    if gradalign:
        net.apply(_he_normal)
    return with_normalize(net, normalize, input_shape)


def _he_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(module.bias)
