"""Memory of the programs: what a frame frees is there for the next one."""

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from pixloc_ros.common.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        b"x" * 50_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

mapped_anew = faults()
keep_freed_memory()
faults()
print(mapped_anew, faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="libc is not glibc")
def test_large_blocks_are_not_mapped_anew_each_time() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    mapped_anew, kept = map(int, run.stdout.split())
    assert mapped_anew > 10_000
    assert kept < 100
