"""Curvature of the mean loss at the weights: top eigenvalues and trace of its Hessian. LECTURE row D5."""

from __future__ import annotations

import torch
from torch import Tensor

from danskin.inputs import whole_number
from danskin.losses import LossName
from danskin.metrics.average import Average
from danskin.metrics.lanczos import Eigenpairs, Which, lanczos
from danskin.metrics.saliency import Model
from danskin.metrics.weights import mean_loss


def hessian_eigenvalues(
    model: Model,
    x: Tensor,
    y: Tensor,
    k: int = 1,
    *,
    which: Which = "largest",
    tolerance: float = 1e-3,
    most: int = 200,
    basis: int | None = None,
    loss: LossName = "cross_entropy",
    batch_size: int = 256,
    seed: int = 0,
) -> Eigenpairs:
    r"""The k largest (or smallest) eigenvalues of the Hessian of (1/n) sum_i loss(f(w, x_i), y_i) in all weights w.

    By Lanczos on Hessian-vector products, each a double backward over all batches. Eval mode: BatchNorm computes with
    its running statistics, dropout is off. The model is left as found. Piecewise linear networks have a Hessian
    almost everywhere, which knows nothing of the kinks. The values change when weights are rescaled without changing
    the function (Dinh et al., ICML 2017): compare networks of one architecture, trained alike but for one thing.

    Args:
        model: inputs to logits; its parameters that require gradients are the weights.
        x: (n, ...) inputs.
        y: (n,) labels.
        k: how many.
        which: "largest", "smallest" (the most negative curvature) or "magnitude".
        tolerance: residual relative to the largest eigenvalue found.
        most: products at most; see `converged` of the result.
        basis: vectors of the size of the weights that are held; default max(2 k + 20, 30).
        loss: by name.
        batch_size: examples in a pass; changes memory and rounding only.
        seed: of the start vector.

    Returns:
        Eigenvalues with eigenvectors in the order of the parameters, residuals, number of products.

    Reference: Foret et al., "Sharpness-aware minimization", ICLR 2021, section 4.2. Lecture: row D5.

    >>> import torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([1, -1])
    >>> hessian_eigenvalues(net, x, y, 2, loss="squared").values.round(decimals=3)  # of 2 x'x / n
    tensor([4., 1.], dtype=torch.float64)
    """
    with mean_loss(model, x, y, loss, batch_size) as f:
        dice = torch.Generator().manual_seed(whole_number(seed, "seed"))
        start = torch.randn(f.d, generator=dice, dtype=torch.float64).to(f.here)
        return lanczos(f.product, start, k, which=which, tolerance=tolerance, most=most, basis=basis)


def hessian_trace(
    model: Model,
    x: Tensor,
    y: Tensor,
    draws: int = 100,
    *,
    loss: LossName = "cross_entropy",
    batch_size: int = 256,
    seed: int = 0,
) -> Average:
    r"""The trace of the Hessian of the mean loss in all weights, as the mean of <z, H z> over random signs z.

    The standard error is `std / sqrt(n)` of the result, `interval` is value +- 1.96 of them. The variance of a draw is
    2 (|H|_F^2 - sum_i H_ii^2): 0 for a diagonal matrix.

    Args:
        model: inputs to logits; see `hessian_eigenvalues`.
        x: (n, ...) inputs.
        y: (n,) labels.
        draws: random vectors, a Hessian-vector product each, >= 2.
        loss: by name.
        batch_size: examples in a pass.
        seed: of the vectors.

    Reference: Hutchinson, Communications in Statistics 1989. Lecture: row D5.
    """
    draws = whole_number(draws, "draws", 2)
    dice = torch.Generator().manual_seed(whole_number(seed, "seed"))
    with mean_loss(model, x, y, loss, batch_size) as f:
        found = []
        for _ in range(draws):
            signs = torch.randint(2, (f.d,), generator=dice, dtype=torch.int8).to(f.here) * 2 - 1
            found.append((signs.double() * f.product(signs).double()).sum())
        return Average.of(torch.stack(found))
