"""Curvature in the weights: Lanczos, Hessian-vector products and the trace against dense matrices and closed forms."""

import math

import pytest
import torch
from torch import nn

from danskin.errors import InputError, ModelError
from danskin.losses import get_loss
from danskin.metrics.hessian import hessian_eigenvalues, hessian_trace
from danskin.metrics.lanczos import lanczos
from danskin.metrics.weights import mean_loss


def symmetric(d, values=None, seed=0):
    """A matrix with these eigenvalues, and its eigenvectors in columns."""
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q
    values = torch.randn(d, generator=g, dtype=torch.float64) if values is None else torch.as_tensor(values).double()
    return q @ values.diag() @ q.T, q


def start(d):
    return torch.randn(d, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = (part[:, None] for part in self.qkv(x.reshape(len(x), 2, 4)).chunk(3, -1))  # one head: fused on CPUs
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v)[:, 0].mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.first(x).tanh())


def networks():
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(2)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return {
        "tanh": nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)),
        "relu": nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)),
        "batchnorm": nn.Sequential(
            nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 2, 1), norm, nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 3)
        ),
        "attention": Attention(),
        "tied": Tied(),
    }


NETWORKS = networks()


def examples(n=12, dtype=torch.float64):
    g = torch.Generator().manual_seed(3)
    return torch.randn(n, 8, generator=g, dtype=dtype), torch.randint(3, (n,), generator=g)


def dense(model, x, y, loss="cross_entropy"):
    """The Hessian by torch.func, on one batch, in eval mode, without a line of ours but the loss."""
    weights = {n: p.detach() for n, p in model.named_parameters()}
    shapes, sizes = [w.shape for w in weights.values()], [w.numel() for w in weights.values()]

    def value(flat):
        parts = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            logits = torch.func.functional_call(model.eval(), dict(zip(weights, parts, strict=True)), (x,))
        return get_loss(loss).function(logits, y).mean()

    flat = torch.cat([w.reshape(-1) for w in weights.values()])
    return torch.autograd.functional.hessian(value, flat)


# --- Lanczos on matrices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("k", [1, 4])
def test_lanczos_finds_the_wanted_end_of_a_dense_spectrum(which, k):
    a, _ = symmetric(80)
    found = lanczos(lambda v: a @ v, start(80), k, which=which, tolerance=1e-10, most=2000)
    values = torch.linalg.eigvalsh(a)
    order = {"largest": -values, "smallest": values, "magnitude": -values.abs()}[which].argsort()
    torch.testing.assert_close(found.values, values[order][:k], atol=1e-9, rtol=0)
    assert found.converged


def test_a_restarted_basis_finds_what_an_unbounded_one_does():
    a, _ = symmetric(200, torch.linspace(0, 1, 200) ** 3)
    product = lambda v: a @ v  # noqa: E731
    long = lanczos(product, start(200), 3, tolerance=1e-9, most=200, basis=200)
    short = lanczos(product, start(200), 3, tolerance=1e-9, most=2000, basis=12)
    torch.testing.assert_close(long.values, short.values, atol=1e-8, rtol=0)
    assert short.products > long.products


def test_residuals_are_those_of_the_returned_vectors_and_enclose_an_eigenvalue():
    a, _ = symmetric(60)
    found = lanczos(lambda v: a @ v, start(60), 2, tolerance=0.1, most=8)
    values = torch.linalg.eigvalsh(a)
    for value, u, residual in zip(found.values, found.vectors, found.residuals, strict=True):
        assert u.norm().item() == pytest.approx(1, abs=1e-12)
        assert residual.item() == pytest.approx((a @ u - value * u).norm().item(), rel=1e-9)
        assert (values - value).abs().min() <= residual + 1e-12
    assert found.values[0] <= values[-1] + 1e-12


