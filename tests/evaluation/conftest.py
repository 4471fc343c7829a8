import pytest
import torch
import torch.nn.functional as F

from danskin.data import load, to_float
from danskin.models import build


@pytest.fixture(scope="session")
def digits_net():
    """(model, x, y): a small CNN trained for a few seconds on noisy digits, and 90 test images."""
    data = load("digits")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build("small_cnn", input_shape=(1, 8, 8), classes=10)
        x, y = to_float(data.x_train), data.y_train
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(150):
            rows = torch.randint(len(x), (64,))
            noisy = (x[rows] + 0.15 * torch.randn_like(x[rows]).sign()).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(model(noisy), y[rows]).backward()
            optimizer.step()
    return model.eval(), to_float(data.x_test[:90]), data.y_test[:90]
