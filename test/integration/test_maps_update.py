"""A map that is updated with later drives: other light in, what has left out, never worse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from helpers.scene import BOARDS, CAMERA, CENTER, FAR, FOCAL, HEIGHT, WIDTH, Board, photograph, pose
from pixloc_ros.alignment.problems import ImageFeatures, ViewSelector
from pixloc_ros.cli.map import app
from pixloc_ros.config import Config
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build.builder import BuildOptions, build_from_model
from pixloc_ros.maps.build.lidar import LidarOptions, model_from_cloud
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.files.session_folder import SessionHeader, read_session
from pixloc_ros.maps.held_queries import HeldScore
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.update import new_version
from pixloc_ros.maps.update.keyframes import added_keyframes
from pixloc_ros.maps.update.new_points import NewPoints, lacks_points
from pixloc_ros.maps.update.observations import FrameObservations, observe
from pixloc_ros.maps.update.options import UpdateOptions
from pixloc_ros.maps.update.point_history import PointHistory
from pixloc_ros.maps.update.updater import UpdateReport, update_map
from pixloc_ros.maps.verified_frames import DriveSession, VerifiedFrame
from pixloc_ros.maps.view import MapView
from pixloc_ros.replay.runner import replay
from pixloc_ros.types import Frame

pytestmark = pytest.mark.slow

COUNT = 6
OPTIONS = LidarOptions(voxel_m=0.1, cells_per_image=200)
NEARER = Board((-0.6, 1.0), (-1.0, 1.0), 2.2, seed=7)
EXTRACTOR = FeatureExtractor()


def build(folder: Path, known=lambda points: np.ones(len(points), bool)) -> Path:
    """A map of the scene, of the points that are known."""
    (folder / "images").mkdir()
    names = [f"{i}.png" for i in range(COUNT)]
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / "images" / name), photograph(pose(i)))
    points = np.concatenate([board.points(0.1) for board in BOARDS])
    images = [PosedImage(n, folder / "images" / n, CAMERA, pose(i)) for i, n in enumerate(names)]
    model, _ = model_from_cloud(points[known(points)], images, OPTIONS)
    build_from_model(model, folder / "images", folder / "map", EXTRACTOR, BuildOptions())
    return folder / "map"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("scene"))


def at_night(image: np.ndarray) -> np.ndarray:
    """Of one colour and dark: the same surfaces in features that are mostly others."""
    return np.repeat(image[..., :1] // 2, 3, axis=-1)


@cache
def photographed(place: float, boards: tuple[Board, ...]) -> np.ndarray:
    return photograph(pose(place), boards)


def drive(
    name: str,
    boards: Sequence[Board] = BOARDS,
    develop=lambda image: image,
    shift=0.5,
    off=lambda i: np.eye(4),
):
    """A session between the keyframes; images are photographed when they are read.

    off: by frame, how far it was localized from where it was.
    """
    frames = [
        VerifiedFrame(
            name=f"{i:03d}",
            stamp_ns=1_700_000_000_000_000_000 + i,
            camera=CAMERA,
            T_map_base=pose(i + shift) @ off(i),
            T_base_cam=np.eye(4),
            read_image=lambda i=i: develop(photographed(i + shift, tuple(boards))),
        )
        for i in range(COUNT)
    ]
    return DriveSession(name, tuple(frames), len(frames))


def content(judge_says: Sequence[float] = (1.0, 1.0)):
    """A judge with these shares, before and after."""
    shares = iter(judge_says)
    return lambda map_, queries: HeldScore(next(shares), 0.01)


def updated(folder: Path, session: DriveSession, output: Path | None, **options) -> UpdateReport:
    spaced = UpdateOptions(
        **{"frame_spacing_m": 0.25, "keyframe_spacing_m": 0.5, "max_growth_share": 0.5, **options}
    )
    return update_map(folder, session, EXTRACTOR, content(), output, spaced)


def retired_share(before: Path, after: Path) -> tuple[float, float]:
    """Of the points of the near board, and of the far one."""
    left = set(Map.load(after).whole().point_id.tolist())
    old = Map.load(before).whole()
    gone = np.array([point not in left for point in old.point_id])
    near = old.points_map()[:, 2] < 5
    return float(gone[near].mean()), float(gone[~near].mean())


@pytest.fixture(scope="module")
def night(built, tmp_path_factory) -> tuple[UpdateReport, Path]:
    """The map after a drive in another light."""
    folder = tmp_path_factory.mktemp("night") / "map"
    session = drive("night", develop=at_night)
    return updated(built, session, folder, max_growth_share=0.2), folder


def test_points_of_what_left_are_retired_after_two_drives_and_not_after_one(built, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert updated(built, drive("monday", [FAR]), first).session.points_retired == 0
    updated(first, drive("tuesday", [FAR], shift=0.4), second)
    near, far = retired_share(first, second)
    assert near >= 0.75 and far <= 0.005
    assert find_problems(second) == []


def test_points_behind_something_new_are_not_taken_for_gone(built):
    there = drive("monday", [*BOARDS, NEARER]).frames
    observed = list(observe(Map.load(built), there, EXTRACTOR, 0.25))
    assert sum(each.present.sum() for each in observed) > 100
    hidden = sum(len(each.present) - each.present.sum() for each in observed)
    assert hidden > 100
    assert sum(each.absent.sum() for each in observed) <= 0.02 * hidden


def test_drive_that_fits_badly_tells_nothing(built):
    elsewhere = [Board((-9.0, 12.0), (-5.0, 5.0), 12.0, seed=9)]
    for each in observe(Map.load(built), drive("x", elsewhere).frames, EXTRACTOR, 0.25):
        assert not (each.present.any() or each.absent.any() or each.novel.any())
        assert not lacks_points(each)


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> Path:
    """A map that is blind on one side."""
    return build(tmp_path_factory.mktemp("half"), lambda points: points[:, 0] < 0.0)


def new_points_of(half: Path, new: Path) -> np.ndarray:
    tile = Map.load(new).whole()
    return tile.points_map()[tile.point_id >= Map.load(half).point_id_end]


def depth_error_m(points: np.ndarray) -> float:
    return float(np.median(np.abs(points[:, 2:] - [board.z_m for board in BOARDS]).min(1)))


def test_where_the_map_was_blind_points_are_added_in_its_frame_and_once(half, tmp_path):
    new, again = tmp_path / "new", tmp_path / "again"
    bounds = {"max_new_share": 20.0, "new_keyframe_spacing_m": 0.5}
    session = updated(half, drive("monday"), new, **bounds).session
    added = new_points_of(half, new)
    assert len(added) == session.points_added > 50
    assert depth_error_m(added) < 0.03 and (added[:, 0] > 0.0).mean() > 0.8
    assert find_problems(new) == []
    second = drive("tuesday", shift=0.4)
    assert updated(new, second, again, **bounds).session.points_added <= 0.2 * len(added)


def turned(i: int) -> np.ndarray:
    """By a tenth of a degree, another way for each frame."""
    axis_deg = np.random.default_rng(i).normal(0, 0.1, 3)
    return se3.make(Rotation.from_rotvec(axis_deg, degrees=True).as_matrix(), np.zeros(3))


def test_new_points_and_localized_poses_are_adjusted_while_the_map_is_held(half, tmp_path):
    updated(half, drive("monday", off=turned), tmp_path / "map", max_new_share=20.0)
    old, new = Map.load(half), Map.load(tmp_path / "map")
    before, after = old.whole(), new.whole()
    added = after.point_id >= old.point_id_end
    assert added.sum() > 300
    assert after.point_error_px[added].mean() < 0.2  # 0.6 where the poses stay as they are
    assert (new.keyframe_T_map_cam[:COUNT] == old.keyframe_T_map_cam).all()
    places = dict(zip(after.point_id.tolist(), after.points_map(), strict=True))
    held = np.array([places[i] for i in before.point_id.tolist()])
    # Both are float32 relative to a tile's origin: 4e-6 m at 64 m, once before and once after.
    assert np.allclose(held, before.points_map(), atol=1e-5)


def test_another_light_is_added_within_bounds_and_once(built, night, tmp_path):
    report, folder = night
    assert 100 < report.session.observations <= 0.2 * Map.load(built).metadata.observations
    assert find_problems(folder) == []
    again = updated(folder, drive("night 2", develop=at_night), tmp_path / "again")
    assert again.session.observations < report.session.observations
    assert set(Map.load(tmp_path / "again").keyframe_condition.tolist()) == {0, 1}


def test_where_a_condition_has_keyframes_more_must_look_new(built, night):
    observed = list(observe(Map.load(built), drive("monday").frames, EXTRACTOR, 0.25))

    def added(folder: Path, share: float) -> int:
        frames = [replace(e, novel=np.linspace(0, 1, len(e.novel)) < share) for e in observed]
        map_, options = Map.load(folder), UpdateOptions(max_growth_share=10.0)
        none = NewPoints.none(map_.point_id_end)
        return len(added_keyframes(frames, map_, none, 1, EXTRACTOR, options))

    assert added(built, 0.2) > 0
    assert added(night[1], 0.2) == 0
    assert added(night[1], 0.4) > 0


@pytest.mark.parametrize(("develop", "condition"), [(lambda image: image, 0), (at_night, 1)])
def test_query_is_compared_with_what_was_seen_in_its_light(night, develop, condition):
    map_, image = Map.load(night[1]), develop(photographed(2.3, BOARDS))
    frame = Frame(image, CAMERA, 0, np.eye(4))
    features = ImageFeatures(frame, EXTRACTOR.extract(image))
    view = ViewSelector(map_, Config(), [features]).view(frame, pose(2.3))
    added = [name.startswith("night.1/") for name in view.keyframes]
    assert any(added) == bool(condition)
    finest = features.pyramid.sample(project(view))[-1][0]
    assert (finest * view.features[-1]).sum(-1).median() > 0.85


def project(view: MapView) -> torch.Tensor:
    points_cam = se3.transform(se3.inverse(pose(2.3)), view.points.double().numpy() + view.origin)
    return CAMERA.project(torch.from_numpy(points_cam))[0].float()


def told(*, absent: Sequence[int] = (), present: Sequence[int] = ()) -> FrameObservations:
    """What a frame tells of some points."""
    ids = np.array([*absent, *present], np.int32)
    gone = np.arange(len(ids)) < len(absent)
    frame = drive("x").frames[0]
    no, none = np.zeros(len(ids), bool), np.zeros((0, 2))
    at = np.zeros((len(ids), 3))
    return FrameObservations(frame, np.zeros(1), ids, at, (), (), ~gone, gone, no, no, none, none)


def test_points_are_retired_after_several_drives_and_frames_unless_seen_again():
    history = PointHistory.of({})
    for drives in range(2):
        assert drives == 0 or len(history.gone()) == 0
        # 1 is looked through by two frames of each drive, 2 by one of each; 3 is seen now and then.
        frames = [told(absent=[1, 2]), told(absent=[1, 3], present=[4]), told(present=[3])]
        history = history.after(frames, 10)
    assert history.gone().tolist() == [1]
    kept = PointHistory.of(history.arrays())
    assert kept.after([told(absent=[2])], 10).gone().tolist() == [1, 2]
    assert kept.after([told(present=[1, 2])], 10).gone().tolist() == []
    assert kept.without(kept.gone()).point_id.tolist() == [2]


def test_update_that_makes_it_worse_is_refused_and_one_that_was_forced_is_undone(built, tmp_path):
    folder = tmp_path / "map"
    shutil.copytree(built, folder)
    before, night = Map.load(folder).sha256, drive("night", develop=at_night)
    options = UpdateOptions(frame_spacing_m=0.25, keyframe_spacing_m=0.5)
    with pytest.raises(MapError, match=r"0\.50 instead of 1\.00 are localized"):
        update_map(folder, night, EXTRACTOR, content([1.0, 0.5]), options=options)
    assert [path.name for path in tmp_path.iterdir()] == ["map"]
    assert Map.load(folder).sha256 == before
    forced = replace(options, force=True)
    update_map(folder, night, EXTRACTOR, content([1.0, 0.5]), options=forced)
    assert [entry.name for entry in Map.load(folder).metadata.history] == ["night"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map", "map.v0"]
    command = ["update", str(folder), "--undo"]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    Map.load(folder).check_files()
    assert Map.load(folder).sha256 == before
    with pytest.raises(MapError, match="no earlier version beside it"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_averages_take_no_observations(built):
    map_ = Map.load(built)
    averaged = map_.metadata.model_copy(update={"storage": "averaged"})
    with pytest.raises(MapError, match="average of each point's observations"):
        new_version.check_storage(replace(map_, metadata=averaged))


def test_command_updates_with_a_recorded_session_and_with_a_bag(street, tmp_path):
    config, folder = Config(map=str(street / "map")), tmp_path / "session"
    run = replay(
        street / "bag", config, tmp_path / "run", report=False, every=2, record_session=folder
    )
    accepted = {estimate.stamp_ns: estimate.T_map_base for estimate in run.estimates if estimate.ok}
    recorded = read_session(folder, Map.load(street / "map")).frames  # 1.6 m apart: each of them
    assert [frame.stamp_ns for frame in recorded] == list(accepted)
    assert all((frame.T_map_base == accepted[frame.stamp_ns]).all() for frame in recorded)
    new = tmp_path / "new"
    command = [
        "update",
        str(street / "map"),
        "--session",
        str(folder),
        "--bag",
        str(street / "bag"),
    ]
    done = CliRunner().invoke(app, [*command, "--output", str(new)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    history = Map.load(new).metadata.history
    assert [(entry.name, entry.frames > 10) for entry in history] == [
        ("session", False),
        ("bag", True),
    ]
    assert find_problems(new) == []


def test_command_refuses_sessions_of_other_maps(street, built, tmp_path):
    header = SessionHeader.of(Map.load(built))
    (tmp_path / "session.json").write_text(header.model_dump_json())
    command = ["update", str(street / "map"), "--session", str(tmp_path)]
    with pytest.raises(MapError, match="was recorded on another map"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_command_updates_with_posed_images_and_tells_the_history(built, tmp_path):
    entries = []
    for frame in drive("night").frames:
        image = at_night(frame.read_image())
        cv2.imwrite(str(tmp_path / f"{frame.name}.png"), image)
        pose_numbers = frame.T_map_base[:3].ravel().tolist()
        entries.append(
            {
                "file": f"{frame.name}.png",
                "width": WIDTH,
                "height": HEIGHT,
                "K": [FOCAL, FOCAL, *CENTER],
                "T_world_cam": pose_numbers,
            }
        )
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"world_axes": "ros", "images": entries}))
    new = tmp_path / "new"
    command = ["update", str(built), "--posed", str(meta), "--images", str(tmp_path)]
    command += ["--frame-spacing", "0.25", "--spacing", "0.5", "--force"]
    done = CliRunner().invoke(app, [*command, "--output", str(new)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "held queries localized" in done.output
    shown = CliRunner().invoke(app, ["info", str(new), "--history"], catch_exceptions=False)
    assert tmp_path.name[:10] in shown.output and "observations" in shown.output
    assert find_problems(new) == []
