import numpy as np
import pytest


@pytest.fixture(autouse=True)
def no_data_of_the_machine(monkeypatch, tmp_path, request):
    """Tests see an empty cache, unless they ask for the real files."""
    if "real_data" not in request.fixturenames:
        monkeypatch.delenv("DANSKIN_DATA", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def real_data():
    import os

    if not os.environ.get("DANSKIN_DATA"):
        pytest.skip("needs the real data sets: set DANSKIN_DATA")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def grey(rng):
    """Arrays like MNIST: 20 train, 10 test."""
    return {
        "x_train": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "y_train": np.arange(20, dtype=np.uint8) % 10,
        "x_test": rng.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        "y_test": np.arange(10, dtype=np.uint8)[::-1].copy(),
    }
