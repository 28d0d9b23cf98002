"""The package as its users meet it: through rosdep and colcon, and through pip."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from catkin_pkg.package import Package, parse_package
from rosbags.typesys import get_types_from_msg

import pixloc_ros
from pixloc_ros.types import Reason, Status

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "pixloc_ros"
LAUNCH_FILE = ROOT / "launch" / "localizer.launch.py"
MESSAGE = "pixloc_ros/msg/AlignmentStatus"
ROS_PACKAGE = re.compile(
    r"bond|rclpy|tf2_ros|cv_bridge|tf_transformations|\w+_(msgs|srvs|interfaces)"
)
NEIGHBOURS = {"bond", "nav2_msgs"}  # of nav2, imported only where it is installed
OPTIONAL = {
    "aiohttp",
    "av",
    "fsspec",
    "h5py",
    "kornia",
    "laspy",
    "onnx",
    "onnxruntime",
    "open3d",
    "plotly",
    "pycolmap",
    "pyproj",
    "ray",
    "rerun",
    "triton",
}  # extras, and laspy for LAS files


# Imports every module that must work without ROS and without the optional libraries.
IMPORT_WITHOUT_ROS = """
import importlib, pkgutil, re, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        absent = r"rclpy|tf2_ros|\\w+_(msgs|srvs)|pycolmap|open3d|triton|fsspec|aiohttp"
        if re.fullmatch(absent, package):
            raise ModuleNotFoundError(f"{name} is not there", name=name)

sys.meta_path.insert(0, Blocker())
import pixloc_ros
for module in pkgutil.walk_packages(["pixloc_ros"], "pixloc_ros."):
    if not re.match(r"pixloc_ros\\.(ros|msg|srv|pixloc_ros_s__|alignment\\.cuda\\.)", module.name):
        importlib.import_module(module.name)
        print(module.name)
print("matplotlib.pyplot" if "matplotlib.pyplot" in sys.modules else "")
"""


@pytest.fixture(scope="module")
def manifest() -> Package:
    return parse_package(str(ROOT / "package.xml"))


@cache
def imported_packages() -> frozenset[str]:
    """Top-level names of everything that the sources import, wherever in a file."""
    return frozenset(_imported_packages())


def _imported_packages() -> Iterator[str]:
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def test_manifest_is_valid_for_colcon(manifest: Package) -> None:
    manifest.validate(warnings=(warnings := []))
    assert not warnings
    assert manifest.get_build_type() == "ament_cmake"
    assert "rosidl_interface_packages" in [group.name for group in manifest.member_of_groups]


def test_one_version_everywhere(manifest: Package) -> None:
    assert manifest.version == pixloc_ros.__version__ == version("pixloc_ros")


def test_ros_imports_are_declared_in_the_manifest(manifest: Package) -> None:
    declared = {dependency.name for dependency in manifest.exec_depends}
    used = {name for name in imported_packages() if ROS_PACKAGE.fullmatch(name)} - NEIGHBOURS
    assert used <= declared
    indirect = {"rosidl_default_runtime", "ros2launch"}
    of_ros = {name for name in declared if not name.startswith("python3-")} - indirect
    launched = set(re.findall(r"^from (\w+)", LAUNCH_FILE.read_text(), re.MULTILINE))
    assert of_ros <= used | launched, "declared, and never imported"


def test_rosdep_gets_no_key_of_pip(manifest: Package) -> None:
    """On Ubuntu 24.04 it stops at the first one (PEP 668), and skips what comes after."""
    keys = [d.name for d in (*manifest.exec_depends, *manifest.test_depends)]
    assert not [key for key in keys if key.endswith("-pip")]


def test_colcon_test_has_something_to_run() -> None:
    calls = re.findall(r"ament_add_pytest_test\(\w+ (\S+)", (ROOT / "CMakeLists.txt").read_text())
    assert calls and all(list((ROOT / folder).glob("test_*.py")) for folder in calls)


def test_python_imports_are_declared_for_pip() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[]", line)[0].lower() for line in project["dependencies"]}
    distributions = packages_distributions()
    for name in imported_packages() - set(sys.stdlib_module_names) - OPTIONAL:
        if name != "pixloc_ros" and not ROS_PACKAGE.fullmatch(name):
            assert {each.lower() for each in distributions[name]} & declared, (
                f"{name} is undeclared"
            )


def test_message_has_the_codes_of_the_localizer() -> None:
    types = get_types_from_msg((ROOT / "msg" / "AlignmentStatus.msg").read_text(), MESSAGE)
    constants, fields = types[MESSAGE]
    values = {name: value for name, _, value in constants}
    assert values == {
        **{f"STATUS_{status.name}": status.value for status in Status},
        **{f"REASON_{reason.name}": reason.value for reason in Reason},
    }
    assert {"header", "status", "reason", "message"} <= {name for name, _ in fields}


@pytest.mark.slow
def test_everything_but_the_node_imports_without_ros() -> None:
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT_ROS], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "pixloc_ros.localizer" in run.stdout.split()
    assert "matplotlib.pyplot" not in run.stdout.split()  # it would choose a display


@pytest.mark.slow
def test_wheel_carries_the_weights_and_nothing_foreign(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(SOURCES, source / "pixloc_ros")
    for name in ("pyproject.toml", "setup.py", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    options = ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run([*command, *options], check=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    weights = {path.name for path in (SOURCES / "weights").iterdir() if path.suffix != ".py"}
    assert weights - {"__pycache__"} <= {Path(name).name for name in names}
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"pixloc_ros"}


def test_builder_paths_in_ros_wheels_are_replaced_once(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    from patch_ros_wheels import patch

    cached, installed = tmp_path / "cached.cmake", tmp_path / "installed.cmake"
    content = "set(a /opt/python/cp312-cp312/include/python3.12;/usr/include)\n"
    cached.write_text(content)
    installed.hardlink_to(cached)
    assert patch(installed)
    assert "/opt/python" not in installed.read_text()
    assert installed.read_text().endswith(";/usr/include)\n")
    assert not patch(installed)
    assert cached.read_text() == content


# --- pins -----------------------------------------------------------------------------------------


def pins(file: str) -> dict[str, set[str]]:
    """Versions by name; a lock may have several of one, for other platforms."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / file).read_text().splitlines():
        if match := re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==([^\s;\\]+)", line):
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            found.setdefault(name, set()).add(match[2])
    return found


def test_the_lock_has_the_versions_of_the_constraints():
    """After a change of pins: `make locked`."""
    wanted, locked = pins("constraints.txt"), pins("tools/locked.txt")
    assert "torch" not in locked  # of several builds
    shared = wanted.keys() & locked.keys()
    assert len(shared) > 50
    assert {name for name in shared if not wanted[name] <= locked[name]} == set()


def test_all_that_the_lock_installs_has_hashes():
    for file in ("tools/locked.txt", "tools/locked-build.txt"):
        text = (ROOT / file).read_text()
        entries = text.replace("\\\n", " ").splitlines()
        assert all("--hash=sha256:" in entry for entry in entries if "==" in entry)


def test_the_lock_has_what_the_package_needs():
    locked = pins("tools/locked.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=;~ ]", line)[0].lower() for line in project["dependencies"]}
    assert names - locked.keys() == {"torch"}
