"""One configuration: what it may hold, how it is described, and what holds it while it changes."""

from __future__ import annotations

import re

import pytest

from pixloc_ros.common.device import open_device
from pixloc_ros.config import LIVE, RENAMED, Config, flatten, from_flat, setting
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.errors import ConfigError

DEFAULTS = dict(flatten(Config()))
NUMBERS = [
    name
    for name, value in DEFAULTS.items()
    if isinstance(value, int | float | tuple) and not isinstance(value, bool)
]


def test_who_takes_the_current_configuration_keeps_it_whole_while_another_is_put_in_force():
    before, after = (from_flat({"acceptance.max_cost": cost}) for cost in (0.2, 0.6))
    holder = ConfigHolder(before)
    taken = holder.current
    holder.replace(after)
    assert holder.current is after
    assert taken.acceptance.max_cost == 0.2


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_a_range_that_its_default_is_in_and_nothing_else_is_taken(name) -> None:
    default, about = DEFAULTS[name], setting(name)
    assert about.low is not None and about.high is not None and abs(about.high) < 1e16

    def given(number: float) -> object:
        return (number,) * len(default) if isinstance(default, tuple) else number

    beyond = (about.low - 1, about.high * 2, float("inf"), float("-inf"), float("nan"), 1e308)
    for number in beyond:
        with pytest.raises(ConfigError, match=rf"^parameter '{name}"):
            from_flat({name: given(number)})
    values = default if isinstance(default, tuple) else (default,)
    assert all(about.low <= value <= about.high for value in values)
    # The first is 0, or at least 64; the second ends with a quaternion of norm 1.
    if name not in ("features.max_side_px", "node.camera_mounting"):
        for number in (about.low, about.high):
            integer = isinstance(values[0], int)
            from_flat({name: given(int(number) if integer else number)})


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_setting_is_described_in_whole_sentences(name) -> None:
    text = setting(name).description
    assert re.fullmatch(r"[A-Z].{15,}\.", text), text


def test_an_old_name_is_refused_and_the_new_one_named() -> None:
    for old, new in RENAMED.items():
        assert new in DEFAULTS and old not in DEFAULTS
        with pytest.raises(ConfigError, match=f"'{old}' is now called '{new}'"):
            from_flat({old: 1})


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'acceptance.max_cost'"):
        from_flat({"acceptance.max_kost": 0.5})


def test_a_setting_of_map_building_is_sent_to_its_command() -> None:
    with pytest.raises(ConfigError, match=r"--set mapping\.keyframe_spacing_m=VALUE"):
        from_flat({"mapping.keyframe_spacing_m": 2.0})


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device {name}: .*cpu"):
        open_device(name)


def test_what_can_be_set_live_exists() -> None:
    assert all(any(name.startswith(live) for name in DEFAULTS) for live in LIVE)
