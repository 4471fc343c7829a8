"""What tests with two processes share."""

import os
import subprocess
import sys
import time

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


# whole runs, through the command line


def torchrun(*words):
    """`danskin ...` in two processes."""
    return _begun("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "danskin.cli", *words)


def danskin(*words):
    """`danskin ...` in one."""
    return _begun("danskin.cli", *words)


def _begun(*words):
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, words)], env=QUIET, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process, code=0):
    """What it wrote to stdout and stderr, at its end with this exit code."""
    out, err = process.communicate(timeout=180)
    assert process.returncode == code, err
    return out, err


def wait_for_lines(process, folder, n):
    """Until the run has written n lines of metrics; it must be still at work then."""
    path = folder / "metrics.jsonl"
    while process.poll() is None and not (path.is_file() and len(path.read_bytes().splitlines()) >= n):
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()
