"""Power vectors, exported weights and constants of 1-Lipschitz layers on two processes are those of one process."""

import lipschitz_worker
import pytest
import torch
from processes import in_two

from danskin.run.runtime import Runtime

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def two(tmp_path_factory, meeting):
    """What each of two processes found."""
    return in_two(lipschitz_worker.__file__, tmp_path_factory.mktemp("lipschitz"), meeting())


@pytest.fixture(scope="module")
def one():
    return lipschitz_worker.work(Runtime(torch.device("cpu")))


@pytest.mark.parametrize("wrap", lipschitz_worker.WRAPS)
def test_power_vectors_exports_and_constants_agree_and_are_those_of_one_process(wrap, two, one):
    """Also of ranks that began with other seeds, where torch's wrapper sends parameters and buffers around."""
    first, second, whole = (found[wrap] for found in (*two, one))
    assert first["constants"] == second["constants"] == pytest.approx(whole["constants"], rel=1e-9)
    assert max(whole["constants"]) < 1.02
    for part in ("state", "exported"):
        for name, held in whole[part].items():
            assert torch.equal(first[part][name], second[part][name]), name
            torch.testing.assert_close(first[part][name], held, atol=1e-9, rtol=0)
    assert {"0.u", "3.u"} <= set(whole["state"])
