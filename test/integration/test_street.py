"""The generated street: its pictures, depth, tracks and files tell one exact geometry."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixloc_ros.demo.street.dataset import DatasetOptions, write_dataset
from pixloc_ros.demo.street.drive import T_BASE_CAM, drive_poses, mapping_poses
from pixloc_ros.demo.street.lens import LENSES, StreetLens, find_lens
from pixloc_ros.demo.street.photograph import moving, photograph
from pixloc_ros.demo.street.render import RenderedView, render
from pixloc_ros.demo.street.sessions import SESSIONS, find_session
from pixloc_ros.demo.street.street import Street
from pixloc_ros.demo.street.tracks import PosedView, build_tracks, project_visible
from pixloc_ros.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

LENGTH_M = 10.0  # of the street
WIDTH, HEIGHT = 320, 192
LENS = StreetLens(WIDTH, HEIGHT)
K = np.array(LENS.K)


@pytest.fixture(scope="module")
def world() -> Street:
    return Street.generate(seed=0, length_m=LENGTH_M)


@pytest.fixture(scope="module")
def views(world: Street) -> list[PosedView]:
    poses = [T @ T_BASE_CAM for T in mapping_poses(world.layout, 0.0, 5.0, 1.0)]
    rendered = [(render(world, pose, K, WIDTH, HEIGHT), pose) for pose in poses]
    return [PosedView(view.image_rgb, view.depth_m, pose) for view, pose in rendered]


def points_of(view: PosedView, pixels: np.ndarray) -> np.ndarray:
    """Map points of whole pixels (N, 2)."""
    rays = np.column_stack([(pixels - K[2:]) / K[:2], np.ones(len(pixels))])
    in_cam = rays * view.depth_m[pixels[:, 1], pixels[:, 0]].astype(float)[:, None]
    return in_cam @ view.T_map_cam[:3, :3].T + view.T_map_cam[:3, 3]


def test_ground_has_the_depth_of_its_plane(views: list[PosedView]) -> None:
    view = views[0]
    columns = np.arange(100, 220)
    pixels = np.column_stack([columns, np.full_like(columns, HEIGHT - 2)])
    assert np.abs(points_of(view, pixels)[:, 2]).max() < 1e-4


def test_points_of_one_view_have_the_same_colour_in_another(views: list[PosedView]) -> None:
    u, v = np.meshgrid(np.arange(3, WIDTH - 3, 2), np.arange(3, HEIGHT - 3, 2))
    pixels = np.column_stack([u.ravel(), v.ravel()])
    pixels = pixels[np.isfinite(views[0].depth_m[pixels[:, 1], pixels[:, 0]])]
    moved, seen = project_visible(views[1], LENS, points_of(views[0], pixels))
    where = moved[seen].astype(np.float32)[None]
    there = cv2.remap(views[1].image_rgb, where[..., 0], where[..., 1], cv2.INTER_LINEAR)[0]
    here = views[0].image_rgb[pixels[seen][:, 1], pixels[seen][:, 0]]
    assert seen.mean() > 0.6
    difference = np.abs(there.astype(float) - here).mean(axis=1)
    shifted = np.abs(np.roll(there, 1, axis=0).astype(float) - here).mean(axis=1)
    assert np.median(difference) < 8 < np.median(shifted)


def test_a_turned_camera_sees_the_picture_moved_by_its_calibration(world: Street) -> None:
    """Turning about the optical centre moves every pixel by K R K^-1, whatever the depth."""
    pose = mapping_poses(world.layout, 0.0, 1.0, 1.0)[0] @ T_BASE_CAM
    R_turn = cv2.Rodrigues(np.array([0.004, 2.5 / K[0], 0.006]))[0]
    turned = pose.copy()
    turned[:3, :3] = pose[:3, :3] @ R_turn
    first, second = (
        cv2.cvtColor(render(world, T, K, WIDTH, HEIGHT).image_rgb, cv2.COLOR_RGB2GRAY)
        for T in (pose, turned)
    )
    matrix = np.array([[K[0], 0, K[2]], [0, K[1], K[3]], [0, 0, 1]])
    pixel_map = matrix @ R_turn.T @ np.linalg.inv(matrix)
    moved = cv2.warpPerspective(first, pixel_map, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    for window in np.s_[8:-8, 8:-8], np.s_[100:-8, 8:150], np.s_[60:140, 150:-8]:
        assert shift_between(moved[window], second[window]) == pytest.approx((0, 0), abs=0.08)


def shift_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Least-squares translation (2,) in pixels from one grey picture to a nearly equal one."""
    a, b = first.astype(float), second.astype(float)
    slopes = np.stack([np.gradient((a + b) / 2, axis=axis).ravel() for axis in (1, 0)], axis=1)
    return np.linalg.lstsq(slopes, (a - b).ravel(), rcond=None)[0]


