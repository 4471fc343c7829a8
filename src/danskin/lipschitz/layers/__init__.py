"""Layers whose l2 Lipschitz constant is at most 1 by construction, certified in float64. LECTURE rows E6, F3 and F6."""

from danskin.lipschitz.layers.activations import Abs, GroupSort, MaxMin
from danskin.lipschitz.layers.base import LipschitzLayer, export
from danskin.lipschitz.layers.clip import clip_weights_
from danskin.lipschitz.layers.conv import AOLConv2d, OrthogonalConv2d, SpectralConv2d
from danskin.lipschitz.layers.linear import AOLLinear, OrthogonalLinear, SpectralLinear
from danskin.lipschitz.layers.spline import LinearSpline
from danskin.lipschitz.layers.transposed import OrthogonalConvTranspose2d

#: By the name `danskin list layers` shows.
LAYERS = {
    "abs": Abs,
    "aol_conv": AOLConv2d,
    "aol_linear": AOLLinear,
    "clip_weights": clip_weights_,
    "group_sort": GroupSort,
    "linear_spline": LinearSpline,
    "maxmin": MaxMin,
    "orthogonal_conv": OrthogonalConv2d,
    "orthogonal_conv_transpose": OrthogonalConvTranspose2d,
    "orthogonal_linear": OrthogonalLinear,
    "spectral_conv": SpectralConv2d,
    "spectral_linear": SpectralLinear,
}

__all__ = [
    "LAYERS",
    "AOLConv2d",
    "AOLLinear",
    "Abs",
    "GroupSort",
    "LinearSpline",
    "LipschitzLayer",
    "MaxMin",
    "OrthogonalConv2d",
    "OrthogonalConvTranspose2d",
    "OrthogonalLinear",
    "SpectralConv2d",
    "SpectralLinear",
    "clip_weights_",
    "export",
]
