"""WideResNet: few, wide, pre-activated blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from danskin.errors import InputError
from danskin.models.names import activation_named
from danskin.models.parts import Statistics, at_least, image_size, with_normalize


class WideBlock(nn.Module):
    """Two pre-activated 3x3 convolutions with dropout between them.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the pre-activated tensor.
    """

    def __init__(self, channels: int, width: int, stride: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.act = activation_named(activation)
        changes = stride != 1 or channels != width
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        active = self.act(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(self.dropout(self.act(self.bn2(self.conv1(active))))) + skip


class WideResNet(nn.Module):
    """3 stages of (depth - 4) / 6 blocks with 16, 32 and 64 times `width` channels."""

    def __init__(self, channels: int, classes: int, depth: int, width: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        blocks, last = [], 16
        for size, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for i in range((depth - 4) // 6):
                blocks.append(WideBlock(last, size, stride if i == 0 else 1, dropout, activation))
                last = size
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(last)
        self.act = activation_named(activation)
        self.fc = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.fc(self.act(self.bn(self.blocks(self.conv1(x)))).mean((2, 3)))


def wide_resnet(
    *,
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    depth: int = 28,
    width: int = 10,
    dropout: float = 0.0,
    activation: str = "relu",
    normalize: Statistics = None,
) -> nn.Module:
    """WideResNet-depth-width (28-10: 36.5 M parameters), He-normal initial weights.

    Args:
        input_shape: (C, H, W), from 8x8 pixels up.
        classes: number of logits.
        depth: 6 n + 4: 10, 16, 22, 28, 34, 70, ...
        width: how many times wider than 16, 32, 64 channels.
        dropout: probability, between the two convolutions of a block.
        activation: name in `ACTIVATIONS`.
        normalize: see `with_normalize`.

    Raises:
        InputError: another depth, or a dropout outside [0, 1).

    Reference: Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016.
    """
    at_least(1, classes=classes, width=width, depth=depth)
    if depth < 10 or (depth - 4) % 6:
        raise InputError(f"depth: expected 6 n + 4 with n of 1 or more, got {depth}; use 10, 16, 22, 28, 34 or 70")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout: expected a probability in [0, 1), got {dropout}; use 0 for none")
    c, _, _ = image_size(input_shape)
    net = WideResNet(c, classes, depth, width, dropout, activation)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(net.fc.bias)
    return with_normalize(net, normalize, input_shape)
