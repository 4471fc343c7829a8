"""The spine: min over x, max over y in Y of Phi(x, y). Imports torch only."""

from danskin.minmax.balls import L1, L2, Linf
from danskin.minmax.box import Box, Simplex
from danskin.minmax.cube import Cube
from danskin.minmax.descent import (
    Subdifferential,
    danskin,
    directional_derivative,
    min_norm_weights,
    subdifferential,
    worst_case,
)
from danskin.minmax.intersection import Intersection
from danskin.minmax.majorize import MajorizeMinimize
from danskin.minmax.maximize import Ascent, BestOf, Maximizer, Restarts, Vertex
from danskin.minmax.number import Number, number
from danskin.minmax.problem import Problem, Template
from danskin.minmax.random import Streams
from danskin.minmax.result import Cost, Maximum, Status
from danskin.minmax.sets import Set

__all__ = [
    "L1",
    "L2",
    "Ascent",
    "BestOf",
    "Box",
    "Cost",
    "Cube",
    "Intersection",
    "Linf",
    "MajorizeMinimize",
    "Maximizer",
    "Maximum",
    "Number",
    "Problem",
    "Restarts",
    "Set",
    "Simplex",
    "Status",
    "Streams",
    "Subdifferential",
    "Template",
    "Vertex",
    "danskin",
    "directional_derivative",
    "min_norm_weights",
    "number",
    "subdifferential",
    "worst_case",
]