def test_sky_is_infinitely_far(world: Street) -> None:
    pose = mapping_poses(world.layout, 0.0, 1.0, 1.0)[0] @ T_BASE_CAM
    view: RenderedView = render(world, pose, K, WIDTH, HEIGHT)
    assert np.isinf(view.depth_m[0, WIDTH // 2])
    assert 2.0 < view.depth_m[-1].min() < 8.0


def test_same_seed_same_street_other_session_other_cars(world: Street) -> None:
    again = Street.generate(seed=0, length_m=LENGTH_M)
    query = Street.generate(seed=0, length_m=LENGTH_M, session=SESSIONS["later"])
    pose = mapping_poses(world.layout, 0.0, 1.0, 1.0)[0] @ T_BASE_CAM
    first, second = (render(s, pose, K, WIDTH, HEIGHT).image_rgb for s in (world, again))
    assert np.array_equal(first, second)
    stayed = {(car.x, car.y) for car in world.cars} & {(car.x, car.y) for car in query.cars}
    assert 0 < len(stayed) < len(world.cars)


@pytest.mark.parametrize("name", ["night", "low_sun", "wet", "repainted"])
def test_another_day_changes_the_picture_and_not_the_geometry(world: Street, name: str) -> None:
    session = replace(find_session(name), moved_cars=0.0)
    other = Street.generate(seed=0, length_m=LENGTH_M, session=session)
    pose = mapping_poses(world.layout, 0.0, 1.0, 1.0)[0] @ T_BASE_CAM
    lens, noise = StreetLens(WIDTH, HEIGHT), np.random.default_rng(0)
    first = render(world, pose, lens.K, WIDTH, HEIGHT)
    second = photograph(other, session, lens, lambda before_s: pose, noise)
    assert np.array_equal(first.depth_m, second.depth_m)
    assert np.abs(first.image_rgb.astype(float) - second.image_rgb).mean() > 10
    if name == "night":
        assert_lit_windows_and_lanterns_are_the_brightest(first, second)


def assert_lit_windows_and_lanterns_are_the_brightest(
    day: RenderedView, dark: RenderedView
) -> None:
    sky = np.isinf(day.depth_m)
    assert dark.image_rgb[sky].mean() < 40 < day.image_rgb[sky].mean()
    assert dark.image_rgb.mean() < 0.6 * day.image_rgb.mean()
    assert np.quantile(dark.image_rgb.max(-1), 0.99) > 180


def test_rows_of_a_rolling_shutter_are_seen_from_where_they_are_read(world: Street) -> None:
    session = replace(
        SESSIONS["mapping"], exposure=replace(SESSIONS["mapping"].exposure, noise=0.0)
    )
    poses = [T @ T_BASE_CAM for T in mapping_poses(world.layout, 0.0, 3.0, 1.0)]
    lens, noise = StreetLens(WIDTH, HEIGHT, readout_s=0.03), np.random.default_rng(0)
    motion, still = moving(*poses, period_s=0.1), replace(lens, readout_s=0.0)
    rolling = photograph(world, session, lens, motion, noise)
    last, middle, first = (
        photograph(world, session, still, lambda _, before_s=before_s: motion(before_s), noise)
        for before_s in (-0.015, 0.0, 0.015)
    )
    road_m = 0.02  # what the first and last bands move while they are read
    assert rolling.depth_m[-1] == pytest.approx(last.depth_m[-1], abs=road_m)
    rows = np.stack([view.depth_m[0] for view in (rolling, first, middle)])
    top, of_first, of_middle = rows[:, np.isfinite(rows).all(0)]
    assert np.median(np.abs(top - of_first)) < 0.3 * np.median(np.abs(top - of_middle))


@pytest.mark.parametrize("name", [name for name in LENSES if name != "pinhole"])
def test_a_lens_bends_the_picture_as_the_projection_says(world: Street, name: str) -> None:
    """A point of the pinhole picture is where the lens's camera projects it, in the same colour."""
    session = replace(
        SESSIONS["mapping"], exposure=replace(SESSIONS["mapping"].exposure, noise=0.0)
    )
    pose = mapping_poses(world.layout, 0.0, 1.0, 1.0)[0] @ T_BASE_CAM
    lens, noise = replace(find_lens(name), width=WIDTH, height=HEIGHT), np.random.default_rng(0)
    straight, bent = (
        PosedView(view.image_rgb, view.depth_m, pose)
        for view in (
            photograph(world, session, each, lambda _: pose, noise) for each in (LENS, lens)
        )
    )
    u, v = (each.ravel() for each in np.meshgrid(np.arange(4, WIDTH, 5), np.arange(4, HEIGHT, 5)))
    pixels = np.column_stack([u, v])[np.isfinite(straight.depth_m[v, u])]
    moved, seen = project_visible(bent, lens, points_of(straight, pixels))
    assert np.abs(moved - pixels)[seen].max() > 10  # else the lens would do nothing
    assert seen.mean() > 0.7
    where = moved[seen].astype(np.float32)[None]
    there = cv2.remap(bent.image_rgb, where[..., 0], where[..., 1], cv2.INTER_LINEAR)[0]
    here = straight.image_rgb[pixels[seen][:, 1], pixels[seen][:, 0]]
    off = np.abs(there.astype(float) - here).mean(axis=1)
    shuffled = np.abs(np.roll(there, 1, axis=0).astype(float) - here).mean(axis=1)
    assert np.median(off) < 8 < np.median(shuffled)


def test_an_unknown_session_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'noon'.*night"):
        find_session("noon")


def test_tracks_hold_no_hidden_point(views: list[PosedView]) -> None:
    tracks = build_tracks(views, LENS)
    assert len(tracks.points) > 300
    lengths = np.zeros(len(tracks.points), int)
    for view, (pixels, numbers) in zip(views, tracks.observations, strict=True):
        where, seen = project_visible(view, LENS, tracks.points[numbers])
        assert seen.mean() > 0.99
        assert np.abs(where - pixels).max() < 1e-3
        lengths[numbers] += 1
    assert lengths.min() >= 3


def test_a_point_behind_a_house_is_not_visible(views: list[PosedView]) -> None:
    behind = np.array([[12.0, 14.0, 3.0]])
    assert not project_visible(views[0], LENS, behind)[1].any()


def test_drive_moves_at_its_speed(world: Street) -> None:
    stamps, poses = drive_poses(world.layout, 0.0, 40.0)
    positions = np.array([pose[:3, 3] for pose in poses])
    speed = np.linalg.norm(np.diff(positions, axis=0), axis=1) / (np.diff(stamps) / 1e9)
    assert speed.min() > 7.0
    assert speed.max() < 9.0
    ahead = np.array([pose[:3, 0] for pose in poses])[:-1]
    assert (np.sum(ahead * np.diff(positions, axis=0), axis=1) > 0.7).all()


def test_colmap_reads_the_model_with_exact_reprojections(street: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(street / "data" / "mapping" / "colmap")
    model.update_point_3d_errors()
    assert model.num_points3D() > 300
    assert model.compute_mean_reprojection_error() < 0.01
    meta = json.loads((street / "data" / "mapping" / "meta.json").read_text())
    assert model.num_images() == len(meta["images"])
    for image in model.images.values():
        (record,) = [entry for entry in meta["images"] if entry["file"] == image.name]
        T_world_cam = np.array(record["T_world_cam"]).reshape(3, 4)
        T_cam_world = image.cam_from_world().matrix()
        assert T_cam_world[:, :3] @ T_world_cam[:, 3] + T_cam_world[:, 3] == pytest.approx(0.0)
        assert record["K"][2] + 0.5 == pytest.approx(model.cameras[image.camera_id].params[2])


def test_dataset_has_every_image_its_meta_names(street: Path) -> None:
    for part in ("mapping", "drive"):
        meta = json.loads((street / "data" / part / "meta.json").read_text())
        assert meta["world_axes"] == "ros"
        assert np.array(meta["T_base_cam"]).reshape(4, 4) == pytest.approx(T_BASE_CAM)
        stamps = [record["t"] for record in meta["images"]]
        assert stamps == sorted(set(stamps))
        for record in meta["images"]:
            image = cv2.imread(str(street / "data" / part / "images" / record["file"]))
            assert image.shape == (record["height"], record["width"], 3)


def test_an_existing_folder_is_left_alone(street: Path) -> None:
    with pytest.raises(DataError, match="exists already"):
        write_dataset(street, DatasetOptions())
