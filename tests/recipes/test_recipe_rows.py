"""Recipes of lecture rows: every one resolves at every scale, and what is laid over what comes out as written."""

import pytest

from danskin.errors import ConfigError
from danskin.recipes.rows import FOLDERS, SHOWN_BY, Column, merged, plan_of
from danskin.recipes.scales import SCALES
from danskin.training import CFOL, AdversarialTraining, BETATraining, DDi

ROWS = ["C4", "C8", "C10", "C14", "C15", "D3", "D5"]


def test_rows_of_the_lecture_have_recipes():
    assert set(ROWS) == set(FOLDERS)
    assert plan_of("c7").row == "C8" and plan_of("C11").row == "C10" and set(SHOWN_BY.values()) <= set(FOLDERS)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("row", ROWS)
def test_every_row_resolves_at_every_scale(row, scale):
    plan = plan_of(row, scale)
    assert plan.says.endswith(".") and plan.seeds >= 1
    assert (plan.status == "not run") == (scale == "full")
    for label, config in plan.cases.items():
        assert set(config.objectives) == set(plan.names) and len(config.objectives) >= 2
        assert plan.columns[label] and all(isinstance(c, Column) for c in plan.columns[label])
        ball = config.attack.ball
        for c in plan.columns[label]:
            assert c.attack is None or c.attack.ball == ball
        assert config.monitor is None or config.monitor.ball == ball
    if scale == "smoke":
        assert all(c.data.name == "digits" for c in plan.cases.values())
    if scale == "small":
        assert all(c.data.name in ("mnist", "fashion_mnist", "cifar10") for c in plan.cases.values())


def test_the_table_of_the_lecture_has_its_rows_and_columns():
    plan = plan_of("C8", "full")
    config = plan.cases[""]
    assert list(plan.names.values()) == [
        "FGSM",
        "PGD-10",
        "TRADES-10",
        "MART-10",
        *(f"BETA-AT {t}" for t in (5, 10, 20)),
    ]
    assert [c.name for c in plan.columns[""]] == ["clean", "FGSM", "PGD-10", "PGD-40", "BETA-10", "APGD"]
    assert plan.weights == ("best", "last") and float(config.attack.ball.value) == 8 / 255
    steps = [o.attack.steps for o in map(config.objective, config.objectives) if isinstance(o, BETATraining)]
    assert steps == [5, 10, 20] and config.objective("trades10").beta == 6


def test_cases_change_radius_and_weights_together():
    plan = plan_of("C14", "full")
    radius = {label: float(c.attack.ball.value) * 255 for label, c in plan.cases.items()}
    assert radius == pytest.approx({"8-255": 8, "16-255": 16})
    weights = [plan.cases[label].objective("elle").terms[0].weight for label in plan.cases]
    assert weights == [1000, 5000]
    for config in plan.cases.values():
        for label in config.objectives:
            objective = config.objective(label)
            assert objective.attack.ball == config.attack.ball
            assert all(term.ball == config.attack.ball for term in getattr(objective, "terms", ()))


def test_methods_of_the_other_rows():
    assert isinstance(plan_of("C4").cases[""].objective("ddi"), DDi)
    fair = plan_of("C15", "small").cases[""]
    cfol = fair.objective("cfol")
    assert isinstance(cfol, CFOL) and isinstance(cfol.objective, AdversarialTraining)
    steps = fair.trainer.epochs * (fair.data.train - fair.data.validation) // fair.trainer.batch_size
    assert cfol.eta * fair.trainer.batch_size * steps == pytest.approx(5e-6 * 128 * 78000, rel=0.01)


def test_seeds_change_nothing_but_the_seed():
    plan = plan_of("C10", "smoke", seeds=3)
    a, b = plan.config("", 0), plan.config("", 2)
    assert (a.seed, b.seed) == (0, 2) and plan.tasks() == [("", 0), ("", 1), ("", 2)]
    assert {**a.__dict__, "seed": 2} == b.__dict__


def test_laying_over():
    base = {"a": {"name": "x", "b": 1}, "c": [1, 2], "d": 3}
    assert merged(base, {"a": {"b": 2}}) == {"a": {"name": "x", "b": 2}, "c": [1, 2], "d": 3}
    assert merged(base, {"a": {"name": "y", "z": 0}, "c": [3]}) == {"a": {"name": "y", "z": 0}, "c": [3], "d": 3}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("C88",), "did you mean 'C8'"),
        (("C8", "tiny"), "expected one of smoke, small, full"),
        (("C8", "smoke", 0), "expected at least 1"),
    ],
)
def test_unknown_names_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(*words)
