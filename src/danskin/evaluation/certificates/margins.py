"""From bounds of a network to bounds of margins: by Lipschitz constants, intervals, lines, and better slopes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from danskin.errors import ModelError
from danskin.evaluation.certificates.backward import STYLES, Bounds
from danskin.evaluation.certificates.region import Region
from danskin.evaluation.certificates.slopes import improved
from danskin.lipschitz.chain import chain_of
from danskin.lipschitz.covariance import fast, last_covariance, slopes_everywhere
from danskin.lipschitz.lipsdp import best_ts
from danskin.lipschitz.network import Network
from danskin.lipschitz.product import folded, node_constants

_ENTRIES = 1 << 20  # of a matrix, and
_HIDDEN = 512  # neurons, up to which covariances are computed: seconds at most, once for a network


def differences(y: Tensor, outputs: tuple[int, ...]) -> Tensor:
    """(n, k, *outputs): the rows whose products with the outputs are the margins.

    e_y - e_j for all j != y, k = classes - 1; for a single output, the label y in {-1, +1} itself, k = 1.
    """
    classes = math.prod(outputs)
    if classes == 1:
        return y.double().view(-1, 1, *outputs)
    unit = torch.eye(classes, dtype=torch.float64, device=y.device)
    others = torch.arange(classes - 1, device=y.device).expand(len(y), -1)
    others = others + (others >= y[:, None])  # all classes but y
    return unit[y][:, None] - unit[others]


class Lipschitz:
    r"""Lipschitz bounds of one network: margins at any number of points cost a pass each.

    The product bound for every network; for a chain of matrices and elementwise activations, where it is small, also
    the covariances C of LipSDP (`danskin.lipschitz.covariance`), which say of each row a by itself
    \|<a, dz>\| <= \|dx\|_2 sqrt(a^T W C W^T a) with the logits z = W h + b.

    Args:
        network: which; its constants are computed once.
    """

    def __init__(self, network: Network) -> None:
        slim = folded(network)
        constants, _ = node_constants(slim)
        # folding keeps activations, sums and the input, so the tail starts at the same operation
        self.network, self.before = network, constants[slim.affine_tail()]
        self.covariances = _covariances(network)

    def margins(self, region: Region, rows: Tensor, logits: Tensor) -> Tensor:
        r"""(n,): min_j  m_j(x) - L_j r.

        The margin is m_j = <a_j, h> + const with the last activations h. Better than sqrt(2) L for all pairs (Tsuzuku
        et al., NeurIPS 2018), as each pair has its own row a_j.
        """
        clean = (rows * logits[:, None]).flatten(2).sum(2)
        pulled = self.network.pull_tail(rows.flatten(0, 1)).flatten(1)
        steep = self.before * torch.linalg.vector_norm(pulled, dim=1) * (1 + 1e-9)
        for last, c in self.covariances:
            pulled = rows.flatten(0, 1).flatten(1) @ last
            steep = torch.minimum(steep, ((pulled @ c) * pulled).sum(1).clamp_min(0).sqrt() * (1 + 1e-9))
        return (clean - steep.view(clean.shape) * region.l2_radius[:, None]).amin(1)


def _covariances(network: Network) -> list[tuple[Tensor, Tensor]]:
    """The last matrix W, and C of what it is applied to, for input differences of length 1; none of large networks."""
    try:
        chain = chain_of(network, entries=_ENTRIES)
    except ModelError:
        return []
    slopes = slopes_everywhere(chain)
    if not slopes or chain.hidden > _HIDDEN:
        return []
    ts = [fast(chain.weights, slopes), best_ts(chain.weights, slopes, math.inf)]
    found = (last_covariance(chain.weights, slopes, t) for t in ts if t is not None)
    return [(chain.weights[-1], c) for c in found if c is not None]


def of_intervals(bounds: Bounds, rows: Tensor) -> Tensor:
    """(n, k): the margins if all outputs vary independently."""
    low, high = bounds.intervals[-1]
    return torch.where(rows > 0, rows * low[:, None], rows * high[:, None]).flatten(2).sum(2)


def of_lines(bounds: Bounds, rows: Tensor) -> Tensor:
    """(n, k): bounds of the margins by backward passes of both styles."""
    n, k = rows.shape[:2]
    last = len(bounds.network.nodes) - 1
    a = rows.flatten(0, 1)
    example = torch.arange(n, device=a.device).repeat_interleave(k)
    parts = []
    for some in torch.arange(n * k, device=a.device).split(bounds.rows_per_pass(last)):
        passes = [bounds.least(last, a[some], example[some], style, exact=True) for style in STYLES]
        parts.append(torch.maximum(*passes))
    return torch.cat(parts).view(n, k)


def of_slopes(bounds: Bounds, rows: Tensor, found: Tensor, goal: Tensor) -> Tensor:
    """(n, k): `found` where it is above the goal (n,), else what better slopes make of it."""
    k = rows.shape[1]
    last = len(bounds.network.nodes) - 1
    open_ = (found <= goal[:, None]).flatten().nonzero().flatten()
    example = open_ // k
    better = found.flatten().clone()
    better[open_] = improved(bounds, last, rows.flatten(0, 1)[open_], example, better[open_], goal[example])
    return better.view(found.shape)
