"""Numbers about finished things, as sums -> value."""

from danskin.metrics.average import Average
from danskin.metrics.inevitability import cube_bound, sphere_bound
from danskin.metrics.linearity import taylor_error, three_point_error
from danskin.metrics.misalignment import gradient_misalignment
from danskin.metrics.per_class import PerClass
from danskin.metrics.saliency import alignment, saliency
from danskin.metrics.share import Share, wilson
from danskin.metrics.uniqueness import Uniqueness

__all__ = [
    "Average",
    "PerClass",
    "Share",
    "Uniqueness",
    "alignment",
    "cube_bound",
    "gradient_misalignment",
    "saliency",
    "sphere_bound",
    "taylor_error",
    "three_point_error",
    "wilson",
]
