"""Arguments of the launch file that cannot be used are told in one line, at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pixloc_ros.errors import BagError, ConfigError, MapError, PixlocError
from pixloc_ros.ros import launch_arguments

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, str]:
    """Those of a launch on a bag."""
    (tmp_path / "map").mkdir()
    (tmp_path / "map" / "map.json").write_text("{}")
    (tmp_path / "drive.mcap").write_bytes(b"\x89MCAP0\r\n")
    return {
        "map": str(tmp_path / "map"),
        "params_file": str(ROOT / "config" / "localizer.yaml"),
        "device": "",
        "cameras": "",
        "camera_info_url": "",
        "log_level": "info",
        "bag": str(tmp_path / "drive.mcap"),
        "rate": "1.0",
        "output": str(tmp_path / "run"),
        **dict.fromkeys(launch_arguments.SWITCHES, "false"),
    }


def test_arguments_that_fit_are_taken(arguments: dict[str, str], tmp_path: Path) -> None:
    launch_arguments.check(arguments)
    launch_arguments.check(arguments | {"bag": "", "rate": "any", "cameras": "front,left"})
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"/**/pixloc_localizer:\n  ros__parameters:\n    map: {arguments['map']}\n"
        "driver:\n  ros__parameters:\n    exposure: 5\n"
    )
    launch_arguments.check(arguments | {"params_file": str(file)})


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("map", "/nowhere/to/be/found", MapError),
        ("map", "", MapError),
        ("params_file", "/nowhere.yaml", ConfigError),
        ("bag", "/nowhere/drive", BagError),
        ("bag", str(ROOT), BagError),
        ("rate", "0", ConfigError),
        ("rate", "nan", ConfigError),
        ("rate", "fast", ConfigError),
        ("device", "gpu", ConfigError),
        ("cameras", "front;rear", ConfigError),
        ("camera_info_url", "/nowhere.yaml", ConfigError),
        ("camera_info_url", "package://nowhere/front.yaml", ConfigError),
        ("camera_info_url", "/nowhere.ini", ConfigError),
        ("output", str(ROOT / "README.md" / "run"), ConfigError),
        ("loop", "yes", ConfigError),
        ("log_level", "loud", ConfigError),
    ],
)
def test_the_argument_that_does_not_fit_is_named(
    arguments: dict[str, str], name: str, value: str, kind: type[PixlocError]
) -> None:
    with pytest.raises(kind) as caught:
        launch_arguments.check(arguments | {name: value})
    assert (value or name) in str(caught.value)


def test_a_params_file_that_is_wrong_is_named(arguments: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("/**:\n  ros__parameters:\n    alignment.robust_scal: 0.2\n")
    with pytest.raises(ConfigError, match=r"alignment\.robust_scale"):
        launch_arguments.check(arguments | {"params_file": str(file)})


def test_checking_needs_neither_torch_nor_rclpy() -> None:
    code = "import sys, pixloc_ros.ros.launch_arguments as _; "
    code += "sys.exit(bool({'torch', 'rclpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
