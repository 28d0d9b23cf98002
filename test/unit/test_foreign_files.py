"""Text, JSON and YAML of any origin: read within bounds, or refused in one line."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from pixloc_ros import config
from pixloc_ros.common import foreign_files
from pixloc_ros.errors import ConfigError, DataError, MapError, one_line

ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)
YAML_FILES = {
    "aliases": ALIAS_BOMB,
    "nesting": "[" * 20_000,
    "mapping": "a: " + "{b: " * 5_000,
    "python": "map: !!python/object/apply:os.system ['true']",
    "set": "map: !!set {a, b}",
    "digits": "threads: " + "9" * 5_000,
    "list": "- map\n- device",
    "scalar": "7",
    "empty parameters": "pixloc_localizer:\n  ros__parameters:\n",
    "listed parameters": "pixloc_localizer:\n  ros__parameters: [1, 2]\n",
    "date": "map: 2024-01-01",
    "number as key": "7: 8",
    "list as key": "[1, 2]: 8",
    "nothing as key": "~: 8",
    "escape": 'map: {"\\e[2J": 1}',
    "infinity": "priors: {max_coast_s: .inf, gnss_max_age_s: .nan}",
    "surrogate": 'map: "\\ud800"',
}


@pytest.mark.parametrize("content", YAML_FILES.values(), ids=YAML_FILES.keys())
def test_a_parameter_file_is_a_configuration_or_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "localizer.yaml"
    path.write_text(content)
    with contextlib.suppress(ConfigError):
        config.load(path)


@pytest.mark.parametrize("name", ["aliases", "nesting", "python", "set", "digits", "list"])
def test_what_is_no_plain_yaml_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "localizer.yaml"
    path.write_text(YAML_FILES[name])
    with pytest.raises(ConfigError, match=r"localizer\.yaml"):
        config.load(path)


def test_a_parameter_file_without_parameters_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "localizer.yaml"
    path.write_text(YAML_FILES["empty parameters"])
    assert config.load(path) == config.Config()


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a": ' * 100_000, b"1" * 400, b"\xff\xfe", b"", b"{", b"\0"],
)
def test_what_is_no_json_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"meta\.json"):
        foreign_files.read_json(path, DataError)


def test_json_of_any_sane_kind_is_read(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    value = {"stamp_ns": 1_700_000_000_000_000_000, "K": [1.5, -2], "name": "ü", "none": None}
    path.write_text("\ufeff" + json.dumps(value), encoding="utf-8")
    assert foreign_files.read_json(path, DataError) == value


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(MapError, match=str(path)):
            foreign_files.read_json(path, MapError)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\\..\\..\\x", "a\0b"])
def test_names_that_lead_out_of_their_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(MapError):
        foreign_files.confined(tmp_path, name, MapError)


@pytest.mark.parametrize("name", ["drive 1/000.png", "a/b/c", "...", "x..y"])
def test_names_that_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    assert foreign_files.confined(tmp_path, name, MapError) == tmp_path / name


@pytest.mark.parametrize("kind", ["link out", "link to a device", "folder linked", "pipe"])
def test_files_of_a_folder_lie_in_it(kind: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "map", tmp_path / "elsewhere"
    for path in (folder, elsewhere):
        path.mkdir()
        (path / "inside").write_text("content")
    name = "linked/inside" if kind == "folder linked" else "it"
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        targets = {"link out": elsewhere / "inside", "folder linked": elsewhere}
        (folder / name.partition("/")[0]).symlink_to(targets.get(kind, "/dev/zero"))
    with pytest.raises(MapError, match=r"leads out of its folder|is not a file"):
        foreign_files.own_file(folder, name, MapError)


def test_a_folder_may_be_a_link_and_so_may_a_file_within(tmp_path: Path) -> None:
    (tmp_path / "map_v2").mkdir()
    (tmp_path / "map_v2" / "a").write_text("content")
    (tmp_path / "map_v2" / "b").symlink_to("a")
    (tmp_path / "map").symlink_to("map_v2")
    for name in ("a", "b", "missing"):
        assert foreign_files.own_file(tmp_path / "map", name, MapError).name == name


def test_texts_of_files_are_shown_as_one_printable_line() -> None:
    assert one_line("a\nb\t\x1b[2Jc \u202e") == "a b \\x1b[2Jc \\u202e"
    assert len(one_line("x" * 1_000_000)) == 1000
    assert one_line("grün \ud800") == "grün \\ud800"
