"""What each of two processes does for test_optim_distributed.py; rank r writes r.pt into the folder argv[1].

The two processes take half of each batch and must walk the path of one process that takes it whole: with weights in
shards (fully_shard), and with replicas (DistributedDataParallel).
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from danskin import AESAM, ASAM, GSAM, SAM, FriendlySAM, LookSAM
from danskin.optim import Plain
from danskin.run.runtime import Runtime
from danskin.testing import check_optimizer_in_processes

METHODS = {
    "plain": Plain,
    "sam": lambda base, **o: SAM(base, 0.3, **o),
    "asam": lambda base, **o: ASAM(base, 0.7, **o),
    "gsam": lambda base, **o: GSAM(base, 0.3, rho_min=0.1, lr_max=0.2, **o),
    "friendly": lambda base, **o: FriendlySAM(base, 0.3, **o),
    "look": lambda base, **o: LookSAM(base, 0.3, k=3, **o),
    "look by tensor": lambda base, **o: LookSAM(base, 0.3, k=3, per_tensor=True, **o),
    "look by layer": lambda base, **o: LookSAM(base, 0.3, k=3, layerwise=True, **o),
    "ae": lambda base, **o: AESAM(base, 0.3, steps=8, **o),
    "clipped": lambda base, **o: SAM(base, 0.3, clip=0.05, **o),
}
STEPS = 8


def network(seed=0):
    """With a width that two processes cannot share evenly, and one row that only one of them holds."""
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 1))
    return layers.double()


def batch(step, runtime):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(12, 5, dtype=torch.float64, generator=generator)
    part = slice(runtime.rank, None, runtime.world)
    return x[part], x.prod(1)[part]


def closure_of(model, step, runtime, factor=1.0, rows=slice(None)):
    x, y = (t[rows] for t in batch(step, runtime))

    def closure():
        loss = F.mse_loss(model(x)[:, 0], y)
        (loss * factor).backward()
        return loss

    return closure


def base(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)


def sharded(model, runtime):
    """Each layer in two shards; as it is in one process."""
    if runtime.world > 1:
        from torch.distributed.fsdp import fully_shard

        mesh = dist.init_device_mesh("cpu", (runtime.world,)) if hasattr(dist, "init_device_mesh") else None
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


def full(tensors):
    return [(t.full_tensor() if hasattr(t, "full_tensor") else t).detach().clone() for t in tensors]


def walked(model, opt, runtime, steps=range(STEPS)):
    taken = []
    for step in steps:
        opt.step(closure_of(model, step, runtime))
        taken.append(opt.last.gradients)
    return taken


def in_shards(runtime):
    found = {}
    for name, make in METHODS.items():
        model = sharded(network(), runtime)
        opt = make(base(model))
        taken = walked(model, opt, runtime)
        found[name] = {"weights": full(model.parameters()), "norm": opt.last.norm, "taken": taken}
    return found


def in_replicas(runtime):
    found = {}
    for name, make in METHODS.items():
        raw = network()
        model = runtime.wrap(raw)
        opt = make(base(raw), model=model)
        taken = walked(model, opt, runtime)
        found[name] = {"weights": full(raw.parameters()), "norm": opt.last.norm, "taken": taken}
    return found


def in_parts(runtime):
    """Each process takes its half of a batch in two micro-batches."""
    found = {}
    for kind in ("shards", "replicas"):
        raw = network()
        model = sharded(raw, runtime) if kind == "shards" else runtime.wrap(raw)
        opt = METHODS["sam"](base(raw), model=model)
        for step in range(STEPS):
            opt.step([closure_of(model, step, runtime, rows=rows) for rows in (slice(0, 3), slice(3, 6))])
        found[kind] = {"weights": full(raw.parameters()), "taken": opt.last.gradients}
    return found


def local_shifts(runtime):
    """A shift for each process: SAM, and methods whose first gradient is sometimes stepped along."""
    found = {}
    for name in ("sam", "asam", "ae"):
        raw = network()
        model = runtime.wrap(raw)
        opt = METHODS[name](base(raw), model=model, perturbation="local")
        taken = walked(model, opt, runtime)
        found[name] = {"weights": full(raw.parameters()), "taken": taken}
    return found


def not_finite(runtime):
    """One process alone meets a NaN, in the first or in the second pass."""
    found = {}
    for kind in ("shards", "replicas", "local"):
        for bad in (0, 1):
            raw = network()
            model = sharded(raw, runtime) if kind == "shards" else runtime.wrap(raw)
            options = {} if kind == "shards" else {"model": model}
            options |= {"perturbation": "local"} if kind == "local" else {}
            opt = METHODS["sam"](base(raw), **options)
            opt.step(closure_of(model, 0, runtime))
            before, calls = full(raw.parameters()), []

            def closure(model=model, calls=calls, bad=bad):
                wrong = runtime.rank == 1 and len(calls) == bad
                calls.append(0)
                return closure_of(model, 1, runtime, float("nan") if wrong else 1.0)()

            opt.step(closure)
            after = full(raw.parameters())
            found[f"{kind} {bad}"] = {
                "skipped": opt.skipped,
                "calls": len(calls),
                "same": all(torch.equal(a, b) for a, b in zip(before, after, strict=True)),
            }
    return found


def checkpointed(runtime, folder):
    """torch.distributed.checkpoint while gradients are set: weights of the run that went on, and of the resumed one."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    found = {}
    for name, make in METHODS.items():
        model = sharded(network(), runtime)
        opt = make(base(model))
        walked(model, opt, runtime, range(4))
        assert all(p.grad is not None for p in model.parameters())
        weights, state = get_state_dict(model, opt)
        place = str(Path(folder) / f"checkpoint {name}")
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=place)
        walked(model, opt, runtime, range(4, STEPS))
        later = sharded(network(seed=3), runtime)
        again = make(base(later, lr=0.7))
        weights, state = get_state_dict(later, again)
        held = {"model": weights, "optimizer": state}
        dcp.load(held, checkpoint_id=place)
        set_state_dict(later, again, model_state_dict=held["model"], optim_state_dict=held["optimizer"])
        walked(later, again, runtime, range(4, STEPS))
        found[name] = {"whole": full(model.parameters()), "resumed": full(later.parameters()), "steps": again.steps}
    return found


def work(runtime, folder=None):
    found = {"shards": in_shards(runtime)}
    if runtime.world > 1:
        found |= {"replicas": in_replicas(runtime), "local": local_shifts(runtime), "bad": not_finite(runtime)}
        found["parts"] = in_parts(runtime)
        found["checkpoint"] = checkpointed(runtime, folder)
        for make in METHODS.values():
            check_optimizer_in_processes(lambda raw, model, make=make: make(base(raw), model=model))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    runtime = Runtime.start("cpu")
    torch.save(work(runtime, sys.argv[1]), Path(sys.argv[1]) / f"{runtime.rank}.pt")
    runtime.close()
