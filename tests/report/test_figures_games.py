"""Figures of games: lines that can be told apart, measures as thick as they weigh, panels that get a page's width."""

import re

import numpy as np

from danskin.report.curves import drawn
from danskin.report.drawing import Drawn
from danskin.report.games import curves, phase_portrait, shares
from danskin.report.measures import particles
from danskin.report.reproduction import _is_long


def styles(svg):
    """(colour, dashes) of every line that is as thick as a curve."""
    found = re.findall(r'style="(fill: none; stroke-?[^"]*)"', svg)
    lines = [s for s in found if "stroke-width: 1.8" in s]
    return [(re.search(r"stroke: (#\w+)", s)[1], "dasharray" in s) for s in lines if re.search(r"stroke: #", s)]


def test_nine_methods_have_nine_styles():
    ends = np.array([0.0, 1.0]), np.array([0.1, 0.9])
    (figure,) = drawn("t", "t", "c", {f"m{i}": [[(0, 0.1), (1, 0.9)]] for i in range(9)}, x="x", y="y")
    for svg in (figure.svg, curves({f"m{i}": ends for i in range(9)}, "gap"),
                shares({f"m{i}": ends for i in range(9)}, "calls")):  # fmt: skip
        assert len(set(styles(svg))) == 9, styles(svg)


def measure_paths(weights):
    return {"steps": np.array([0, 10, 20, 30])} | {
        f"{p}.{k}": v for p in "xy" for k, v in (("points", np.array([[0.1, 5.9]] * 4)), ("weights", weights))
    }


def widths(svg):
    return {float(w) for w in re.findall(r"opacity: 0.55; stroke-width: ([\d.]+)", svg)} | {
        float(w) for w in re.findall(r"stroke-opacity: 0.55; stroke-width: ([\d.]+)", svg)
    }


def test_heavy_particles_are_thick_and_those_without_weight_are_not_drawn():
    even = widths(particles(measure_paths(np.full((4, 2), 0.5)), [(0, 6), (0, 6)]))
    one = widths(particles(measure_paths(np.array([[1.0, 0.0]] * 4)), [(0, 6), (0, 6)]))
    assert even == {4.0} and one == {7.5}


def test_a_jump_from_one_end_of_the_circle_to_the_other_is_not_drawn():
    paths = measure_paths(np.full((4, 2), 0.5))
    whole = particles(paths, [(0, 6), (0, 6)]).count("stroke-opacity: 0.55")
    paths["x.points"] = np.array([[0.1, 5.9], [0.1, 5.9], [5.9, 5.9], [5.9, 5.9]])
    assert particles(paths, [(0, 6), (0, 6)]).count("stroke-opacity: 0.55") == whole + 1


def test_panels_side_by_side_are_wide_and_one_pair_of_axes_is_not():
    path = np.zeros((3, 2, 2))
    arrows = np.zeros((4, 2)), np.ones((4, 2))
    three = phase_portrait(arrows, dict.fromkeys("abc", path), [(0.0, 0.0)], [], (-1, 1))
    one = phase_portrait(arrows, {"a": path}, [(0.0, 0.0)], [], (-1, 1))
    assert Drawn("f", three, "", "", "").wide and not Drawn("f", one, "", "", "").wide


def test_a_table_has_smaller_letters_only_where_its_lines_are_long():
    row = ["extragradient", "0.0 ± 0.4", "1.303"]
    assert not _is_long(["method", "near the equilibrium", "distance"], [row])
    assert _is_long(["method", *["gap, T=10000"] * 7], [["extragradient", *["1.4e-04 ± 3.8e-05"] * 7]])
