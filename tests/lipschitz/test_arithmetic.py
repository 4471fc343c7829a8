"""What may be made of two bounds, and what may not."""

import pytest

from danskin.errors import InputError
from danskin.lipschitz import LipschitzBound

UP, LOW, GUESS = (LipschitzBound(v, k, k) for v, k in ((2.0, "upper"), (1.5, "lower"), (1.8, "estimate")))


def test_upper_bounds_compose_and_add():
    assert (UP * UP).value == 4 and (UP + UP).value == 4 and (3 * UP).value == 6 and (UP * -3).value == 6
    assert (UP * UP).kind == "upper" and (GUESS * GUESS).kind == "estimate" and not (GUESS * GUESS).certified


@pytest.mark.parametrize(("a", "b"), [(UP, LOW), (UP, GUESS), (LOW, GUESS), (GUESS, UP)])
def test_kinds_do_not_mix(a, b):
    for made in (lambda: a * b, lambda: a + b):
        with pytest.raises(InputError, match="one kind"):
            made()


def test_lower_bounds_do_not_compose_as_functions_may_cancel():
    for made in (lambda: LOW * LOW, lambda: LOW + LOW):
        with pytest.raises(InputError, match="lower bounds"):
            made()


def test_norms_must_meet():
    mixed = LipschitzBound(2.0, "upper", "m", 2, "inf")
    assert (mixed * UP).norm_out == "inf" and (mixed * UP).norm_in == 2
    with pytest.raises(InputError, match="norm"):
        UP * mixed
    with pytest.raises(InputError, match="norms"):
        UP + mixed


def test_an_outer_bound_must_hold_for_all_inputs():
    near = LipschitzBound(1.0, "upper", "local", domain="near 0")
    assert (UP * near).domain == "near 0"
    with pytest.raises(InputError, match="for all inputs"):
        near * UP
    with pytest.raises(InputError, match="domain"):
        near + UP


def test_what_is_no_number_is_refused():
    for value in (float("nan"), -1.0):
        with pytest.raises(InputError, match="value"):
            LipschitzBound(value, "upper", "m")
    with pytest.raises(InputError, match="kind"):
        LipschitzBound(1.0, "about", "m")