def test_too_few_products_are_not_called_converged():
    a, _ = symmetric(300, torch.linspace(0.9, 1, 300))
    found = lanczos(lambda v: a @ v, start(300), 1, tolerance=1e-8, most=5)
    assert not found.converged
    assert found.products == 6
    assert found.residuals[0] > 1e-8


def test_no_eigenvalue_comes_out_twice_and_multiple_ones_come_out_as_often_as_they_are():
    a, _ = symmetric(40, [5.0, 5.0, 3.0] + [0.0] * 37)
    found = lanczos(lambda v: a @ v, start(40), 4, tolerance=1e-10)
    torch.testing.assert_close(found.values, torch.tensor([5.0, 5, 3, 0]).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(4).double(), atol=1e-8, rtol=0)


def test_the_zero_matrix_has_eigenvalue_zero():
    found = lanczos(torch.zeros_like, start(9), 2)
    assert found.values.tolist() == [0, 0]
    assert found.converged


@pytest.mark.parametrize(
    ("options", "told"),
    [({"k": 9}, "k: "), ({"k": 0}, "k: "), ({"which": "top"}, "which: "), ({"tolerance": 0}, "tolerance: "),
     ({"basis": 2}, "basis: "), ({"start": torch.zeros(8)}, "start: ")],
)  # fmt: skip
def test_bad_settings_of_lanczos_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        lanczos(lambda v: v, **({"start": start(8)} | options))


def test_products_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="finite"):
        lanczos(lambda v: v * math.nan, start(5))


# --- the Hessian of networks --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_products_and_eigenvalues_are_those_of_the_dense_hessian(name):
    model, (x, y) = NETWORKS[name].double(), examples()
    h = dense(model, x, y)
    with mean_loss(model, x, y, batch_size=5) as f:
        v = start(f.d)
        torch.testing.assert_close(f.product(v), h @ v, atol=1e-10, rtol=1e-8)
    values = torch.linalg.eigvalsh(h)
    found = hessian_eigenvalues(model, x, y, 3, tolerance=1e-9, most=1000, batch_size=7)
    torch.testing.assert_close(found.values, values.flip(0)[:3], atol=1e-8, rtol=0)
    low = hessian_eigenvalues(model, x, y, 1, which="smallest", tolerance=1e-9, most=1000)
    assert low.values[0].item() == pytest.approx(values[0].item(), abs=1e-8)


def test_gradients_are_those_of_the_mean_over_all_batches():
    model, (x, y) = NETWORKS["tanh"].double(), examples()
    loss = get_loss("cross_entropy").function(model(x), y).mean()
    wanted = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
    with mean_loss(model, x, y, batch_size=5) as f:
        value, slope = f.gradient()
    assert value == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(slope, wanted, rtol=1e-10, atol=1e-14)


def test_linear_regression_has_the_spectrum_of_its_second_moments():
    x = torch.randn(50, 6, dtype=torch.float64)
    y = torch.where(torch.rand(50) < 0.5, 1, -1)
    model = nn.Linear(6, 1, bias=False).double()
    wanted = torch.linalg.eigvalsh(2 * x.T @ x / 50)
    found = hessian_eigenvalues(model, x, y, 6, loss="squared", tolerance=1e-9)
    torch.testing.assert_close(found.values, wanted.flip(0), atol=1e-9, rtol=0)
    trace = hessian_trace(model, x, y, 400, loss="squared")
    low, high = trace.interval
    assert low <= wanted.sum() <= high
    assert trace.std == pytest.approx(hutchinson_deviation(2 * x.T @ x / 50), rel=0.2)


def hutchinson_deviation(h):
    """The standard deviation of z'Hz over random signs."""
    return (2 * (h.square().sum() - h.diagonal().square().sum())).sqrt().item()


