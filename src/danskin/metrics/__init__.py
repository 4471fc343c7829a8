"""Numbers about finished things, as sums -> value."""

from danskin.metrics.average import Average
from danskin.metrics.hessian import hessian_eigenvalues, hessian_trace
from danskin.metrics.inevitability import cube_bound, sphere_bound
from danskin.metrics.lanczos import Eigenpairs, lanczos
from danskin.metrics.linearity import taylor_error, three_point_error
from danskin.metrics.misalignment import gradient_misalignment
from danskin.metrics.per_class import PerClass
from danskin.metrics.saliency import alignment, saliency
from danskin.metrics.share import Share, wilson
from danskin.metrics.surface import Surface, loss_line, loss_plane
from danskin.metrics.tail import bootstrap, cvar
from danskin.metrics.uniqueness import Uniqueness
from danskin.metrics.weight_sharpness import Sharpness, m_sharpness

__all__ = [
    "Average",
    "Eigenpairs",
    "PerClass",
    "Share",
    "Sharpness",
    "Surface",
    "Uniqueness",
    "alignment",
    "bootstrap",
    "cube_bound",
    "cvar",
    "gradient_misalignment",
    "hessian_eigenvalues",
    "hessian_trace",
    "lanczos",
    "loss_line",
    "loss_plane",
    "m_sharpness",
    "saliency",
    "sphere_bound",
    "taylor_error",
    "three_point_error",
    "wilson",
]
