"""Top eigenvalues and trace beside hessian-eigenthings, where it is installed."""

import pytest
import torch

from danskin.metrics import hessian_eigenvalues, hessian_trace
from danskin.testing.models import convnet

things = pytest.importorskip("hessian_eigenthings")


@pytest.fixture(scope="module")
def case():
    """(model, inputs, labels, their operator on the same two batches)."""
    g = torch.Generator().manual_seed(0)
    model = convnet(5, seed=2).double().eval()
    x, y = torch.rand(40, 3, 8, 8, generator=g, dtype=torch.float64), torch.randint(5, (40,), generator=g)
    batches = list(zip(x.split(20), y.split(20), strict=True))
    loss = things.supervised_loss(torch.nn.CrossEntropyLoss())
    return model, x, y, things.HessianOperator(model, batches, loss)


def test_ten_eigenvalues_agree(case):
    model, x, y, operator = case
    theirs = things.lanczos(operator, k=10, max_iter=80, tol=1e-8, which="LA", reorthogonalize=True, seed=0)
    ours = hessian_eigenvalues(model, x, y, 10, tolerance=1e-8, batch_size=16)
    assert theirs.converged.all()
    assert ours.converged
    torch.testing.assert_close(ours.values, theirs.eigenvalues.sort(descending=True).values, rtol=1e-6, atol=1e-9)


def test_products_with_the_identity_give_the_trace_that_draws_enclose(case):
    model, x, y, operator = case
    exact = sum(operator.matvec(e)[i].item() for i, e in enumerate(torch.eye(operator.size, dtype=torch.float64)))
    found = hessian_trace(model, x, y, 200)
    assert abs(found.value - exact) < 4 * found.std / 200**0.5
