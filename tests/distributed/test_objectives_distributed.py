"""Each objective on the halves of a batch in two processes gives the gradients of one process on the whole of it."""

import objectives_worker
import pytest
import torch
from processes import in_two

from danskin.run.runtime import Runtime

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def two(tmp_path_factory, meeting):
    """What each of two processes found."""
    return in_two(objectives_worker.__file__, tmp_path_factory.mktemp("two"), meeting())


@pytest.fixture(scope="module")
def one():
    """What a single process finds."""
    return objectives_worker.work(Runtime(torch.device("cpu")))


@pytest.mark.parametrize("name", objectives_worker.TABLE)
def test_gradients_and_memory_are_those_of_the_whole_batch(name, two, one):
    for t in two:
        for a, b in zip(t[name]["gradients"], one[name]["gradients"], strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
        assert t[name]["memory"].keys() == one[name]["memory"].keys()
        for key, b in one[name]["memory"].items():
            if not key.startswith("free."):  # belongs to this process's examples
                torch.testing.assert_close(t[name]["memory"][key], b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", objectives_worker.TABLE)
def test_processes_agree(name, two):
    for a, b in zip(two[0][name]["gradients"], two[1][name]["gradients"], strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_the_table_can_fail(one):
    """The objectives differ: these are not the gradients of one of them, and steps of memory change them."""
    last = {name: found["gradients"][-2] for name, found in one.items()}
    for name, gradient in last.items():
        for other, g in last.items():
            same = name.replace(" layerwise", "") == other.replace(" layerwise", "")
            assert same or (gradient - g).abs().max() > 1e-6, (name, other)
