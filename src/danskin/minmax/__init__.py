"""The spine: min over x, max over y in Y of Phi(x, y). Imports torch only."""

from danskin.minmax.anchored import RAPP, Lookahead
from danskin.minmax.attractor import Outcome, outcomes, second_order
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
from danskin.minmax.dynamics import (
    GDA,
    AlternatingGDA,
    Consensus,
    Extragradient,
    MirrorDescent,
    MirrorProx,
    OptimisticGDA,
    PastExtragradient,
    Solver,
)
from danskin.minmax.gap import duality_gap, exploitability, gains, linear_gap, residual
from danskin.minmax.intersection import Intersection
from danskin.minmax.langevin import Langevin
from danskin.minmax.majorize import MajorizeMinimize
from danskin.minmax.maximize import Ascent, BestOf, Maximizer, Restarts, Vertex
from danskin.minmax.number import Number, number
from danskin.minmax.problem import Problem, Template
from danskin.minmax.product import Product
from danskin.minmax.random import Streams
from danskin.minmax.result import Cost, Maximum, Status
from danskin.minmax.saddle import Saddle
from danskin.minmax.sets import Set
from danskin.minmax.solvers import SOLVERS
from danskin.minmax.spectral import Spectral
from danskin.minmax.trajectory import Trajectory, run_solver
from danskin.minmax.weak_minty import AdaptiveEGPlus, BCSEGPlus, CurvatureEGPlus, EGPlus

__all__ = [
    "GDA",
    "L1",
    "L2",
    "RAPP",
    "SOLVERS",
    "AdaptiveEGPlus",
    "AlternatingGDA",
    "Ascent",
    "BCSEGPlus",
    "BestOf",
    "Box",
    "Consensus",
    "Cost",
    "Cube",
    "CurvatureEGPlus",
    "EGPlus",
    "Extragradient",
    "Intersection",
    "Langevin",
    "Linf",
    "Lookahead",
    "MajorizeMinimize",
    "Maximizer",
    "Maximum",
    "MirrorDescent",
    "MirrorProx",
    "Number",
    "OptimisticGDA",
    "Outcome",
    "PastExtragradient",
    "Problem",
    "Product",
    "Restarts",
    "Saddle",
    "Set",
    "Simplex",
    "Solver",
    "Spectral",
    "Status",
    "Streams",
    "Subdifferential",
    "Template",
    "Trajectory",
    "Vertex",
    "danskin",
    "directional_derivative",
    "duality_gap",
    "exploitability",
    "gains",
    "linear_gap",
    "min_norm_weights",
    "number",
    "outcomes",
    "residual",
    "run_solver",
    "second_order",
    "subdifferential",
    "worst_case",
]
