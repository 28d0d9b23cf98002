"""Where the URLs lead that camera_info_manager takes, and how they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixloc_ros.common.ros_urls import local_path
from pixloc_ros.config import from_flat
from pixloc_ros.errors import ConfigError


def test_paths_and_urls_lead_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "install" / "share" / "robot").mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/elsewhere:{tmp_path}/install")
    monkeypatch.setenv("ROS_HOME", "/home/robot/.ros")
    assert local_path("front.yaml", ConfigError) == Path("front.yaml")
    assert local_path("~/front.yaml", ConfigError) == Path.home() / "front.yaml"
    assert local_path("file:///etc/front.yaml", ConfigError) == Path("/etc/front.yaml")
    in_home = local_path("file://${ROS_HOME}/camera_info/front.yaml", ConfigError)
    assert in_home == Path("/home/robot/.ros/camera_info/front.yaml")
    packaged = local_path("package://robot/config/front.yaml", ConfigError)
    assert packaged == tmp_path / "install/share/robot/config/front.yaml"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("package://robot/front.yaml", "package 'robot' is not installed"),
        ("package:///front.yaml", "package '' is not installed"),
        ("http://robot/front.yaml", "expected a path, file:///PATH or package://"),
        ("file://front.yaml", "expected a path"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(
    url: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/elsewhere")
    with pytest.raises(ConfigError, match=complaint):
        local_path(url, ConfigError)


def test_each_camera_of_a_rig_has_its_own_file() -> None:
    given = {"node.cameras": "front,left", "node.camera_info_url": "/etc/${NAME}.yaml"}
    urls = from_flat(given).node.camera_info_urls
    assert urls == {"front": "/etc/front.yaml", "left": "/etc/left.yaml"}
    assert from_flat({"node.cameras": "front,left"}).node.camera_info_urls == {}
    for wrong, why in (
        (given | {"node.camera_info_url": "/etc/front.yaml"}, r"own file: write \$\{NAME\}"),
        (given | {"node.cameras": ""}, "node.cameras names none"),
        ({"node.camera_info_url": "/etc/front.ini"}, "expected a YAML file"),
    ):
        with pytest.raises(ConfigError, match=why):
            from_flat(wrong)
