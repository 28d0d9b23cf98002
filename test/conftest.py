"""What all tests share: where the real data lie, one thread, and a ROS of our own."""

import os
import random
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("PIXLOC_DATA", ROOT.parent / "shared" / "data"))

# Set before torch and rclpy are imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels on the CPU; read when triton is imported
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
# Above 101 the ports of DDS meet the ephemeral ports of Linux.
os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 101))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("ros"):
        for module in ("rclpy", "pixloc_ros.msg", "tf2_msgs"):
            if find_spec(module) is None:
                pytest.skip(f"no {module} here: run through `make test`, or source a ROS workspace")


@pytest.fixture(scope="session")
def kitti03_a() -> Path:
    """A real KITTI drive: images/, colmap/ and meta.json with ground truth."""
    folder = DATA / "eval" / "kitti03_a"
    if not folder.is_dir():
        pytest.skip(f"no real drive at {folder}: set PIXLOC_DATA to the folder that holds eval/")
    return folder


@pytest.fixture(scope="session")
def parity() -> Path:
    """Inputs and outputs of the reference implementation, as npz files."""
    folder = DATA.parent / "parity"
    if not folder.is_dir():
        pytest.skip(f"no outputs of the reference at {folder}: they lie beside PIXLOC_DATA")
    return folder
