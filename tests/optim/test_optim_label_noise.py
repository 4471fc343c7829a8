"""What sharpness-aware steps are for, and what they are not: wrong labels, and a quadratic that tells a bad variant."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from danskin.optim import SAM, Plain, SAMPa

EPOCHS, BATCH, TRAIN = 60, 64, 1000


def noisy_digits(seed):
    """1,000 digits, 40 % of whose labels are other ones, and 797 with right labels."""
    images, labels = (torch.as_tensor(t) for t in load_digits(return_X_y=True))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    x, y = (images[order] / 16).float(), labels[order]
    wrong = torch.rand(TRAIN, generator=generator) < 0.4
    given = torch.where(wrong, (y[:TRAIN] + torch.randint(1, 10, (TRAIN,), generator=generator)) % 10, y[:TRAIN])
    return (x[:TRAIN], given), (x[TRAIN:], y[TRAIN:])


def accuracy(make, seed):
    (x, y), (held, truth) = noisy_digits(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    opt = make(base)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, EPOCHS * (TRAIN // BATCH))

    def closure(rows):
        loss = F.cross_entropy(model(x[rows]), y[rows], label_smoothing=0.1)
        loss.backward()
        return loss

    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAIN).split(BATCH)[: TRAIN // BATCH]:
            if isinstance(opt, SAMPa):
                opt.step(closure, rows)
            else:
                opt.step(lambda rows=rows: closure(rows))
            schedule.step()
    with torch.no_grad():
        return 100 * float((model(held).argmax(1) == truth).float().mean())


@pytest.mark.slow
def test_under_label_noise_sam_gains_points_and_sampa_gains_the_same():
    """Three seeds, paired; on clean digits nothing separates the methods."""
    rows = [
        [accuracy(make, seed) for make in (Plain, lambda b: SAM(b, 0.2), lambda b: SAMPa(b, 0.2, lam=0.0))]
        for seed in range(3)
    ]
    assert all(sam - plain > 5 for plain, sam, _ in rows), rows
    assert abs(sum(sampa - sam for _, sam, sampa in rows) / 3) < 2, rows


RHO, STEPS = 0.1, 1000


def stale(start):
    """f = |w|^2 with shifts along the gradient of the shifted weights of the step before: one gradient a step."""
    w, last, path = start, None, []
    for t in range(STEPS):
        along = 2 * w if last is None else last
        last = 2 * (w + RHO * along / along.norm())
        w = w - 0.1 / math.sqrt(t + 1) * last
        path.append(float((2 * w).norm()))
    return path


def test_on_a_quadratic_a_stale_shift_parks_at_its_radius_and_sam_and_sampa_do_not():
    """Accuracy on data does not tell such a variant ("OptSAM") from SAM; this does.

    On a line it comes to rest at |w| = rho, where its shift leads to the minimum. Off the line rounding grows, it
    leaves again, and its gradient does not become small either.
    """
    torch.manual_seed(0)
    start = torch.randn(10, dtype=torch.float64)
    assert stale(start[:1])[-50:] == pytest.approx([2 * RHO] * 50, rel=1e-3)
    assert max(stale(start)[-50:]) ** 2 > 1e-4
    for make in (lambda b: SAM(b, RHO), lambda b: SAMPa(b, RHO, lam=0.0)):
        p = nn.Parameter(start.clone())
        opt = make(torch.optim.SGD([p], lr=0.1))

        def closure(batch=None, p=p):
            loss = p.square().sum()
            loss.backward()
            return loss

        for t in range(STEPS):
            opt.param_groups[0]["lr"] = 0.1 / math.sqrt(t + 1)
            opt.step(closure, 0) if isinstance(opt, SAMPa) else opt.step(closure)
        assert float((2 * p.detach()).square().sum()) < 1e-5
