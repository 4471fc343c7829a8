"""What `print` shows of an outcome is a line, however large the batch."""

import torch
from torch import nn

from danskin.attacks import FGSM
from danskin.minmax import Linf


def test_an_outcome_prints_as_one_line():
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(300, 3)), torch.rand(50, 3, 10, 10)
    found = FGSM(Linf(0.1), box=(0, 1))(net, x, net(x).argmax(1))
    text = str(found)
    assert text.startswith(f"<Attacked (50, 3, 10, 10): {int(found.success.sum())} of 50 adversarial; ")
    assert len(text) < 160 and "\n" not in text and text == repr(found) and "tensor" not in text
