"""Weight clipping: the constraint of the first Wasserstein GAN, as a projection after a step. LECTURE row F3."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from danskin.errors import InputError


@torch.no_grad()
def clip_weights_(module: nn.Module, c: float, *, normalization: bool = False) -> None:
    """Project every parameter onto [-c, c], in place; call it after the optimiser's step.

    It bounds the Lipschitz constant, loosely and by a number that grows with width and depth:
    `danskin.lipschitz.product_bound` says by how much.

    Args:
        module: all of its parameters, biases included.
        c: the largest absolute value; 0.01 in the paper.
        normalization: clip scale and shift of normalisation layers too; they are left alone otherwise.

    Reference: Arjovsky, Chintala and Bottou, ICML 2017, algorithm 1. Lecture: F3.
    """
    if not 0 < c < math.inf:
        raise InputError(f"clip_weights_: expected a finite c > 0, got {c}; the paper takes 0.01")
    norms = (_NormBase, nn.LayerNorm, nn.GroupNorm)
    for part in module.modules():
        if normalization or not isinstance(part, norms):
            for parameter in part.parameters(recurse=False):
                parameter.clamp_(-c, c)
