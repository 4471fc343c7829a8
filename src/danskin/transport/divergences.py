"""Divergences: of discrete measures in closed form, and from below by a discriminator. Lecture: row E8."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from danskin.errors import InputError, suggest

_SUM = 1e-6


def _pair(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    out = []
    for name, w in (("p", p), ("q", q)):
        if w.ndim != 1 or not w.is_floating_point() or not len(w):
            raise InputError(f"{name}: expected probabilities (k,), got {w.dtype} of shape {tuple(w.shape)}")
        if not bool(w.isfinite().all()) or float(w.min()) < 0 or abs(float(w.double().sum()) - 1) > _SUM:
            raise InputError(f"{name}: expected finite numbers of at least 0 with sum 1, got others; divide by the sum")
        out.append(w.double() / w.double().sum())
    if len(out[0]) != len(out[1]):
        raise InputError(f"p and q: expected one length, got {len(p)} and {len(q)}; use the same bins")
    return out[0], out[1]


def kullback_leibler(p: Tensor, q: Tensor) -> float:
    """KL(p | q) = sum p log(p / q), in nats; infinite where q has no mass and p has.

    Args:
        p: probabilities (k,).
        q: probabilities (k,).
    """
    u, v = _pair(p, q)
    return float(torch.special.xlogy(u, u).sum() - torch.special.xlogy(u, v).sum())


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half of the l1 distance: the largest difference of the probabilities of an event, in [0, 1].

    Args:
        p: probabilities (k,).
        q: probabilities (k,).
    """
    u, v = _pair(p, q)
    return float((u - v).abs().sum() / 2)


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """JSD(p, q) = KL(p | m)/2 + KL(q | m)/2 with m = (p + q)/2, in [0, log 2] nats; its root is a metric.

    The slides write half of KL(p | q) + KL(q | p) for it. That is half of Jeffreys' divergence, which is infinite where
    supports differ, and not what the vanilla GAN minimises: max over D of V = 2 JSD - log 4 holds for this form only.

    Args:
        p: probabilities (k,).
        q: probabilities (k,).

    Lecture:
        E8

    >>> round(jensen_shannon(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5])), 5)
    0.34657
    """
    u, v = _pair(p, q)
    m = (u + v) / 2
    found = 0.0
    for w in (u, v):
        found += float((torch.special.xlogy(w, w) - torch.special.xlogy(w, m)).sum()) / 2
    return min(max(found, 0.0), math.log(2))


@dataclass(frozen=True)
class FDivergence:
    """D_f(P | Q) = E_Q f(dP/dQ) >= E_P T - E_Q f*(T) for any T; equality at T = f'(dP/dQ).

    Args:
        name: of it.
        f: the convex function, f(1) = 0.
        terms: from logits of a discriminator (at best log dP/dQ) on points of P and of Q to the terms T and f*(T).
    """

    name: str
    f: Callable[[Tensor], Tensor]
    terms: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def of(self, p: Tensor, q: Tensor) -> float:
        """D_f(p | q) of probabilities (k,) where q has mass wherever p has."""
        u, v = _pair(p, q)
        kept = v > 0
        if bool((u[~kept] > 0).any()):
            raise InputError(
                f"{self.name}: expected q to have mass where p has, got none at a place; use jensen_shannon"
            )
        return float((v[kept] * self.f(u[kept] / v[kept])).sum())


F_DIVERGENCES = {
    found.name: found
    for found in (
        FDivergence("kl", lambda u: torch.special.xlogy(u, u), lambda s, t: (1 + s, t.exp())),
        FDivergence("reverse_kl", lambda u: -u.log(), lambda s, t: (-(-s).exp(), t - 1)),
        FDivergence("chi_square", lambda u: (u - 1) ** 2, lambda s, t: (2 * s.expm1(), (2 * t).exp() - 1)),
        FDivergence(
            "squared_hellinger", lambda u: (u.sqrt() - 1) ** 2, lambda s, t: (-(-s / 2).expm1(), (t / 2).expm1())
        ),
        FDivergence("total_variation", lambda u: (u - 1).abs() / 2, lambda s, t: (s.sign() / 2, t.sign() / 2)),
        FDivergence(
            "jensen_shannon",
            lambda u: (torch.special.xlogy(u, u) - (1 + u) * ((1 + u) / 2).log()) / 2,
            lambda s, t: (math.log(2) / 2 - softplus(-s) / 2, softplus(t) / 2 - math.log(2) / 2),
        ),
    )
}


@dataclass(frozen=True)
class Estimate:
    """A mean over samples.

    Args:
        value: in nats, where the divergence has a logarithm.
        standard_error: over the draw of the samples, the discriminator being fixed.
    """

    value: float
    standard_error: float

    @property
    def lower(self) -> float:
        """Two standard errors below: with some 97.7 % a lower bound of the divergence."""
        return self.value - 2 * self.standard_error


def from_discriminator(real: Tensor, fake: Tensor, kind: str = "jensen_shannon") -> Estimate:
    """The lower bound of a divergence that a discriminator proves, from its logits on fresh samples.

    E_P T - E_Q f*(T) with T = f'(exp s). Its mean is at most D_f(P | Q) whatever the discriminator, and equal to it for
    the best one, s = log p/q. For Jensen and Shannon it is (V + log 4)/2 with the vanilla GAN's V: at most log 2.
    Samples that the discriminator was trained on make it too large.

    Args:
        real: logits on points of P, (n,).
        fake: logits on points of Q, (m,).
        kind: a key of `F_DIVERGENCES`.

    Raises:
        InputError: another kind; fewer than two logits of either; NaN.

    Reference:
        Goodfellow et al. 2014, Theorem 1; Nguyen, Wainwright and Jordan 2010; Nowozin, Cseke and Tomioka 2016.

    Lecture:
        E8
    """
    if kind not in F_DIVERGENCES:
        raise InputError(f"kind: expected a known divergence, got {kind!r}; {suggest(str(kind), F_DIVERGENCES)}")
    logits = []
    for name, s in (("real", real), ("fake", fake)):
        flat = s.detach().double().reshape(-1)
        if len(flat) < 2 or bool(flat.isnan().any()):
            raise InputError(f"{name}: expected two or more logits that are numbers, got {len(flat)} or NaN among them")
        logits.append(flat)
    left, right = F_DIVERGENCES[kind].terms(*logits)
    variance = float(left.var() / len(left) + right.var() / len(right))
    return Estimate(float(left.mean() - right.mean()), variance**0.5)
