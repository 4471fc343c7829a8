"""Shares class by class."""

import math

import pytest
import torch

from danskin.errors import InputError
from danskin.metrics import Share
from danskin.metrics.per_class import PerClass


def drawn(n=200, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (n,), generator=g)
    clean = torch.rand(n, generator=g) < 0.8
    return y, clean, clean & (torch.rand(n, generator=g) < 0.2 + 0.15 * y)


def test_counts_against_a_loop():
    y, clean, robust = drawn()
    found = PerClass.of(y, clean, robust, classes=6)
    for k in range(6):
        mine = y == k
        assert found.clean[k] == Share(int(clean[mine].sum()), int(mine.sum()))
        assert found.robust[k] == Share(int(robust[mine].sum()), int(mine.sum()))
    values = [float(robust[y == k].double().mean()) for k in range(4)]
    assert found.known == (0, 1, 2, 3)
    assert found.worst == min(range(4), key=values.__getitem__) == 0
    assert found.best == max(range(4), key=values.__getitem__)
    assert found.gap == pytest.approx(max(values) - min(values))
    assert found.balanced == pytest.approx(sum(values) / 4)


def test_disjoint_parts_add_up():
    y, clean, robust = drawn()
    parts = [PerClass.of(y[s], clean[s], robust[s], 4) for s in (slice(70), slice(70, None))]
    assert parts[0] + parts[1] == PerClass.of(y, clean, robust)
    with pytest.raises(InputError, match="same number of classes"):
        parts[0] + PerClass.of(y, clean, robust, 5)


def test_no_examples():
    none = PerClass.of(torch.zeros(0, dtype=torch.long), *[torch.zeros(0, dtype=torch.bool)] * 2, classes=2)
    assert none.worst is None and math.isnan(none.gap) and math.isnan(none.balanced)


def test_wrong_input_is_refused():
    y, clean, robust = drawn()
    for bad in ((y[:3], clean, robust), (y, clean.float(), robust), (y - 1, clean, robust), (y + 1, clean, robust)):
        with pytest.raises(InputError, match="expected"):
            PerClass.of(*bad, classes=4)
