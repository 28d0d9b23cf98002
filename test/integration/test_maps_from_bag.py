"""Maps of the generated street, from nothing but a recording of a drive through it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pixloc_ros import BuildOptions, DriveSource, Map, build_map, read_drives
from pixloc_ros.cli import main
from pixloc_ros.cli.map_from_bag import MappingBagOptions
from pixloc_ros.common import image_files
from pixloc_ros.common.parallel import Workers
from pixloc_ros.common.progress import silent
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import ConfigError, DataError, MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import read_tum
from pixloc_ros.maps.build.builder import BuildContext
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.build.from_bag.chunks import PLACING
from pixloc_ros.maps.build.georeference import fit
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.files.posed_images import keyframes, read_posed_images
from pixloc_ros.maps.files.recorded_drive import RecordedDrive

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "from_a_bag.md"


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


def tilt_deg(built: Map, street: Path) -> float:
    """Median angle between the map's up and the true one, as the vehicle has them."""
    truth = read_tum(street / "bag.truth.txt")
    T_base_cam = np.reshape(built.metadata.T_base_cam, (4, 4))
    up = (built.keyframe_T_map_cam @ se3.inverse(T_base_cam))[:, 2, :3]
    true = np.stack([truth.at(int(Path(name).stem))[2, :3] for name in built.keyframe_names])  # type: ignore[index]
    return float(np.rad2deg(np.median(np.linalg.norm(np.cross(up, true), axis=-1))))


def error_m(built: Map, street: Path, scale: float) -> float:
    """Median distance from the truth after alignment; the scale must be right within a share."""
    found, true = positions(built, street)
    similarity = fit(found, true)
    assert similarity.scale == pytest.approx(1.0, rel=scale)
    return float(np.median(np.linalg.norm(similarity.points(found) - true, axis=-1)))


