"""Maps of the generated street, from nothing but a recording of a drive through it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pixloc_ros import BuildOptions, DriveSource, Map, build_map, read_drives
from pixloc_ros.cli.map import app
from pixloc_ros.config import Config
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import read_tum
from pixloc_ros.maps.build.georeference import fit
from pixloc_ros.maps.files.recorded_drive import RecordedDrive
from pixloc_ros.replay import runner

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drive(street: Path) -> RecordedDrive:
    (drive,) = read_drives([street / "bag"])
    return drive


def map_of(folder: Path, drive: RecordedDrive, **given: object) -> Map:
    return build_map(DriveSource(drives=[drive], **given), folder, BuildOptions(overwrite=True))  # type: ignore[arg-type]


def positions(built: Map, street: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of the vehicle at the keyframes: on the map, and in truth (N, 3)."""
    truth = read_tum(street / "bag.truth.txt")
    stamps_ns = [int(Path(name).stem) for name in built.keyframe_names]
    T_base_cam = np.reshape(built.metadata.T_base_cam, (4, 4))
    T_map_base = built.keyframe_T_map_cam @ se3.inverse(T_base_cam)
    T_true = [truth.at(stamp_ns) for stamp_ns in stamps_ns]
    return T_map_base[:, :3, 3], np.stack([T for T in T_true if T is not None])[:, :3, 3]


def error_m(built: Map, street: Path, scale: float) -> float:
    """Median distance from the truth after alignment; the scale must be right within a share."""
    found, true = positions(built, street)
    similarity = fit(found, true)
    assert similarity.scale == pytest.approx(1.0, rel=scale)
    return float(np.median(np.linalg.norm(similarity.points(found) - true, axis=-1)))


@pytest.fixture(scope="module")
def from_bag(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map by odometry and fixes, written by the command line, and its report."""
    output = tmp_path_factory.mktemp("from_bag") / "map"
    arguments = ["build", "--bag", str(street / "bag"), "--output", str(output)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return output


def test_odometry_and_fixes_give_a_metric_map_with_a_datum(from_bag, street, drive):
    built = Map.load(from_bag)
    assert error_m(built, street, scale=0.03) < 0.03
    assert built.metadata.datum == drive.datum
    np.testing.assert_allclose(
        np.reshape(built.metadata.T_base_cam, (4, 4)), drive.cameras[0].T_base_cam
    )


def test_drive_localizes_on_the_map_of_itself(from_bag, street, tmp_path):
    config = Config(map=str(from_bag))
    result = runner.replay(street / "bag", config, tmp_path / "run", report=False, every=3)
    assert result.summary.frames_localized >= 0.8 * result.summary.frames_total


def test_report_says_what_became_of_the_drive(from_bag):
    report = from_bag.with_name("map_report")
    figures = json.loads((report / "report.json").read_text())
    assert figures["keyframes_placed"] == figures["keyframes"] > 5
    assert all(check["good"] for check in figures["checks"])
    page = (report / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 4 and "http" not in page
    assert not list(from_bag.parent.glob(".*"))  # nothing is left of the work


def test_odometry_alone_gives_metres_and_no_datum(drive, street, tmp_path):
    built = map_of(tmp_path / "map", replace(drive, fixes=None, datum=None))
    assert error_m(built, street, scale=0.03) < 0.03
    assert built.metadata.datum is None


def test_fixes_alone_give_metres_and_a_datum(drive, street, tmp_path):
    built = map_of(tmp_path / "map", replace(drive, odometry=None))
    assert error_m(built, street, scale=0.2) < 0.1
    assert built.metadata.datum == drive.datum


def test_images_alone_give_a_map_of_unknown_scale_which_a_distance_mends(drive, street, tmp_path):
    alone = replace(drive, odometry=None, fixes=None, datum=None)
    unscaled = map_of(tmp_path / "unscaled", alone)
    way, true = positions(unscaled, street)
    assert np.median(np.linalg.norm(np.diff(way, axis=0), axis=-1)) == pytest.approx(1.0, rel=0.05)
    known_m = float(np.linalg.norm(true[-1] - true[0]))
    scaled = map_of(tmp_path / "scaled", alone, scale_from_m=known_m)
    assert error_m(scaled, street, scale=0.02) < 0.1


def test_map_that_is_not_good_is_refused_with_reasons_unless_forced(drive, tmp_path):
    strict = MappingConfig(min_track_length=50.0)
    output = tmp_path / "map"
    with pytest.raises(MapError, match=r"keyframes per point .*at least 50.*--force"):
        map_of(output, drive, mapping=strict, report_folder=tmp_path / "why")
    assert not output.exists() and (tmp_path / "why" / "index.html").is_file()
    assert map_of(output, drive, mapping=strict, force=True).keyframe_names
