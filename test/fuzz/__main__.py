"""Try every boundary for so long, and say what came of it.

    make fuzz MINUTES=60
    python -m fuzz --minutes 60 --target bag --output build/fuzz

Batches of all targets take turns in a process that is watched: a case that takes more than 10 s of
the processor, or 2 GB, or ends the process, is a fault as an exception is. Each fault lies in
OUTPUT with its case, which `python -m fuzz --replay FILE` tries again. Ends with 1 if there are
any.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pickle
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fuzz.harness import Target, attempt
from helpers.limits import MAX_CPU_S

BATCH, LARGE_BATCH = 3, 10  # times as many cases as the tests try; where these are many, too
MANY = 100
KILL_CPU_S = 2 * MAX_CPU_S
KILL_BYTES = 3_500_000_000  # with the libraries and the samples


@dataclass
class Tally:
    """What came of the cases of one target."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def cases(self) -> int:
        return self.accepted + self.refused + self.faults.total()


class Worker:
    """The process that tries cases; replaced by another where one has ended it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pixloc_fuzz_worker_"))
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, target: Target, seed: int) -> dict[str, Any]:
        """What came of a batch."""
        if self._process is None:
            command = [sys.executable, "-X", "faulthandler", "-m", "fuzz.worker", str(self.folder)]
            errors = (self.folder / "stderr.txt").open("wb")
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
            self._answer(self._process)
        assert self._process.stdin is not None
        cases = (LARGE_BATCH if target.quick >= MANY else BATCH) * target.quick
        order = {"target": target.name, "seed": seed, "cases": cases}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer(self._process)

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """The next line of the process; its end, if that comes first."""
        assert process.stdout is not None
        watch, case = psutil.Process(process.pid), self.folder / "case.pickle"
        seen, begin_cpu_s = None, 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(timeout=0.2):
                if process.poll() is not None:
                    break
                now = case.stat().st_mtime_ns if case.exists() else None
                cpu_s = sum(watch.cpu_times()[:2])
                if now != seen:
                    seen, begin_cpu_s = now, cpu_s
                if seen is not None and cpu_s - begin_cpu_s > KILL_CPU_S:
                    return self._end(f"hang: more than {KILL_CPU_S:g} s of the processor")
                if watch.memory_info().rss > KILL_BYTES:
                    return self._end(f"memory: more than {KILL_BYTES / 1e9:g} GB")
            if line := process.stdout.readline():
                return dict(json.loads(line))
        return self._end("")

    def _end(self, why: str) -> dict[str, Any]:
        """End the process, which says where it is."""
        assert self._process is not None
        if why:
            self._process.send_signal(signal.SIGABRT)
        code = self._process.wait()
        self._process = None
        text = (self.folder / "stderr.txt").read_text(errors="replace")[-4000:]
        (self.folder / "traceback.txt").write_text(text)
        fault = why or f"the process ended with {code}"
        return {"accepted": 0, "refused": 0, "seconds": 0.0, "fault": fault}


def fuzz(options: argparse.Namespace) -> dict[str, Tally]:
    """Try batches of all targets in turn until the time is over."""
    from fuzz.targets import TARGETS

    targets = [t for t in TARGETS if not options.target or options.target in t.name]
    tallies = {target.name: Tally() for target in targets}
    options.output.mkdir(parents=True, exist_ok=True)
    worker, end_s = Worker(), time.monotonic() + 60 * options.minutes
    try:
        for seed in itertools.count(options.seed):
            for target in targets:
                if time.monotonic() > end_s:
                    return tallies
                result = worker.run(target, seed)
                _add(tallies[target.name], result, target.name, worker.folder, options.output)
            (options.output / "statistics.md").write_text(table(tallies))
    except KeyboardInterrupt:
        pass
    finally:
        worker.close()
    return tallies


def _add(tally: Tally, result: dict[str, Any], name: str, folder: Path, output: Path) -> None:
    tally.accepted += result["accepted"]
    tally.refused += result["refused"]
    tally.seconds += result["seconds"]
    fault = result["fault"]
    if not fault:
        return
    tally.faults[fault] += 1
    if tally.faults[fault] == 1:
        label = "".join(c if c.isalnum() else "_" for c in f"{name} {fault}")[:120]
        for kept, suffix in (("case.pickle", ".pickle"), ("traceback.txt", ".txt")):
            if (folder / kept).exists():
                shutil.copy(folder / kept, output / f"{label}{suffix}")
        print(f"{name}: {fault}", flush=True)


def table(tallies: dict[str, Tally]) -> str:
    """What came of all targets, in Markdown."""
    lines = [
        "| target | cases | accepted | refused | faults | minutes |",
        "|---|---|---|---|---|---|",
    ]
    rows = [*tallies.items(), ("all", _sum(tallies))]
    for name, t in rows:
        kinds = f"{t.faults.total()} of {len(t.faults)} kinds" if t.faults else "0"
        counts = f"{t.cases} | {t.accepted} | {t.refused}"
        lines.append(f"| {name} | {counts} | {kinds} | {t.seconds / 60:.1f} |")
    return "\n".join(lines) + "\n"


def _sum(tallies: dict[str, Tally]) -> Tally:
    total = Tally()
    for name, tally in tallies.items():
        total.accepted += tally.accepted
        total.refused += tally.refused
        total.seconds += tally.seconds
        total.faults.update({f"{name}: {fault}": n for fault, n in tally.faults.items()})
    return total


def replay(file: Path) -> None:
    """Try a case that was kept once more, here."""
    from fuzz.targets import TARGETS

    name, case = pickle.loads(file.read_bytes())  # of our own making
    (target,) = (target for target in TARGETS if target.name == name)
    with tempfile.TemporaryDirectory() as folder:
        print("accepted" if attempt(target, case, Path(folder)) else "refused")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--target", default="", help="only those whose name holds this")
    parser.add_argument("--seed", type=int, default=1, help="of the first batches")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--replay", type=Path, help="a case that was kept")
    options = parser.parse_args()
    if options.replay:
        replay(options.replay)
        return 0
    tallies = fuzz(options)
    print(table(tallies), end="")
    return int(any(tally.faults for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
