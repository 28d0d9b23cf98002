"""Models without scale or place, aligned to GNSS fixes or to known poses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pymap3d
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from pixloc_ros.cli.map import app
from pixloc_ros.errors import ConfigError, DataError, MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.trajectory import write_poses
from pixloc_ros.maps.build import georeference
from pixloc_ros.maps.build.image_positions import align_model
from pixloc_ros.maps.datum import Datum, GridDatum
from pixloc_ros.maps.files import colmap_writer as write
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel

UTM = np.array([437_012.0, 5_412_345.0, 318.0])
FIJI = Datum(latitude_deg=-16.8, longitude_deg=179.9999, altitude_m=40.0, yaw_deg=25.0)
KARLSRUHE = Datum(latitude_deg=49.01, longitude_deg=8.43, altitude_m=110.0, yaw_deg=0.0)
CAMERA = Camera.create("PINHOLE", [640, 480], [500, 500], [320, 240])


def true_poses(count: int = 30) -> np.ndarray:
    """T_map_cam of a drive of 150 m with a bend and a bump."""
    angle = np.linspace(0, 1.2, count)
    places = np.column_stack(
        [120 * np.sin(angle), 120 * (1 - np.cos(angle)), np.sin(4 * angle) + 1.5]
    )
    turns = Rotation.from_rotvec(np.outer(angle, [0, 0, 1])).as_matrix() @ se3.R_BASE_OPTICAL
    return np.stack([se3.make(R, p) for R, p in zip(turns, places, strict=True)])


def name(index: int) -> str:
    return f"drive 1/{index:03d}.jpg"


def scale_free(T_map_cam: np.ndarray) -> ColmapModel:
    """A model as SfM gives it: another zero, other axes, another scale."""
    turn = Rotation.from_rotvec([0.7, -1.1, 2.0]).as_matrix()
    poses = T_map_cam.copy()
    poses[:, :3, :3] = turn @ poses[:, :3, :3]
    poses[:, :3, 3] = 0.037 * (poses[:, :3, 3] - T_map_cam[0, :3, 3]) @ turn.T + [3, -2, 5]
    images = [
        ColmapImage(i, name(i), 1, se3.inverse(T), np.zeros((0, 2)), np.zeros(0, np.int64))
        for i, T in enumerate(poses)
    ]
    points = se3.transform(poses, np.array([[0.1, 0.0, 0.4]]))[:, 0]
    ids = np.arange(len(points))
    return ColmapModel({1: CAMERA}, tuple(images), (), ids, points, np.zeros(len(points)))


def poses_of(model: ColmapModel) -> np.ndarray:
    return se3.inverse([image.T_cam_world for image in model.images])


def write_fixes(path: Path, places: np.ndarray, datum: Datum, separator: str = ", ") -> Path:
    yaw = Rotation.from_euler("z", datum.yaw_deg, degrees=True)
    enu = yaw.apply(places)
    zero = (datum.latitude_deg, datum.longitude_deg, datum.altitude_m)
    rows = np.column_stack(pymap3d.enu2geodetic(*enu.T, *zero))
    rows[:, 1] = (rows[:, 1] + 180) % 360 - 180
    lines = [f"{name(i)},{lat:.9f},{lon:.9f},{alt:.4f}" for i, (lat, lon, alt) in enumerate(rows)]
    path.write_text("\n".join(["name,latitude,longitude,altitude", *lines]) + "\n")
    return path


@pytest.mark.parametrize("datum", [FIJI, KARLSRUHE])
def test_fixes_give_scale_place_and_axes_even_across_the_antimeridian(tmp_path, datum):
    truth = true_poses()
    file = write_fixes(tmp_path / "fixes.csv", truth[:, :3, 3], datum)
    longitudes = [float(line.split(",")[2]) for line in file.read_text().splitlines()[1:]]
    assert (np.ptp(longitudes) > 300) == (datum is FIJI)
    model, used, report = align_model(scale_free(truth), file, datum, 3.0)
    assert used == datum
    np.testing.assert_allclose(poses_of(model), truth, atol=1e-3)
    assert report.scale == pytest.approx(1 / 0.037, rel=1e-4)
    assert report.inliers == 30 and report.rms_m < 1e-3
    # A point 0.4 model units before a camera is 0.4 / 0.037 metres before it.
    distance_m = np.linalg.norm(model.points_world - truth[:, :3, 3], axis=-1)
    np.testing.assert_allclose(distance_m, np.hypot(0.1, 0.4) / 0.037, rtol=1e-3)


def test_fixes_of_an_antenna_beside_the_camera_are_taken_as_such(tmp_path):
    truth, antenna_cam = true_poses(), np.array([0.6, -0.9, -1.4])
    places = se3.transform(truth, antenna_cam[None])[:, 0]
    file = write_fixes(tmp_path / "fixes.csv", places, KARLSRUHE)
    ignored, _, _ = align_model(scale_free(truth), file, KARLSRUHE, 3.0)
    model, _, report = align_model(scale_free(truth), file, KARLSRUHE, 3.0, antenna_cam)
    assert np.linalg.norm((poses_of(ignored) - truth)[:, :3, 3], axis=-1).min() > 0.5
    np.testing.assert_allclose(poses_of(model), truth, atol=2e-3)
    assert report.rms_m < 2e-3


def test_antenna_needs_three_numbers_and_the_mount_of_the_camera(tmp_path):
    model = scale_free(true_poses())
    camera = Camera.create("PINHOLE", [640, 480], [500, 500], [320, 240])
    images = [
        write.ImageToWrite(i.name, i.T_cam_world, i.pixels, i.point_ids) for i in model.images
    ]
    colours = np.zeros((len(model.points_world), 3), np.uint8)
    write.write_model(tmp_path / "colmap", [camera], images, model.points_world, colours)
    file = write_fixes(tmp_path / "fixes.csv", true_poses()[:, :3, 3], KARLSRUHE)
    command = ["build", "--colmap", tmp_path / "colmap", "--images", "i", "--align-to", file]
    for antenna, why in {"1,2": "expected X,Y,Z in metres", "1,2,3": "give --camera-mount"}.items():
        arguments = [*map(str, command), "--output", str(tmp_path / "m"), "--antenna", antenna]
        with pytest.raises((ConfigError, MapError), match=why):
            CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_without_a_datum_the_first_fix_becomes_it(tmp_path):
    truth = true_poses()
    file = write_fixes(tmp_path / "fixes.csv", truth[:, :3, 3], KARLSRUHE)
    model, datum, _ = align_model(scale_free(truth), file, None, 3.0)
    assert datum is not None and datum.yaw_deg == 0.0
    first = float(file.read_text().splitlines()[1].split(",")[1])
    assert datum.latitude_deg == first
    np.testing.assert_allclose(poses_of(model)[0, :3, 3], 0, atol=1e-3)
    # A later fix lands where its camera is: priors from GNSS just work.
    last = [float(word) for word in file.read_text().splitlines()[-1].split(",")[1:]]
    np.testing.assert_allclose(datum.position_map(*last), poses_of(model)[-1, :3, 3], atol=1e-3)


def test_noise_and_wrong_fixes_are_survived_and_reported(tmp_path):
    truth = true_poses()
    rng = np.random.default_rng(0)
    places = truth[:, :3, 3] + rng.normal(0, 0.5, (30, 3))
    places[[4, 20]] += [40, 0, 0]
    file = write_fixes(tmp_path / "fixes.csv", places, KARLSRUHE)
    model, _, report = align_model(scale_free(truth), file, KARLSRUHE, 3.0)
    assert report.outliers == (name(4), name(20)) and report.inliers == 28
    assert 0.4 < report.rms_m < 1.2
    errors_m = np.linalg.norm(poses_of(model)[:, :3, 3] - truth[:, :3, 3], axis=-1)
    assert errors_m.max() < 1.0
    assert "28 of 30 images" in str(report) and name(20) in str(report)


@pytest.mark.parametrize("kind", ["meta", "named"])
def test_poses_of_utm_size(tmp_path, kind):
    truth = true_poses()
    truth[:, :3, 3] += UTM
    if kind == "named":
        file = tmp_path / "poses.txt"
        lines = {name(i).replace(" ", "_"): se3.inverse(T) for i, T in enumerate(truth)}
        write_poses(file, lines)
        model = scale_free(truth)
        images = [replace(i, name=i.name.replace(" ", "_")) for i in model.images]
        model = replace(model, images=tuple(images))
    else:
        file = tmp_path / "meta.json"
        entries = [{"file": name(i), "T_world_cam": T.tolist()} for i, T in enumerate(truth)]
        file.write_text(json.dumps({"images": entries}))
        model = scale_free(truth)
    aligned, datum, report = align_model(model, file, None, 0.5)
    assert datum is None and report.rms_m < 0.02
    np.testing.assert_allclose(poses_of(aligned)[:, :3, 3], truth[:, :3, 3], atol=0.02)


@settings(max_examples=20, deadline=None)
@given(
    st.floats(1e-3, 1e3),
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
)
def test_similarity_is_found_again(scale, rotvec, translation):
    places = true_poses()[:, :3, 3]
    R = Rotation.from_rotvec(rotvec).as_matrix()
    known = georeference.Similarity(scale, R, np.array(translation))
    found = georeference.fit(places, known.points(places))
    assert found.scale == pytest.approx(scale, rel=1e-6)
    np.testing.assert_allclose(found.R_map_model, R, atol=1e-6)
    np.testing.assert_allclose(found.points(places), known.points(places), rtol=1e-6, atol=1e-4)


def test_places_that_do_not_fit_are_refused(tmp_path):
    truth = true_poses()
    rng = np.random.default_rng(0)
    file = write_fixes(tmp_path / "fixes.csv", rng.permutation(truth[:, :3, 3]), KARLSRUHE)
    with pytest.raises(MapError, match=r"do not fit: \d+ of 30 images agree within 3 m") as caught:
        align_model(scale_free(truth), file, None, 3.0)
    assert "\n" not in str(caught.value)


def test_places_on_a_line_are_refused(tmp_path):
    truth = true_poses()
    truth[:, 1:3, 3] = 0
    noise = np.random.default_rng(0).normal(0, 0.5, (30, 3))
    file = write_fixes(tmp_path / "fixes.csv", truth[:, :3, 3] + noise, KARLSRUHE)
    with pytest.raises(MapError, match="on a line"):
        align_model(scale_free(truth), file, None, 3.0)


def test_files_that_do_not_help_are_refused(tmp_path):
    model = scale_free(true_poses())
    cases = {
        "a.jpg,49,8,100\nb.jpg,49,8,110\n": (MapError, "names none of the model's images"),
        f"{name(0)},49,8,100\n": (MapError, "1 images have a place to align to; at least 4"),
        f"{name(0)},149,8,100\n": (DataError, "is not `name latitude longitude altitude`"),
        f"{name(0)},x,8,100\n": (DataError, "is not `name latitude longitude altitude`"),
    }
    for content, (error, why) in cases.items():
        (tmp_path / "fixes.csv").write_text(content)
        with pytest.raises(error, match=why):
            align_model(model, tmp_path / "fixes.csv", None, 3.0)
    with pytest.raises(DataError, match="cannot read"):
        align_model(model, tmp_path / "absent.json", None, 3.0)


def test_command_line_aligns_models_only(tmp_path):
    arguments = ["--images", "i", "--output", str(tmp_path / "m"), "--align-to", "a.csv"]
    with pytest.raises(MapError, match="--align-to is for COLMAP models"):
        CliRunner().invoke(
            app, ["build", *arguments, "--posed-images", "p"], catch_exceptions=False
        )


def grid_at(crs: str, latitude_deg: float, longitude_deg: float) -> tuple[GridDatum, float, float]:
    """A frame with its zero there, its scale, and how far its north is turned to the right."""
    import pyproj

    proj = pyproj.Proj(crs)
    factors = proj.get_factors(longitude_deg, latitude_deg)
    easting, northing = proj(longitude_deg, latitude_deg)
    zero = {"easting_m": easting, "northing_m": northing, "altitude_m": 110.0}
    return GridDatum(crs=crs, **zero), factors.meridional_scale, factors.meridian_convergence


@pytest.mark.parametrize(
    ("crs", "latitude_deg", "longitude_deg"),
    [("EPSG:25832", 49.01, 8.43), ("EPSG:32760", -16.8, 179.99), ("EPSG:2193", -41.3, 174.8)],
    ids=["utm", "antimeridian", "northing first"],
)
def test_a_projected_frame_is_a_flat_one_turned_and_stretched(crs, latitude_deg, longitude_deg):
    pytest.importorskip("pyproj", reason="pip install 'pixloc_ros[crs]'")
    grid, scale, convergence_deg = grid_at(crs, latitude_deg, longitude_deg)
    turn = Rotation.from_euler("z", convergence_deg, degrees=True)
    enu = np.array([[150.0, 0.0, 2.0], [0.0, -200.0, 0.0], [-90.0, 120.0, -3.0]])
    fixes = pymap3d.enu2geodetic(*enu.T, latitude_deg, longitude_deg, 110.0)
    for fix, expected in zip(zip(*fixes, strict=True), turn.apply(enu), strict=True):
        found = grid.position_map(*fix)
        # The projection takes away the altitude before it measures: 110 m are 2e-5 of the radius.
        np.testing.assert_allclose(found[:2], scale * expected[:2], atol=0.01)
        np.testing.assert_allclose(found[2], expected[2], atol=0.01)
    np.testing.assert_allclose(
        grid.R_map_enu(latitude_deg, longitude_deg), turn.as_matrix(), atol=1e-6
    )
    assert grid.position_map(latitude_deg, longitude_deg, float("nan"))[2] == 0.0


def test_a_model_is_aligned_to_fixes_in_a_projected_frame(tmp_path):
    pytest.importorskip("pyproj", reason="pip install 'pixloc_ros[crs]'")
    truth, grid = true_poses(), GridDatum(crs="EPSG:25832")
    file = write_fixes(tmp_path / "fixes.csv", truth[:, :3, 3], KARLSRUHE)
    model, used, report = align_model(scale_free(truth), file, grid, 3.0)
    assert used == grid and report.inliers == 30 and report.rms_m < 0.01
    rows = [line.split(",")[1:] for line in file.read_text().splitlines()[1:]]
    places = [grid.position_map(*map(float, row)) for row in rows]
    np.testing.assert_allclose(poses_of(model)[:, :3, 3], places, atol=0.02)
    assert np.all(poses_of(model)[:, 1, 3] > 5_400_000)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("EPSG:4326", "no eastings and northings in metres"),
        ("EPSG:2272", "no eastings and northings in metres"),
        ("EPSG:999999", "pyproj knows no 'EPSG:999999'"),
        ("EPSG:25832,1,2", "three numbers"),
        ("EPSG:25832,1,2,nan", "finite"),
    ],
    ids=["degrees", "feet", "unknown", "two numbers", "nan"],
)
def test_only_frames_of_metres_are_taken(text, complaint):
    pytest.importorskip("pyproj", reason="pip install 'pixloc_ros[crs]'")
    with pytest.raises(MapError, match=complaint):
        GridDatum.parse(text)
