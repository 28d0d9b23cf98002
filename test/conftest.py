"""What all tests share: where the real data lie, one thread, and a ROS of our own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from helpers.built_once import built_once
from helpers.domains import own_domain

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("PIXLOC_DATA", ROOT.parent / "shared" / "data"))

# Files of about half a minute and more. They begin first, so that no core is left with one at the
# end.
LONGEST = (
    "test_node",
    "test_training",
    "test_datasets",
    "test_ray",
    "test_replay",
    "test_maps_from_bag",
    "test_repetition",
    "test_real_images",
    "test_localizer",
    "test_maps_update",
    "test_gpu",
    "test_cli",
    "test_other_days",
    "test_fuzz",
)

# Set before torch and rclpy are imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels on the CPU; read when triton is imported
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

# The same examples in every run, however long each takes; `make fuzz` seeks others.
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Claim a ROS domain for whatever takes it from the environment."""
    # A shell that starts the tests in the background has SIGINT ignored, in all that they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    claim = own_domain()
    os.environ["ROS_DOMAIN_ID"] = str(claim.__enter__())
    config.add_cleanup(lambda: claim.__exit__(None, None, None))
    config.option.loadscopereorder = False  # of xdist: the order is ours, see below


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files first that take longest, then live tests, which mostly wait, between others.

    `--dist loadfile` hands them out in this order.
    """
    is_live = {item.path.stem: item.path.parent.name == "ros" for item in items}
    places = {name: float(place) for place, name in enumerate(LONGEST)}
    for live in (True, False):
        part = [name for name in is_live if is_live[name] is live and name not in places]
        places |= {name: len(LONGEST) + i / len(part) for i, name in enumerate(part)}
    items.sort(key=lambda item: places[item.path.stem])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)  # whatever this process has run before
    if item.get_closest_marker("ros"):
        for module in ("rclpy", "pixloc_ros.msg", "tf2_msgs"):
            if find_spec(module) is None:
                pytest.skip(f"no {module} here: run through `make test`, or source a ROS workspace")


def real_images(name: str) -> Path:
    """A folder of real images with ground truth; skips where there is none."""
    folder = DATA / "eval" / name
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}: set PIXLOC_DATA to the folder that holds eval/")
    return folder


@pytest.fixture(scope="session")
def kitti03_a() -> Path:
    """A real KITTI drive: images/, colmap/ and meta.json with ground truth."""
    return real_images("kitti03_a")


@pytest.fixture(scope="session")
def gardens_point_b() -> Path:
    """A campus path walked twice by day: images/, meta_map.json and meta_day.json."""
    return real_images("gardens_point_b")


@pytest.fixture(scope="session")
def parity() -> Path:
    """Inputs and outputs of the reference implementation, as npz files: see its README."""
    return ROOT / "test" / "data" / "parity"


@pytest.fixture(scope="session")
def published_weights() -> Path:
    """What the packaged weights were published with; it holds a crop of a photo of others."""
    folder = DATA.parent / "weights"
    if not folder.is_dir():
        pytest.skip(f"no check of the published weights at {folder}, beside PIXLOC_DATA")
    return folder


@pytest.fixture(scope="session")
def seven_scenes_poses() -> Path:
    """True poses of the test images of 7Scenes and hloc's estimates, gzipped, without images."""
    folder = DATA / "7scenes_poses"
    if not folder.is_dir():
        pytest.skip(
            f"no poses at {folder}: set PIXLOC_DATA to the folder that holds 7scenes_poses/"
        )
    return folder


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """map/, bag/ and bag.truth.txt of a short generated drive; all workers read the same."""
    from helpers.street import SMALL, write_street

    return built_once(tmp_path_factory, "street", lambda folder: write_street(folder, SMALL))


@pytest.fixture
def domain() -> Iterator[int]:
    """A ROS domain for one test, in which it hears nothing but itself."""
    with own_domain() as domain:
        yield domain


@pytest.fixture(scope="session")
def bag(street: Path) -> Any:
    from helpers.live import Bag

    return Bag(street / "bag")


@pytest.fixture(scope="session")
def truth(street: Path) -> Any:
    from pixloc_ros.geometry.trajectory import read_tum

    return read_tum(street / "bag.truth.txt")


@pytest.fixture(scope="session")
def map_root(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the node finds maps: a copy of the street's as map/, and what tests put beside it."""
    root = tmp_path_factory.mktemp("maps")
    shutil.copytree(street / "map", root / "map")
    return root


@pytest.fixture(scope="session")
def node(
    map_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process of a node, and its domain; one for all tests, as starting it takes seconds."""
    from helpers.live import running_node

    parameters = {"map": map_root / "map", "node.diagnostics_rate_hz": 10.0}
    parameters |= {"node.map_root": map_root, "threads": 1}
    parameters |= {"retrieval.enabled": False}  # so that tests decide where a search begins
    folder = tmp_path_factory.mktemp("node")
    parameters |= {"node.record_sessions": folder / "sessions"}
    log = folder / "log.txt"
    with own_domain() as domain, running_node(log, domain, **parameters) as process:
        yield process, domain


@pytest.fixture
def rig(node: tuple[subprocess.Popen[bytes], int]) -> Iterator[Any]:
    """A rig connected to the node, which begins anew."""
    from helpers.live import fresh_rig

    process, domain = node
    with fresh_rig(domain) as rig:
        yield rig
        assert process.poll() is None, "the node is gone"