@pytest.fixture(scope="module")
def from_bag(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The map that the commands of the guide make of a drive, in a folder with all they leave."""
    folder = tmp_path_factory.mktemp("from_bag")
    for name in ("drive", "later"):
        (folder / name).symlink_to(street / "bag")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in commands_of_the_guide():
            if words[1] == "calibrate":  # the street is too short for that
                with pytest.raises(DataError, match="take a longer drive"):
                    run_command(words)
            else:
                run_command(words)
        yield folder / "my_map"


def run_command(words: list[str]) -> None:
    result = CliRunner().invoke(main.build(), words[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def commands_of_the_guide() -> list[list[str]]:
    """What the guide has between recording and the sections that explain."""
    text = GUIDE.read_text(encoding="utf-8")
    section = text.split("## Build, look")[1].split("## What comes of which sensors")[0]
    return [line.split() for line in section.splitlines() if line.startswith("    pixloc ")]


def test_odometry_and_fixes_give_a_metric_map_with_a_datum(from_bag, street, drive):
    built = Map.load(from_bag)
    assert error_m(built, street, scale=0.03) < 0.03
    assert tilt_deg(built, street) < 1.0
    assert built.metadata.datum == drive.datum
    np.testing.assert_allclose(
        np.reshape(built.metadata.T_base_cam, (4, 4)), drive.cameras[0].T_base_cam
    )


def test_options_that_do_not_fit_the_bag_are_refused_before_the_work(street, tmp_path):
    bags, output = [street / "bag"], tmp_path / "map"
    with pytest.raises(MapError, match="neither odometry nor GNSS, which 'bag' has"):
        MappingBagOptions(fixes=False, scale_from=12.0).source(bags, output, None)
    with pytest.raises(ConfigError, match=r"did you mean 'mapping\.keyframe_spacing_m'"):
        MappingBagOptions(settings=["mapping.keyframe_spacing=2"]).source(bags, output, None)


def test_drive_localizes_on_the_map_of_itself(from_bag):
    summary = json.loads((from_bag.with_name("run") / "summary.json").read_text())
    assert summary["frames_localized"] >= 0.8 * summary["frames_total"] > 5


def test_later_drive_becomes_part_of_the_map(from_bag):
    later = from_bag.with_name("my_map_2")
    assert [drive.name for drive in Map.load(later).metadata.history] == ["later_session"]


def test_report_says_what_became_of_the_drive(from_bag):
    report = from_bag.with_name("my_map_report")
    figures = json.loads((report / "report.json").read_text())
    assert figures["keyframes_placed"] == figures["keyframes"] > 5
    assert all(check["good"] for check in figures["checks"])
    page = (report / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 4 and "http" not in page
    assert not list(from_bag.parent.glob(".*"))  # nothing is left of the work


def test_odometry_alone_gives_metres_and_no_datum(drive, street, tmp_path):
    built = map_of(tmp_path / "map", drive.without_fixes())
    assert error_m(built, street, scale=0.03) < 0.03
    assert built.metadata.datum is None


def test_fixes_alone_give_metres_and_a_datum(drive, street, tmp_path):
    built = map_of(tmp_path / "map", drive.without_odometry())
    assert error_m(built, street, scale=0.2) < 0.1
    assert built.metadata.datum == drive.datum


def test_images_alone_give_a_map_that_a_known_distance_scales(street, tmp_path):
    build = f"pixloc map build --bag {street / 'bag'} --output {tmp_path / 'map'}"
    run_command(f"{build} --no-odometry --no-fixes --scale-from 12".split())
    scaled = Map.load(tmp_path / "map")
    assert scaled.metadata.datum is None
    way, _ = positions(scaled, street)
    cameras = scaled.keyframe_T_map_cam[np.argsort(scaled.keyframe_names), :3, 3]
    assert np.linalg.norm(cameras[-1] - cameras[0]) == pytest.approx(12.0, rel=0.02)
    assert error_m(scaled, street, scale=0.2) < 0.1
    assert np.ptp(way[:, 2]) < 0.5  # level


def test_map_that_is_not_good_is_refused_with_reasons_unless_forced(drive, tmp_path):
    strict = MappingConfig(min_track_length=50.0)
    output = tmp_path / "map"
    with pytest.raises(MapError, match=r"keyframes per point .*at least 50.*--force"):
        map_of(output, drive, mapping=strict, report_folder=tmp_path / "why")
    assert not output.exists() and (tmp_path / "why" / "index.html").is_file()
    assert map_of(output, drive, mapping=strict, force=True).keyframe_names


def model_in_chunks(
    drive: RecordedDrive, work: Path, workers: Workers, done: list[str], stop_after: int = 99
) -> ColmapModel:
    """Place a drive in chunks; `done` gets a word for each chunk. Interrupted after so many."""

    def progress(items: Iterable, words: str, total: int | None) -> Iterator:
        for item in items:
            if words == PLACING:
                if len(done) == stop_after:
                    raise KeyboardInterrupt
                done.append(words)
            yield item

    mapping = MappingConfig(chunk_keyframes=9, neighbours=3, places=0)
    source = DriveSource(drives=[drive], mapping=mapping)
    work.mkdir(exist_ok=True)
    context = BuildContext(work, progress)
    return source.model(BuildOptions(workers=workers), context)[0]


def test_chunks_of_any_process_give_one_map_and_interrupted_builds_go_on(drive, street, tmp_path):
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        model_in_chunks(drive, tmp_path / "work", Workers(1), done, stop_after=1)
    model = model_in_chunks(drive, tmp_path / "work", Workers(2), done)
    assert len(done) == 2  # of two chunks
    last = max((tmp_path / "work").glob("*/placed-*"), key=lambda part: part.stat().st_mtime_ns)
    last.unlink()  # what the other process did
    again = model_in_chunks(drive, tmp_path / "work", Workers(1), done)
    truth = read_tum(street / "bag.truth.txt")
    T_true = np.stack([truth.at(int(Path(image.name).stem)) for image in model.images])  # type: ignore[arg-type]
    T = se3.inverse([image.T_cam_world for image in model.images])
    T_again = se3.inverse([image.T_cam_world for image in again.images])
    assert len(model.images) == 12 and np.abs(T - T_again).max() < 2e-3
    cameras_true = (T_true @ drive.cameras[0].T_base_cam)[:, :3, 3]
    similarity = fit(T[:, :3, 3], cameras_true)
    errors_m = np.linalg.norm(similarity.points(T[:, :3, 3]) - cameras_true, axis=-1)
    assert similarity.scale == pytest.approx(1.0, rel=0.03) and np.median(errors_m) < 0.03
    seen_by = np.bincount(np.concatenate([np.unique(image.point_ids) for image in model.images]))
    assert seen_by.max() > 9  # keyframes of both chunks see one point


def test_mask_leaves_out_what_it_blackens(street, tmp_path):
    drive_folder = street / "data" / "drive"
    drive = read_posed_images(drive_folder / "meta.json", drive_folder / "images")
    mask = np.full((drive.cameras[0].height, drive.cameras[0].width, 3), 255, np.uint8)
    mask[120:] = 0
    image_files.write(tmp_path / "mask.png", mask)
    images = keyframes(drive, drive_folder / "images")[:2]
    run = ColmapRun(tmp_path / "run", images, silent, tmp_path / "mask.png")
    run.extract()
    with run.pycolmap.Database.open(run.database) as database:
        rows = [database.read_keypoints(i.image_id)[:, 1] for i in database.read_all_images()]
    assert all(len(y) > 50 and y.max() < 121 for y in rows)
