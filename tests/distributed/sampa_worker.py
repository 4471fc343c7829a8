"""What each process does for test_sampa_distributed.py: argv = folder, case; rank r writes r.pt."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from danskin import FGSM, AdversarialTraining, InputError, Linf, Trainer
from danskin.optim import SAMPa
from danskin.run.runtime import Runtime
from danskin.training import SGD as TrainSGD
from danskin.training.sharpness import WithSAMPa

torch.set_num_threads(1)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
    )  # fmt: skip


def batch(step, pair=0):
    generator = torch.Generator().manual_seed(100 * pair + step)
    return torch.randn(8, 1, 8, 8, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def trained(lam, steps, group=None, pair=0):
    model = network()
    base = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    opt = SAMPa(base, 0.1, lam, model=model, group=group)

    def closure(batch):
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        return loss

    losses = [float(opt.step(closure, batch(step, pair))) for step in range(steps)]
    return {"state": model.state_dict(), "losses": losses, "last": vars(opt.last)}


def by_trainer(process=None):
    """Adversarial training of the trainer under SAMPa, on a batch that two processes both have."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(48, 1, 8, 8, generator=generator), torch.arange(48) % 3
    trainer = Trainer(epochs=2, batch_size=12, optimizer=WithSAMPa(TrainSGD(0.05)))
    state = trainer.start(network())
    attack = AdversarialTraining(FGSM(Linf(0.1)))
    trainer.fit(state, attack, (x[:36], y[:36]), (x[36:], y[36:]), process=process)
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds", "depth")} for row in state.history]
    return {"state": state.model.state_dict(), "history": rows}


def main(folder, case):
    if case == "trainer":
        runtime = Runtime.start("cpu")
        torch.save(by_trainer(runtime), Path(folder) / f"{runtime.rank}.pt")
        runtime.close()
        return
    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), {}
    group = dist.group.WORLD
    if case == "pairs":
        found = trained(0.2, 10, group, pair=rank // 2)
    elif case == "odd":
        try:
            trained(0.2, 2, group)
        except InputError as error:
            found = {"error": str(error)}
    elif case == "unequal":
        try:
            trained(0.2, 3, group, pair=rank)
        except InputError as error:
            found = {"error": str(error)}
    else:
        found = {lam: trained(lam, 30, group) for lam in (0.0, 0.2, 1.0)}
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()  # who ends first must not take the connection from the other
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
