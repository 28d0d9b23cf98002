"""What all tests share: where the real data lie, one thread, and a ROS of our own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from helpers.domains import own_domain

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("PIXLOC_DATA", ROOT.parent / "shared" / "data"))

# Set before torch and rclpy are imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels on the CPU; read when triton is imported
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def pytest_configure(config: pytest.Config) -> None:
    """Claim a ROS domain for whatever takes it from the environment."""
    claim = own_domain()
    os.environ["ROS_DOMAIN_ID"] = str(claim.__enter__())
    config.add_cleanup(lambda: claim.__exit__(None, None, None))


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
    """Inputs and outputs of the reference implementation, as npz files: see its README."""
    return ROOT / "test" / "data" / "parity"


@pytest.fixture(scope="session")
def seven_scenes_poses() -> Path:
    """True poses of the test images of 7Scenes and hloc's estimates, gzipped, without images."""
    folder = DATA / "7scenes_poses"
    if not folder.is_dir():
        pytest.skip(
            f"no poses at {folder}: set PIXLOC_DATA to the folder that holds 7scenes_poses/"
        )
    return folder


def write_street(folder: Path, options: Any) -> Path:
    """map/, bag/ and bag.truth.txt of a generated drive, below a folder."""
    from pixloc_ros.demo.street.dataset import write_dataset
    from pixloc_ros.maps.build.builder import BuildOptions, build_map
    from pixloc_ros.maps.build.sources import ColmapSource
    from pixloc_ros.maps.datum import Datum
    from pixloc_ros.maps.files.posed_images import read_posed_images
    from pixloc_ros.replay.bag_options import BagOptions
    from pixloc_ros.replay.bag_writer import create_bag

    datum = Datum(latitude_deg=49.0, longitude_deg=8.4, altitude_m=110.0, yaw_deg=25.0)
    write_dataset(folder / "data", options)
    mapping, drive = folder / "data" / "mapping", folder / "data" / "drive"
    posed = read_posed_images(drive / "meta.json", drive / "images")
    source = ColmapSource(model_dir=mapping / "colmap", images=mapping / "images")
    options_ = BuildOptions(datum=datum, T_base_cam=posed.T_base_cam)
    build_map(source, folder / "map", options_)
    create_bag(posed, folder / "bag", BagOptions(compressed=False, datum=datum))
    return folder


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """map/, bag/ and bag.truth.txt of a short generated drive."""
    from pixloc_ros.demo.street.dataset import DatasetOptions

    options = DatasetOptions(length_m=12.0, width=320, height=192, workers=1)
    return write_street(tmp_path_factory.mktemp("street"), options)


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
def node(
    street: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process of a node, and its domain; one for all tests, as starting it takes seconds."""
    from helpers.live import running_node

    parameters = {"map": street / "map", "node.diagnostics_rate_hz": 10.0}
    parameters |= {"node.map_root": street, "threads": 1}
    parameters |= {"retrieval.enabled": False}  # so that tests decide where a search begins
    log = tmp_path_factory.mktemp("node") / "log.txt"
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
