"""What tests with two processes share."""

import os
import subprocess
import sys

import torch

QUIET = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def together(script, folder, meeting, *words, count=2):
    """Run a worker script in processes that find each other; what each of them wrote into the folder."""
    environment = QUIET | meeting | {"WORLD_SIZE": str(count)}
    command = [sys.executable, "-W", "error::FutureWarning", script, str(folder), *words]
    ranks = ({"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(count))
    processes = [subprocess.Popen(command, env=environment | rank, stderr=subprocess.PIPE, text=True) for rank in ranks]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, errors
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(count)]


def in_two(script, folder, meeting):
    """`together`, in two processes."""
    return together(script, folder, meeting)
