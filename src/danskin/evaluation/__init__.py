"""The robustness verdict: how much of a model's accuracy survives an adversary, and how sure that is."""

from danskin.evaluation.certify import Certified, certify
from danskin.evaluation.curve import CurvePoint, robustness_curve
from danskin.evaluation.diagnostics import diagnose
from danskin.evaluation.evaluate import evaluate
from danskin.evaluation.forms import Form, fastest
from danskin.evaluation.masking import Flag, flags_from_results
from danskin.evaluation.quick import quicker
from danskin.evaluation.suites import SUITES
from danskin.evaluation.verdict import Stage, Verdict

__all__ = [
    "SUITES",
    "Certified",
    "CurvePoint",
    "Flag",
    "Form",
    "Stage",
    "Verdict",
    "certify",
    "diagnose",
    "evaluate",
    "fastest",
    "flags_from_results",
    "quicker",
    "robustness_curve",
]
