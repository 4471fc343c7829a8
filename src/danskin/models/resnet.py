"""The CIFAR ResNet: three narrow stages, shortcuts without parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.models.names import activation_named
from danskin.models.parts import Statistics, at_least, image_size, with_normalize


class BasicBlock(nn.Module):
    """act(bn(conv(act(bn(conv(x))))) + x); where the shape changes, x is subsampled and padded (option A)."""

    def __init__(self, channels: int, width: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act = activation_named(activation)
        self.stride = stride
        self.extra = width - channels

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        if self.stride != 1 or self.extra:
            before = self.extra // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))
        return self.act(y + x)


class CifarResNet(nn.Module):
    """3 stages of (depth - 2) / 6 blocks with `width`, 2 `width` and 4 `width` channels."""

    def __init__(self, channels: int, classes: int, depth: int, width: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = activation_named(activation)
        blocks, last = [], width
        for size, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            for i in range((depth - 2) // 6):
                blocks.append(BasicBlock(last, size, stride if i == 0 else 1, activation))
                last = size
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.fc(self.blocks(self.act(self.bn1(self.conv1(x)))).mean((2, 3)))


def cifar_resnet(
    *,
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    depth: int = 20,
    width: int = 16,
    activation: str = "relu",
    normalize: Statistics = None,
) -> nn.Module:
    """The CIFAR ResNet of `depth` = 6 n + 2 layers, He-normal initial weights.

    Args:
        input_shape: (C, H, W), from 8x8 pixels up.
        classes: number of logits.
        depth: 8, 14, 20, 32, 44, 56, 110, ...
        width: channels of the first stage.
        activation: name in `ACTIVATIONS`.
        normalize: see `with_normalize`.

    Raises:
        InputError: another depth.

    Reference: He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2.
    """
    at_least(1, classes=classes, width=width, depth=depth)
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"depth: expected 6 n + 2 with n of 1 or more, got {depth}; use 20, 32, 44, 56 or 110")
    c, _, _ = image_size(input_shape)
    net = CifarResNet(c, classes, depth, width, activation)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return with_normalize(net, normalize, input_shape)


def resnet56(
    *,
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    activation: str = "relu",
    normalize: Statistics = None,
) -> nn.Module:
    """`cifar_resnet` of 56 layers (0.853 M parameters): 3 stages of 9 blocks with 16, 32 and 64 channels."""
    return cifar_resnet(input_shape=input_shape, classes=classes, depth=56, activation=activation, normalize=normalize)
