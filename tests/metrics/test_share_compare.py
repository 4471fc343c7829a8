"""A share is compared with numbers and with other shares by its value."""

import math

import pytest

from danskin.metrics import Share


def test_a_share_is_a_number_where_one_is_wanted():
    half = Share(2, 4)
    assert (
        float(half) == 0.5 and half == 0.5 and half != 0.4 and half > 0.4 and half >= 0.5 and half < 1 and half <= 0.5
    )
    assert not half > 0.5 and not half < 0.5 and 0.4 < half < 0.6
    assert hash(half) == hash(0.5) and f"{float(half):.1%}" == "50.0%"
    assert eval(repr(half)) == half


def test_shares_are_ordered_by_value_and_equal_by_counts():
    assert Share(1, 3) < Share(1, 2) <= Share(2, 4) and max(Share(1, 3), Share(2, 3)) == Share(2, 3)
    assert Share(1, 2) != Share(2, 4) and Share(1, 2) == Share(1, 2) and Share(1, 2) != "half"


def test_a_share_of_nothing_compares_to_nothing():
    none = Share(0, 0)
    assert math.isnan(float(none)) and not none > 0 and not none < 1 and none != 0
    with pytest.raises(TypeError):
        none < None  # noqa: B015
