"""Cells of a row become numbers over seeds, with an interval of the right kind."""

from dataclasses import dataclass, field

import pytest

from danskin.metrics import wilson
from danskin.recipes.cells import gathered
from danskin.recipes.claims import Claims
from danskin.report.tables import note


@dataclass
class Row:
    row: str = "E1"
    title: str = "a row"
    scale: str = "smoke"
    says: str = "Nothing."
    seeds: int = 2
    names: dict = field(default_factory=lambda: {"m": "the method"})


@pytest.fixture
def published(monkeypatch):
    gap = {"case": "c", "method": "m", "column": "gap"}
    node = {
        "published": [{"source": "a paper", "weights": ["-"], "case": "c", "table": {"m": {"gap": [3.0]}}}],
        "claims": [{"name": "n", "says": "s", "scales": ["smoke"], "at_most": 1, "more": gap}],
    }
    known = Claims.read(node)
    monkeypatch.setattr(Claims, "of", staticmethod(lambda row: known))


def cell(seed, **told):
    return {"case": "c", "method": "m", "seed": seed} | told


def by_column(result):
    return {m["column"]: m for m in result["measured"]}


def test_starts_of_all_seeds_have_one_interval_and_numbers_one_over_seeds():
    cells = [
        cell(0, shares={"there": [3, 10]}, numbers={"gap": 1.0}),
        cell(1, shares={"there": [9, 10]}, numbers={"gap": 2.0}),
    ]
    found = by_column(gathered(Row(), cells, configs={}, note=""))
    assert found["there"]["mean"] == 0.6 and found["there"]["interval"] == list(wilson(12, 20))
    assert found["gap"]["mean"] == 1.5 and found["gap"]["interval_kind"] == "t over seeds"


def test_columns_keep_the_order_of_the_cell_and_curves_are_means():
    cells = [cell(s, shares={"b": 0.5}, numbers={"a": 1.0}, curve=[[0, 1.0 + s], [5, 3.0]]) for s in (0, 1)]
    result = gathered(Row(), cells, configs={}, note="")
    assert result["columns"] == {"c": ["b", "a"]} and result["curves"] == {"c": {"m": [[0.0, 1.5], [5.0, 3.0]]}}


def test_a_method_without_numbers_leaves_its_case_in_the_result():
    result = gathered(Row(), [cell(0), cell(1)], configs={}, note="")
    assert result["cases"] == ["c"] and result["measured"] == []


def test_published_numbers_stand_beside_and_are_told_of_only_where_there_are_some(published):
    told = gathered(Row(), [cell(0, numbers={"gap": 2.0})], configs={}, note="how to read it")
    assert by_column(told)["gap"]["published"] == 3.0 and note(told) == "how to read it; [published]"
    plain = gathered(Row(), [cell(0, numbers={"other": 2.0})], configs={}, note="how to read it")
    assert note(plain) == "how to read it"


def test_claims_are_judged_at_the_scales_that_all_rows_have(published):
    cells = [cell(0, numbers={"gap": 2.0})]
    assert [c["outside"] for c in gathered(Row(), cells, configs={}, note="")["claims"]] == [True]
    assert gathered(Row(scale="mujoco"), cells, configs={}, note="")["claims"] == []