def test_the_trace_of_a_diagonal_hessian_is_exact():
    x = torch.diag(torch.tensor([1.0, 2, 3])).double()
    found = hessian_trace(nn.Linear(3, 1, bias=False).double(), x, torch.tensor([1, -1, 1]), 2, loss="squared")
    assert found.value == pytest.approx(2 * (1 + 4 + 9) / 3)
    assert found.std == pytest.approx(0, abs=1e-9)


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature():
    found = hessian_eigenvalues(nn.Linear(2, 1, bias=False), torch.ones(3, 2), torch.tensor([-1, -1, -1]), loss="hinge")
    assert found.values.tolist() == [0]


def test_float32_agrees_with_float64():
    import copy

    model, (x, y) = NETWORKS["tanh"].double(), examples()
    exact = hessian_eigenvalues(model, x, y, 2, tolerance=1e-9).values
    single = hessian_eigenvalues(copy.deepcopy(model).float(), x.float(), y, 2, tolerance=1e-4)
    torch.testing.assert_close(single.values, exact, rtol=1e-3, atol=1e-5)
    assert single.converged


def test_the_model_is_left_as_found():
    model, (x, y) = NETWORKS["batchnorm"].float().train(), examples(dtype=torch.float32)
    model[1].weight.requires_grad_(False)
    model[-1].weight.grad = torch.ones_like(model[-1].weight)
    before, state = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    hessian_eigenvalues(model, x, y)
    hessian_trace(model, x, y, 2)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not model[1].weight.requires_grad
    assert model[-1].weight.grad.eq(1).all()
    assert model[-1].bias.grad is None
    for n, t in model.state_dict().items():
        assert torch.equal(t, before[n]), n
    model[1].weight.requires_grad_(True)


def test_frozen_weights_are_no_part_of_the_hessian():
    model, (x, y) = NETWORKS["tanh"].double(), examples()
    model[0].requires_grad_(False)
    try:
        last = slice(8 * 5 + 5, None)
        wanted = torch.linalg.eigvalsh(dense(model, x, y)[last, last])[-1]
        assert hessian_eigenvalues(model, x, y, tolerance=1e-9).values[0].item() == pytest.approx(wanted.item())
    finally:
        model[0].requires_grad_(True)


def test_compiled_and_wrapped_models_are_taken_for_what_is_inside():
    model, (x, y) = NETWORKS["tanh"].double(), examples()
    wanted = hessian_eigenvalues(model, x, y).values
    assert torch.equal(hessian_eigenvalues(torch.compile(model, backend="eager"), x, y).values, wanted)
    assert torch.equal(hessian_eigenvalues(lambda inputs: model(inputs), x, y).values, wanted)


@pytest.mark.parametrize(
    ("change", "told"),
    [({"x": torch.zeros(4, 8, dtype=torch.uint8)}, "x: "), ({"x": torch.zeros(0, 8)}, "x: "),
     ({"loss": "targeted_dlr"}, "loss: "), ({"loss": "zero_one"}, "loss: "), ({"batch_size": 0}, "batch_size: "),
     ({"model": nn.ReLU()}, "model: "), ({"y": torch.tensor([0, 1, 2, 9])}, "labels|y: ")],
)  # fmt: skip
def test_bad_input_of_the_hessian_is_refused(change, told):
    given = {"model": nn.Linear(8, 3), "x": torch.zeros(4, 8), "y": torch.tensor([0, 1, 2, 0])} | change
    with pytest.raises(InputError, match=told):
        hessian_eigenvalues(**given)


def test_a_model_that_detaches_is_told():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Linear(8, 3)

        def forward(self, x):
            return self.inside(x).detach()

    with pytest.raises(ModelError, match="without a gradient"):
        hessian_eigenvalues(Detached(), torch.zeros(2, 8), torch.tensor([0, 1]))


@pytest.mark.parametrize("draws", [0, 1])
def test_one_draw_has_no_error_bar(draws):
    with pytest.raises(InputError, match="draws"):
        hessian_trace(nn.Linear(8, 3), torch.zeros(2, 8), torch.tensor([0, 1]), draws)
