"""A GAN trained by two processes, on half of each batch each, is that of one process on the whole."""

import gan_worker
import pytest
import torch
from processes import in_two

from danskin.run.runtime import Runtime

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def two(tmp_path_factory, meeting):
    """What each of two processes found."""
    return in_two(gan_worker.__file__, tmp_path_factory.mktemp("gan"), meeting())


@pytest.mark.parametrize("name", gan_worker.TABLE)
def test_weights_are_those_of_one_process(name, two):
    one = gan_worker.work(Runtime(torch.device("cpu")))
    for a, b, whole in zip(two[0][name], two[1][name], one[name], strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, whole, atol=1e-6, rtol=0)


def test_batchnorm_runs_without_sending_buffers_around(two):
    for a, b in zip(two[0]["batchnorm"], two[1]["batchnorm"], strict=True):
        assert torch.equal(a, b)  # the weights agree
    pairs = list(zip(two[0]["buffers"], two[1]["buffers"], strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)  # each has seen examples of its own
