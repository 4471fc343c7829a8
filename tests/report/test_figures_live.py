"""Figures and events of training while it goes on: worst class, weights that steer themselves."""

import json

import pytest

from danskin.report import training_figures
from danskin.report.training import write_report

COLORS = {"a": "#1f6fb2", "b": "#d9730d"}
EPOCHS = [
    {"event": "epoch", "model": m, "epoch": e, "step": e, "robust": 0.1 * e, "worst_class": 0.05 * e}
    for m in COLORS
    for e in (1, 2, 3)
]


def test_worst_class_has_a_line_for_average_and_worst():
    svg = training_figures.worst_class(EPOCHS, COLORS)
    assert svg.count("worst class") == 2 and svg.count("average") == 2
    assert training_figures.worst_class([{"event": "epoch", "model": "a", "epoch": 1, "robust": 0.1}], COLORS) is None


def test_gauges_are_drawn_by_name():
    steps = [
        {"event": "step", "model": "a", "step": s, "gauges": {"chance of class 0": 0.1, "chance of class 1": 0.2}}
        for s in (1, 2)
    ]
    names = training_figures.gauge_names(steps)
    assert names == ["chance of class 0", "chance of class 1"] and training_figures.gauge_names(EPOCHS) == []
    assert (
        "chance of class" in training_figures.gauge(steps, COLORS, names)
        and training_figures.gauge(steps, COLORS, []) is None
    )


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        ("{name: regularized, objective: {name: adversarial}, terms: [{name: elle_a, weight: 7}]}", "weight of ELLE_A"),
        ("{name: cfol, classes: 10, eta: 0.01, objective: {name: adversarial}}", "chance of class 9"),
    ],
)
def test_training_tells_what_its_objective_steers(cli, small_words, tmp_path, objective, name):
    words = [w for w in small_words if not w.startswith("objectives")]
    found = cli("train", *words, f"objectives={{it: {objective}}}", "--out", tmp_path / "run", "-q")
    assert found.code == 0, found.err
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    gauges = [e["gauges"][name] for e in events if e["event"] == "step"]
    assert len(set(gauges)) > 1 or name.startswith("weight")
    assert all(0 <= g <= 7 for g in gauges) and len(gauges) > 2
    epoch = next(e for e in events if e["event"] == "epoch")
    sizes, clean, robust = (sum(c[i] for c in epoch["classes"]) for i in range(3))
    assert sizes == epoch["validation_examples"] == 60
    assert clean / sizes == pytest.approx(epoch["clean"]) and robust / sizes == pytest.approx(epoch["robust"])
    assert epoch["worst_class"] == min(r / n for n, _, r in epoch["classes"] if n)
    watched = [e for e in events if e["event"] == "watch"]
    assert watched and all(0 <= e["misalignment"] <= 2 for e in watched)
    assert (write_report(tmp_path / "run").parent / "figures" / "worst-class.svg").exists()
