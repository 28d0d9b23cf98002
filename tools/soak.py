"""Play a bag to a node repeatedly, and check whether memory, threads or latency grow.

    . tools/ros_env.sh
    python tools/soak.py --map MAP --bag BAG --output DIR --minutes 25 --rate 2.5
    python tools/soak.py --map MAP --bag BAG --output DIR --minutes 25 --faults 1
    python tools/soak.py --map MAP --bag BAG --output DIR --minutes 1 --beside 1 --neighbour torch

Writes samples.csv and soak.png to DIR, and prints the second tenth of the time (the first fills
caches) next to the last. Exits with status 1 if the node died or anything grew. The node runs with
use_sim_time on the bag's clock, which goes back with every round.

With --faults SEED each round has a fault (`soak_faults.py`), and each image is sent as soon as the
previous one was answered. The seed fixes the order. Also writes faults.json, and also exits with
status 1 if an image was not answered, a pose was wrong or a round did not end with poses again.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np
import psutil
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from soak_faults import FaultyDrive, write_maps

from pixloc_ros.evaluation.neighbours import neighbours
from pixloc_ros.msg import AlignmentStatus

RUN = [sys.executable, "-m", "pixloc_ros.ros.executable"]
NODE = [*RUN, "node", "--ros-args"]
PLAYER = [*RUN, "bag_player"]
WARM_UP_FRAMES = 10  # not counted for the latency
LATEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# By how much the last tenth may exceed the second. Latency is only reported, because it depends on
# other programs on the machine; CPU time is judged.
ALLOWED = {"memory_mb": 30.0, "threads": 0.0, "files": 1.0, "cpu_s_per_frame": 0.2}


@dataclass(frozen=True, slots=True)
class Sample:
    """Measurements of one interval."""

    elapsed_s: float
    bag_time_s: float  # played so far, in all rounds
    rounds: int  # number of times the clock went back
    frames: int  # answered in this interval
    accepted: int
    latency_ms: float  # median over them
    memory_mb: float  # resident, at the end
    threads: int
    files: int  # open descriptors
    cpu_s_per_frame: float  # of the process, for all its work in this time
    callbacks_cpu_s: float  # of the thread of the callbacks, since the node began


class Listener(Node):
    """Collects statuses and follows the clock of the bag."""

    def __init__(self) -> None:
        super().__init__("soak")
        self.rounds = 0
        self.bag_time_s = 0.0
        self.latencies_ms: list[float] = []
        self._clock_s: float | None = None
        self._statuses: list[AlignmentStatus] = []
        status = "pixloc_localizer/status"
        self.create_subscription(AlignmentStatus, status, self._statuses.append, 50)
        self.create_subscription(Clock, "/clock", self._on_clock, LATEST)

    def take(self) -> list[AlignmentStatus]:
        """Return the statuses since the last call."""
        taken = list(self._statuses)
        self._statuses.clear()
        self.latencies_ms += [status.latency_ms for status in taken]
        return taken

    def _on_clock(self, message: Clock) -> None:
        now_s = message.clock.sec + 1e-9 * message.clock.nanosec
        before_s, self._clock_s = self._clock_s, now_s
        if before_s is not None and now_s < before_s:
            self.rounds += 1
        elif before_s is not None:
            self.bag_time_s += now_s - before_s


def measure(
    listener: Listener, process: psutil.Process, options: argparse.Namespace
) -> list[Sample]:
    """Take one sample per interval, from the first status until time is up or the node dies."""
    samples: list[Sample] = []
    try:
        while not listener.take():
            _spin(listener, 1.0, process)
        start_s, cpu_s = time.monotonic(), _cpu_s(process)
        while time.monotonic() - start_s < 60.0 * options.minutes:
            _spin(listener, options.interval, process)
            before_s, cpu_s = cpu_s, _cpu_s(process)
            elapsed_s = time.monotonic() - start_s
            samples.append(_sample(listener, process, elapsed_s, cpu_s - before_s))
            _write(options.output / "samples.csv", samples)
    except psutil.Error:
        pass  # the node is gone
    return samples


def measure_faults(
    drive: FaultyDrive, process: psutil.Process, options: argparse.Namespace
) -> list[Sample]:
    """Take one sample per interval of whole rounds, until time is up or the node dies.

    Sampling begins when every fault has happened once: until then code is loaded and heaps grow.
    """
    samples: list[Sample] = []
    try:
        drive.wait_for_node()
        start_s, cpu_s = time.monotonic(), _cpu_s(process)
        sampled_s = start_s
        while (now_s := time.monotonic()) - start_s < 60.0 * options.minutes:
            drive.play_round()
            _write_counts(options.output / "faults.json", drive)
            if now_s - sampled_s < options.interval:
                continue
            before_s, cpu_s = cpu_s, _cpu_s(process)
            sampled_s, sample = now_s, _sample(drive, process, now_s - start_s, cpu_s - before_s)
            if drive.every_fault_happened:
                samples.append(sample)
                _write(options.output / "samples.csv", samples)
    except psutil.Error:
        pass  # the node is gone
    return samples


def _write_counts(path: Path, drive: FaultyDrive) -> None:
    counts = {name: asdict(each) for name, each in sorted(drive.counts.items())}
    path.write_text(json.dumps({"faults": counts, "lines": drive.lines}, indent=1) + "\n")


def _is_sound(drive: FaultyDrive) -> bool:
    """Print the result of each kind of fault; return whether all were as required."""
    columns = ("times", "frames", "accepted", "unanswered", "wrong", "unrecovered")
    print(f"{'fault':38}" + "".join(f"{name:>12}" for name in columns))
    for name, counts in sorted(drive.counts.items()):
        print(f"{name:38}" + "".join(f"{getattr(counts, column):12}" for column in columns))
    print(*drive.lines, sep="\n")
    bad = [c for c in drive.counts.values() if c.unanswered or c.wrong or c.unrecovered]
    return not bad and not drive.lines


def _spin(listener: Listener, seconds: float, process: psutil.Process) -> None:
    """Listen for some seconds. Raises psutil.NoSuchProcess if the process ends meanwhile."""
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        rclpy.spin_once(listener, timeout_sec=left_s)
        if process.status() == psutil.STATUS_ZOMBIE:
            raise psutil.NoSuchProcess(process.pid)


def _sample(
    listener: Listener | FaultyDrive, process: psutil.Process, elapsed_s: float, cpu_s: float
) -> Sample:
    statuses = listener.take()
    latencies_ms = [status.latency_ms for status in statuses]
    return Sample(
        elapsed_s=elapsed_s,
        bag_time_s=listener.bag_time_s,
        rounds=listener.rounds,
        frames=len(statuses),
        accepted=sum(status.localized for status in statuses),
        latency_ms=float(np.median(latencies_ms)) if statuses else np.nan,
        memory_mb=process.memory_info().rss / 1e6,
        threads=process.num_threads(),
        files=process.num_fds(),
        cpu_s_per_frame=cpu_s / len(statuses) if statuses else np.nan,
        callbacks_cpu_s=_callbacks_cpu_s(process),
    )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _callbacks_cpu_s(process: psutil.Process) -> float:
    """Return the CPU time of the main thread, which runs the callbacks."""
    (main,) = (each for each in process.threads() if each.id == process.pid)
    return float(main.user_time + main.system_time)


def _write(path: Path, samples: Sequence[Sample]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(samples[0])))
        writer.writeheader()
        writer.writerows(asdict(sample) for sample in samples)


def compare(samples: Sequence[Sample]) -> bool:
    """Print the second and the last tenth side by side; return whether anything grew."""
    tenth = max(1, len(samples) // 10)
    early, late = samples[tenth : 2 * tenth], samples[-tenth:]
    frames, accepted = (sum(getattr(s, name) for s in samples) for name in ("frames", "accepted"))
    last = samples[-1]
    print(
        f"{last.elapsed_s / 60:.1f} min, {last.bag_time_s / 60:.1f} min of bag time in "
        f"{last.rounds + 1} rounds, {frames} frames answered, {accepted} accepted"
    )
    grown = False
    for name in ("latency_ms", *ALLOWED):
        before, after = (
            float(np.nanmedian([getattr(s, name) for s in part])) for part in (early, late)
        )
        too_much = after - before > ALLOWED.get(name, np.inf)
        grown |= too_much
        print(f"{name:16} {before:10.2f} {after:10.2f}{'  GROWN' if too_much else ''}")
    return grown


def draw(path: Path, samples: Sequence[Sample]) -> None:
    """Plot the samples over time."""
    from matplotlib import pyplot as plt

    names = ("memory_mb", "threads", "latency_ms", "cpu_s_per_frame")
    figure, axes = plt.subplots(len(names), 1, sharex=True, figsize=(8, 8), layout="constrained")
    minutes = [sample.elapsed_s / 60 for sample in samples]
    for axis, name in zip(axes, names, strict=True):
        axis.plot(minutes, [getattr(sample, name) for sample in samples])
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=110)


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process; end it as a user would."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def soak(options: argparse.Namespace) -> int:
    """Play a bag as it was recorded; return the exit status."""
    parameters = [f"map:={options.map}", "use_sim_time:=true"]
    player = [*PLAYER, str(options.bag), "--clock", "--loop", "--rate", str(options.rate)]
    with (
        neighbours(options.beside, options.neighbour),
        running(_node(options, parameters), options.output / "node.log") as process,
        running([*player, "--timeout", "120"], options.output / "player.log"),
    ):
        listener = Listener()
        samples = measure(listener, psutil.Process(process.pid), options)
        died = process.poll() is not None
    latencies_ms = listener.latencies_ms[WARM_UP_FRAMES:]
    if latencies_ms:
        p50, p95 = np.percentile(latencies_ms, [50, 95])
        print(f"latency of {len(latencies_ms)} frames: median {p50:.0f} ms, p95 {p95:.0f} ms")
    if len(samples) > 1:
        first, last = samples[0], samples[-1]
        spent_s = last.callbacks_cpu_s - first.callbacks_cpu_s
        share = spent_s / (last.elapsed_s - first.elapsed_s)
        print(f"thread of the callbacks: {100 * share:.1f} % of a core")
    return _conclude(samples, died, options)


def soak_with_faults(options: argparse.Namespace) -> int:
    """Inject random faults; return the exit status."""
    maps = options.output / "maps"
    write_maps(options.map, maps)
    parameters = [f"map:={maps / 'good'}", f"node.map_root:={maps}", "retrieval.enabled:=false"]
    with running(_node(options, parameters), options.output / "node.log") as process:
        drive = FaultyDrive(options.bag, maps, options.faults)
        samples = measure_faults(drive, psutil.Process(process.pid), options)
        died = process.poll() is not None
    _write_counts(options.output / "faults.json", drive)
    minutes = drive.bag_time_s / 60
    print(f"{minutes:.1f} min of bag time in {drive.rounds + 1} rounds")
    sound = _is_sound(drive)
    return _conclude(samples, died, options) or int(not sound)


def _node(options: argparse.Namespace, parameters: list[str]) -> list[str]:
    """Return the command that runs a node with parameters."""
    all_of_them = ["node.last_pose_file:=''", *parameters, *options.parameter]
    return [*NODE, *(word for text in all_of_them for word in ("-p", text))]


def _conclude(samples: Sequence[Sample], died: bool, options: argparse.Namespace) -> int:
    if died or not samples:
        why = "the node has died" if died else "too short: nothing was sampled"
        print(f"{why}: see {options.output / 'node.log'}")
        return 1
    draw(options.output / "soak.png", samples)
    return int(compare(samples))


def main() -> int:
    options = _options()
    matplotlib.use("Agg")
    options.output.mkdir(parents=True, exist_ok=True)
    rclpy.init()
    status = soak(options) if options.faults is None else soak_with_faults(options)
    rclpy.try_shutdown()
    return status


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Play a bag to a node repeatedly.")
    parser.add_argument("--map", type=Path, required=True)
    parser.add_argument("--bag", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=60.0, help="duration, wall clock")
    parser.add_argument("--rate", type=float, default=1.0, help="playback speed of the bag")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between samples")
    parser.add_argument("--faults", type=int, metavar="SEED", help="inject a fault in each round")
    parser.add_argument("--beside", type=int, default=0, help="number of other running programs")
    parser.add_argument("--neighbour", choices=("busy", "torch"), default="busy", help="their kind")
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        help="name:=value, a parameter of the node",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
