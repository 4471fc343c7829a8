"""Claims come out false where the numbers say so; spreads over seeds are those of the textbook."""

import math
import statistics

import pytest
from scipy import stats

from danskin.errors import ConfigError
from danskin.recipes.claims import Claims
from danskin.recipes.rows import FOLDERS, plan_of
from danskin.recipes.scales import SCALES
from danskin.recipes.summary import summarize, t_quantile
from danskin.report.tables import number_text

CLAIM = {
    "name": "gap", "says": "A beats B.", "scales": ["small"], "at_least": 5, "tolerance": 1,
    "more": {"method": "a", "column": "c", "weights": "last"},
    "less": {"method": "b", "column": "c", "weights": "last"},
}  # fmt: skip


def measured(a, b, unit="share"):
    return {("", m, "c", "last"): {"mean": v, "unit": unit} for m, v in (("a", a), ("b", b))}


@pytest.mark.parametrize(
    ("a", "b", "holds"), [(0.50, 0.40, True), (0.50, 0.46, True), (0.50, 0.47, False), (0.40, 0.50, False)]
)
def test_a_claim_is_a_difference_with_a_bound(a, b, holds):
    (verdict,) = Claims.read({"claims": [CLAIM]}).judged("small", measured(a, b))
    assert verdict.value == pytest.approx(100 * (a - b)) and verdict.holds is holds
    assert verdict.outside is (not holds)


def test_a_claim_is_decided_only_where_it_says_so():
    (verdict,) = Claims.read({"claims": [CLAIM]}).judged("smoke", measured(0.4, 0.5))
    assert verdict.holds is False and not verdict.checked and not verdict.outside


def test_what_was_not_measured_does_not_hold():
    (verdict,) = Claims.read({"claims": [CLAIM]}).judged("small", {})
    assert verdict.value is None and verdict.holds is None and verdict.outside


def test_numbers_that_are_no_shares_are_taken_as_they_are():
    claim = CLAIM | {"less": 2, "at_least": None, "at_most": 0.5}
    (verdict,) = Claims.read({"claims": [claim]}).judged("small", measured(2.4, 0, "seconds"))
    assert verdict.value == pytest.approx(0.4) and verdict.holds


def test_a_side_may_be_a_difference():
    a, b = ({"method": m, "column": "c", "weights": "last"} for m in "ab")
    claim = CLAIM | {"more": {"minus": [a, b]}, "less": 4, "at_least": 0, "tolerance": 0}
    (verdict,) = Claims.read({"claims": [claim]}).judged("small", measured(0.55, 0.50))
    assert verdict.value == pytest.approx(1) and verdict.holds
    assert Claims.read({"claims": [claim]}).judged("small", {})[0].holds is None


def test_claims_without_bound_or_scale_are_refused():
    with pytest.raises(ConfigError, match="at_least or at_most"):
        Claims.read({"claims": [{k: v for k, v in CLAIM.items() if k != "at_least"}]})
    with pytest.raises(ConfigError, match="known scales"):
        Claims.read({"claims": [CLAIM | {"scales": ["huge"]}]})


@pytest.mark.parametrize("row", FOLDERS)
def test_claims_speak_of_what_is_measured(row):
    claims = Claims.of(row)
    for scale in SCALES:
        plan = plan_of(row, scale)
        known = {column.name for columns in plan.columns.values() for column in columns}
        known |= {f"{name}, worst class" for name in known} if plan.per_class else set()
        known |= {"seconds per epoch"} | {f"robust validation, epoch {e}" for e in plan.early}
        for claim in claims.claims:
            if scale not in claim["scales"]:
                continue
            sides = [claim["more"], claim.get("less", 0)]
            for side in [part for s in sides for part in (s["minus"] if isinstance(s, dict) and "minus" in s else [s])]:
                if isinstance(side, dict):
                    assert side["column"] in known and side["method"] in plan.names, claim["name"]
                    assert side.get("case", "") in plan.cases and side.get("weights", "-") in (*plan.weights, "-")
    for case, method, column, _ in claims.published:
        plan = next(p for p in (plan_of(row, scale) for scale in ("full", "small")) if case in p.cases)
        known = {c.name for c in plan.columns[case]} | {"seconds per epoch"}
        assert method in plan.names and column.removesuffix(", worst class") in known


def test_published_table_of_the_lecture():
    published = Claims.of("C8").published
    assert published["", "pgd10", "PGD-10", "best"] == 46.74 and published["", "pgd10", "PGD-10", "last"] == 39.90
    assert published["", "beta20", "APGD", "last"] == 45.25 and len(published) == 7 * 6 * 2
    assert Claims.of("C14").published["16-255", "elle_a", "AutoAttack", "last"] == 18.03


@pytest.mark.parametrize("degrees", [1, 2, 3, 9, 29, 200])
def test_quantiles_are_students(degrees):
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=2e-3)


def test_spread_over_seeds_is_students_interval():
    values = [0.42, 0.46, 0.41, 0.47]
    found = summarize(values, "share")
    low, high = stats.t.interval(0.95, 3, statistics.fmean(values), statistics.stdev(values) / 2)
    assert found["mean"] == pytest.approx(0.44) and found["sd"] == pytest.approx(statistics.stdev(values))
    assert found["interval"] == pytest.approx([low, high], abs=1e-4) and found["interval_kind"] == "t over seeds"
    assert summarize([0.01, 0.05], "share")["interval"][0] == 0.0


def test_one_seed_has_the_interval_of_its_test_set():
    found = summarize([0.5], "share", (50, 100))
    assert found["sd"] is None and "Wilson" in found["interval_kind"]
    assert found["interval"] == pytest.approx([0.404, 0.596], abs=1e-3)
    assert summarize([3.0], "seconds")["interval"] is None and math.isfinite(summarize([3.0], "seconds")["mean"])


def test_numbers_as_text():
    assert number_text(None) == "–"
    assert number_text({"mean": 0.123, "interval": None, "unit": "share", "published": None}) == "12.3"
    assert number_text({"mean": 12.34, "interval": [11, 13], "unit": "seconds"}) == "12.3 ± 1.0"
