"""A copy of a module, also of one that holds what a pass has left behind."""

from __future__ import annotations

import copy

import torch
from torch import nn

from danskin.callables.reach import reach


def copied(module: nn.Module) -> nn.Module:
    """`copy.deepcopy`, where tensors with a history (features kept on self, a weight made by a hook) are cut off it.

    The copy can be differentiated, whether it is made under inference_mode or of tensors that were.

    Raises:
        Exception: whatever parts that cannot be copied raise (locks, open files, scripted functions).
    """
    with torch.inference_mode(False), torch.no_grad():  # without which TorchScript gives its copies a history
        made = {id(t): t.detach().clone() for t in reach(module).tensors if not t.is_leaf}
        return copy.deepcopy(module, made)
