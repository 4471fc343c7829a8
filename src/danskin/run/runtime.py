"""Devices, threads and processes: one small object behind `danskin train`, alone or under torchrun."""

from __future__ import annotations

import datetime
import gc
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from danskin.errors import DanskinError, InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Runtime:
    """This process, its device and its peers (`danskin.training.Process`).

    Args:
        device: where tensors live.
        rank: this process among `world`.
        world: number of processes.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @staticmethod
    def start(device: str = "auto", threads: int = 0, deterministic: bool = False) -> Runtime:
        """Choose the device and, under torchrun, join the other processes.

        Raises:
            InputError: a device this machine does not have.
        """
        if threads:
            torch.set_num_threads(threads)
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        world = int(os.environ.get("WORLD_SIZE", "1"))
        chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
        if world == 1:
            return Runtime(chosen)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        # the others wait while the main process evaluates
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=datetime.timedelta(hours=24))
        return Runtime(chosen, dist.get_rank(), dist.get_world_size())

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> Callable[..., Any]:
        """The model with gradients averaged over the processes; attacks use the raw one."""
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        ddp: Any = nn.parallel.DistributedDataParallel
        new = "forward_sync_buffers"  # the name since torch 2.13
        name = new if new in inspect.signature(ddp).parameters else "broadcast_buffers"
        return ddp(model, device_ids=ids, **{name: False})

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def average_buffers(self, model: nn.Module) -> None:
        """Replace running statistics by their mean over the processes."""
        if self.world > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.world

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            dist.barrier()

    def share(self, value: Any) -> Any:
        """The main process's value, everywhere."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def on_main(self, act: Callable[[], T]) -> T | None:
        """What `act` returns, on the main process, which alone does it; an error of danskin is raised in all."""
        value, error = None, None
        if self.main:
            try:
                value = act()
            except DanskinError as raised:
                error = raised
        error = self.share(error)
        if error is not None:
            raise error
        return value

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes on the main one, in the order of their ranks; [] elsewhere."""
        if self.world == 1:
            return [value]
        out: list[Any] | None = [None] * self.world if self.main else None
        dist.gather_object(value, out, dst=0)
        return out or []

    def close(self) -> None:
        """Leave the others."""
        if self.world > 1 and dist.is_initialized():
            # A wrapper that outlives the group is its last owner: it waits for gloo's threads, holding the GIL they
            # want (a deadlock), or crashes at exit. So those left in reference cycles go first.
            gc.collect()
            dist.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank)
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {name!r}; use auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device: expected a device of this machine, got {name!r} but no CUDA device; use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device: expected one of {torch.cuda.device_count()} CUDA devices, got {name!r}; count from cuda:0"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device: expected a device of this machine, got {name!r} but no MPS; use cpu or auto")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local_rank)
    return device
