"""Every test starts from the same seed, and workers of pytest-xdist do not fight over cores."""

import os
import random

import numpy as np
import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_seed():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries draw from the global state
    torch.manual_seed(0)
