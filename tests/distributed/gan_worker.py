"""What each of two processes does for test_gan_distributed.py; rank r writes r.pt into the folder argv[1]."""

import sys
from pathlib import Path

import torch

from danskin.gan import R1R2, GANTrainer, GradientPenalty, Relativistic, Wasserstein
from danskin.gan.networks import critic_conv, critic_mlp, generator_conv, generator_mlp
from danskin.gan.optimizers import SGD
from danskin.run.runtime import Runtime

PLAIN = {"generator_optimizer": SGD(0.1), "critic_optimizer": SGD(0.1), "batch_size": 8}
TABLE = {
    "gp": GANTrainer(Wasserstein(), GradientPenalty(1, where="data"), critic_steps=2, **PLAIN),
    "simultaneous": GANTrainer(Relativistic(), R1R2(1), order="simultaneous", **PLAIN),
}
BETWEEN = GANTrainer(Wasserstein(), GradientPenalty(1), critic_steps=2, batch_size=8, ema=0.9)


def work(runtime):
    """Weights of both players after three steps, by name; and of a generator with BatchNorm, the average's buffers."""
    out = {}
    for name, trainer in TABLE.items():
        torch.manual_seed(0)
        run = trainer.start(generator_mlp(shape=(2,), hidden=(8,)), critic_mlp(shape=(2,), hidden=(8,)), 2, 0, runtime)
        for _ in range(3):
            run.step(lambda n, g: torch.randn(n, 2, generator=g) + 2)
        out[name] = [p.detach().clone() for side in run.sides for p in side]
    torch.manual_seed(0)
    net = generator_conv(shape=(1, 8, 8), latent=3, width=4)
    run = BETWEEN.start(net, critic_conv(shape=(1, 8, 8), width=4), 3, 0, runtime)
    for _ in range(2):
        run.step(torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    out["batchnorm"] = [p.detach().clone() for side in run.sides for p in side]
    out["buffers"] = [b.clone() for b in run.sampler.buffers()]
    return out


if __name__ == "__main__":
    found = Runtime.start("cpu")
    torch.save(work(found), Path(sys.argv[1]) / f"{found.rank}.pt")
    found.close()
