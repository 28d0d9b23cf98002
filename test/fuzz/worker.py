"""Works through batches of cases in a process of its own, which may hang, grow or die.

Reads lines `{"target": name, "seed": n, "cases": n}` and answers each with a line. The case in work
lies in FOLDER/case.pickle, which is new for each case.
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz.harness import Target, attempt
from fuzz.targets import TARGETS


def run(target: Target, number: int, cases: int, folder: Path) -> dict[str, Any]:
    """One batch: how many cases were accepted and refused, and the fault that ended it, if any."""
    tally, begin_s = {"accepted": 0, "refused": 0}, time.monotonic()

    @seed(number)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases())
    def check(case: Any) -> None:
        (folder / "case.pickle").write_bytes(pickle.dumps((target.name, case)))
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            accepted = attempt(target, case, Path(scratch))
        tally["accepted" if accepted else "refused"] += 1

    fault = ""
    try:
        check()
    except Exception as error:
        fault = _place(error)
        (folder / "traceback.txt").write_text(traceback.format_exc(limit=-12))
    return {**tally, "fault": fault, "seconds": time.monotonic() - begin_s}


def _place(error: BaseException) -> str:
    """Class of an exception and the last of our lines that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "pixloc_ros/" in frame.filename] or frames
    name = ours[-1].filename.rpartition("pixloc_ros/")[2]
    return f"{type(error).__name__} at {name}:{ours[-1].lineno}"


def main() -> None:
    folder = Path(sys.argv[1])
    by_name = {target.name: target for target in TARGETS}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        result = run(by_name[order["target"]], order["seed"], order["cases"], folder)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
