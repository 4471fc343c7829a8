"""SAMPa on pairs of processes: replicas equal each other and one process in every bit."""

import pytest
import sampa_worker
import torch
from processes import together

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_two_processes_are_one_in_every_bit(tmp_path, meeting):
    two = together(sampa_worker.__file__, tmp_path, meeting(), "two")
    torch.set_num_threads(1)
    for lam in (0.0, 0.2, 1.0):
        one = sampa_worker.trained(lam, 30)
        for rank in two:
            assert same(rank[lam]["state"], one["state"]) and rank[lam]["losses"] == one["losses"]
            assert rank[lam]["last"]["depth"] == 1 and one["last"]["depth"] == 2 and not rank[lam]["last"]["skipped"]


def test_the_trainer_on_two_processes_is_the_trainer_on_one(tmp_path, meeting):
    two = together(sampa_worker.__file__, tmp_path, meeting(), "trainer")
    torch.set_num_threads(1)
    one = sampa_worker.by_trainer()
    for rank in two:
        assert same(rank["state"], one["state"]) and rank["history"] == one["history"]


def test_an_odd_number_of_processes(tmp_path, meeting):
    for found in together(sampa_worker.__file__, tmp_path, meeting(), "odd", count=1):
        assert "expected an even number of processes, one for each of two gradients, got 1" in found["error"]


def test_processes_with_other_batches(tmp_path, meeting):
    for found in together(sampa_worker.__file__, tmp_path, meeting(), "unequal"):
        assert "expected the same batch on both processes of a pair, got 8 and 8 rows" in found["error"]


@pytest.mark.slow
def test_two_pairs_average_their_gradients(tmp_path, meeting):
    four = together(sampa_worker.__file__, tmp_path, meeting(), "pairs", count=4)
    weights = [{k: v for k, v in rank["state"].items() if "running" not in k} for rank in four]
    assert all(same(weights[0], other) for other in weights[1:])
    assert same(four[0]["state"], four[1]["state"]) and same(four[2]["state"], four[3]["state"])
    alone = sampa_worker.trained(0.2, 10)["state"]
    assert not same(weights[0], {k: v for k, v in alone.items() if "running" not in k})
