"""Freed memory is kept: blocks of a pass are not faulted in again by the next."""

import os
import platform
import subprocess
import sys

import pytest

PASSES = """
import resource, torch
from danskin.cli.allocator import keep_freed_memory
print(keep_freed_memory() if {asked} else None)
torch.set_num_threads(1)
def run():
    blocks = [torch.full((1 << 20,), 1.0) for _ in range(40)]
for _ in range(3):
    run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(asked, **environment):
    """(what was answered, page faults of five passes of 160 MB) in a process of its own."""
    others = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", PASSES.format(asked=asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=others | environment)
    answer, count = done.stdout.split()
    return answer, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_blocks_are_kept_unless_the_user_says_otherwise():
    answer, kept = faults(True)
    assert answer == "True" and kept < 200
    answer, count = faults(True, MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="65536")
    assert answer == "False" and count > 10_000


def test_another_c_library_is_left_alone(monkeypatch):
    from danskin.cli import allocator

    for name in allocator._USERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert allocator.keep_freed_memory() is False
