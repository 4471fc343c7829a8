"""What tests with two processes share."""

import os
import subprocess
import sys

import torch

QUIET = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def in_two(script, folder, meeting):
    """Run a worker script in two processes that find each other; what each of them wrote into the folder."""
    environment = QUIET | meeting
    words = [sys.executable, "-W", "error::FutureWarning", script, str(folder)]
    ranks = ({"RANK": r, "LOCAL_RANK": r} for r in "01")
    processes = [subprocess.Popen(words, env=environment | rank, stderr=subprocess.PIPE, text=True) for rank in ranks]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in "01"]
