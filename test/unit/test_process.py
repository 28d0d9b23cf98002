"""How programs treat the machine: idle threads sleep, and freed memory is kept."""

import ctypes
import os
import subprocess
import sys

import pytest

from pixloc_ros.common.process import PASSIVE_WAITING

PROGRAM = """
import resource
from pixloc_ros.common.process import keep_freed_memory

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


WHAT_IS_SET = """
import os, sys
from pixloc_ros.common.process import PASSIVE_WAITING
import pixloc_ros.cli.main as program
def build(called):
    print("torch" in sys.modules, *map(os.environ.get, PASSIVE_WAITING))
    return lambda: None
program.build = build
program.main()
"""


def test_programs_let_idle_threads_sleep_before_torch_is_loaded() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in PASSIVE_WAITING}
    command = [sys.executable, "-c", WHAT_IS_SET]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.split() == ["False", *PASSIVE_WAITING.values()]


def test_a_wait_policy_of_the_user_stays() -> None:
    environment = {**os.environ, "OMP_WAIT_POLICY": "ACTIVE"}
    command = [sys.executable, "-c", WHAT_IS_SET]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.split()[1] == "ACTIVE"
