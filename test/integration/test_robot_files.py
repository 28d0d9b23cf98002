"""Parameter files of kinds of robots: what they set exists, and the node takes them."""

from pathlib import Path

import pytest

from pixloc_ros.config import Config, flatten, load

ROBOTS = Path(__file__).resolve().parents[2] / "config" / "robots"
FILES = sorted(ROBOTS.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_robot_file_is_a_configuration_that_differs_from_the_defaults(file: Path) -> None:
    changed = dict(flatten(load(file)))
    default = dict(flatten(Config()))
    assert sum(changed[name] != default[name] for name in default) >= 3


def test_there_is_a_file_of_each_kind() -> None:
    assert {file.stem for file in FILES} == {"car", "sidewalk", "drone"}
    assert load(ROBOTS / "sidewalk.yaml").node.camera_names == ("front", "left", "right")
    assert not load(ROBOTS / "sidewalk.yaml").node.tf_smoothing_s
    assert (
        load(ROBOTS / "drone.yaml").priors.gnss_height_sigma_m > Config().priors.gnss_height_sigma_m
    )
