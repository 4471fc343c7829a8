"""A WGAN-GP step beside its bare forward and backward passes, written by hand without anything else.

    python bench/gan.py [--rounds 40] [--out bench/results/gan.json]

A step: M = 5 critic steps (generator without gradients, critic on real, on generated, on points between them with
the gradient in the inputs, one backward pass of all of it in the weights, Adam), then one generator step. The bare
passes are these same passes and optimiser steps with batches that are already there: nothing is drawn, logged, checked
or looked up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from danskin.gan import GANTrainer, GradientPenalty, Wasserstein, critic_conv, critic_mlp, generator_conv, generator_mlp

CASES = {
    "mlp 64-64-64 in the plane, batch 128": ((2,), "mlp", 128, 2),
    "convolutions of width 32 on 28x28, batch 64": ((1, 28, 28), "conv", 64, 64),
}


def networks(shape, kind, latent):
    torch.manual_seed(0)
    if kind == "mlp":
        return generator_mlp(shape=shape, latent=latent), critic_mlp(shape=shape)
    return generator_conv(shape=shape, latent=latent), critic_conv(shape=shape)


def ours(shape, kind, batch, latent):
    trainer = GANTrainer(Wasserstein(), GradientPenalty(10), critic_steps=5, batch_size=batch)
    run = trainer.start(*networks(shape, kind, latent), latent)
    x = torch.rand(10 * batch, *shape)
    return lambda: run.step(x)


def bare(shape, kind, batch, latent):
    G, D = networks(shape, kind, latent)
    g, d = (torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.9), fused=True) for net in (G, D))
    x, w, eps = torch.rand(batch, *shape), torch.randn(batch, latent), torch.rand(batch, *[1] * len(shape))
    weights, own = list(D.parameters()), list(G.parameters())

    def step():
        for _ in range(5):
            with torch.no_grad():
                z = G(w)
            points = torch.lerp(z, x, eps).requires_grad_()
            loss = D(z).mean() - D(x).mean()
            (slope,) = torch.autograd.grad(D(points).sum(), points, create_graph=True)
            loss = loss + 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
            for p, found in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                p.grad = found
            d.step()
        for p, found in zip(own, torch.autograd.grad(-D(G(w)).mean(), own), strict=True):
            p.grad = found
        g.step()

    return step


def measure(case, rounds):
    """Medians of interleaved steps, in CPU seconds of this process, and the median of the ratios round by round."""
    calls = {"danskin": ours(*case), "bare": bare(*case)}
    seconds = {name: [] for name in calls}
    for k in range(rounds + 3):
        for name in sorted(calls, reverse=bool(k % 2)):
            began = time.process_time()
            calls[name]()
            if k >= 3:
                seconds[name].append(time.process_time() - began)
    ratios = [a / b for a, b in zip(seconds["danskin"], seconds["bare"], strict=True)]
    return {name: statistics.median(v) for name, v in seconds.items()} | {"ratio": statistics.median(ratios)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gan.json")
    words = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for name, case in CASES.items():
        rows[name] = measure(case, words.rounds)
        print(name, {k: round(v, 5) for k, v in rows[name].items()}, flush=True)
    found = {"torch": torch.__version__, "threads": 1, "rounds": words.rounds, "limit": 1.1, "rows": rows}
    words.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
