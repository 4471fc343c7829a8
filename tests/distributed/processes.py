"""What tests with two processes share."""

import os
import socket
import subprocess
import sys

import torch

QUIET = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def in_two(script, folder):
    """Run a worker script in two processes; what each of them wrote into the folder."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    environment = QUIET | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = [sys.executable, "-W", "error::FutureWarning", script, str(folder)]
    ranks = ({"RANK": r, "LOCAL_RANK": r} for r in "01")
    processes = [subprocess.Popen(words, env=environment | rank, stderr=subprocess.PIPE, text=True) for rank in ranks]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in "01"]
