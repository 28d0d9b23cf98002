"""A map of a recorded drive, stage by stage, on drives whose truth is known."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pixloc_ros.common.progress import silent
from pixloc_ros.config import PriorsConfig
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.build.from_bag import chunks as chunks_of_drives
from pixloc_ros.maps.build.from_bag import gates, joining, joint_adjustment
from pixloc_ros.maps.build.from_bag.chunks import PlacedChunk
from pixloc_ros.maps.build.from_bag.frames import KeyframeImage, choose_frames
from pixloc_ros.maps.build.from_bag.gates import KeyframeCoverage
from pixloc_ros.maps.build.from_bag.loops import Meeting
from pixloc_ros.maps.build.from_bag.report import left_out
from pixloc_ros.maps.build.from_bag.trajectory import (
    Loop,
    Moment,
    join_steps,
    smooth_trajectory,
)
from pixloc_ros.maps.files.recorded_drive import (
    RecordedCamera,
    RecordedDrive,
    RecordedFixes,
    RecordedImage,
    RecordedOdometry,
)

CONFIG = MappingConfig()
CAMERA = Camera.create("PINHOLE", [160, 120], [120.0, 120.0], [79.5, 59.5])
STEP_NS = 100_000_000
ANTENNA = np.array([-0.5, 0.2, 1.4])


def turning_path(count: int = 400) -> np.ndarray:
    """Poses (N, 4, 4) of a vehicle that drives once around a square block, at varying speed."""
    T = np.tile(np.eye(4), (count, 1, 1))
    for i in range(1, count):
        speed_mps = 5.0 + 3.0 * np.sin(i / 9)
        turn_deg = 1.5 if i % 100 >= 40 else 0.0
        step = se3.make(
            Rotation.from_euler("z", turn_deg, degrees=True).as_matrix(), [speed_mps / 10, 0, 0]
        )
        T[i] = T[i - 1] @ step
    start = Rotation.from_euler("z", 40, degrees=True).as_matrix()
    return se3.make(start, [300.0, -200.0, 5.0]) @ T


def recorded(T_map_base: np.ndarray, scale: float = 1.0, delay_s: float = 0.0) -> RecordedDrive:
    """Odometry whose distances are wrong by a factor, and exact fixes that come late."""
    stamps_ns = 10**18 + STEP_NS * np.arange(len(T_map_base))
    T_odom = se3.inverse(T_map_base[0]) @ T_map_base
    T_odom[:, :3, 3] /= scale
    truth = RecordedOdometry(stamps_ns, T_map_base, np.zeros(len(stamps_ns), np.int64))
    antenna = truth.at(stamps_ns - round(delay_s * 1e9)) @ np.append(ANTENNA, 1.0)
    fixes = RecordedFixes(
        stamps_ns,
        antenna[:, :3],
        np.tile(1e-4 * np.eye(3), (len(stamps_ns), 1, 1)),
        np.tile(ANTENNA, (len(stamps_ns), 1)),
    )
    return drive(odometry=replace(truth, T_odom_base=T_odom), fixes=fixes)


def drive(images: list[tuple[int, np.ndarray]] | None = None, **known: object) -> RecordedDrive:
    def read() -> Iterator[RecordedImage]:
        for stamp_ns, image_rgb in images or []:
            yield RecordedImage("", stamp_ns, lambda image_rgb=image_rgb: image_rgb)

    fields: dict = {"odometry": None, "fixes": None, "datum": None} | known
    cameras = (RecordedCamera("", CAMERA, se3.base_from_optical()),)
    return RecordedDrive(
        name="drive",
        cameras=cameras,
        image_count=len(images or []),
        read_images=read,
        identity="1",
        **fields,
    )


def moments_of(T: np.ndarray, every: int = 4) -> list[Moment]:
    return [Moment(0, int(10**18 + STEP_NS * i)) for i in range(0, len(T), every)]


def test_trajectory_finds_scale_and_delay_of_the_sensors():
    truth = turning_path()
    found = smooth_trajectory(
        [recorded(truth, scale=1.02, delay_s=0.15)], moments_of(truth), (), CONFIG, PriorsConfig()
    )
    assert found.odometry_scale[0] == pytest.approx(1.02, abs=2e-3)
    assert found.fix_delay_s[0] == pytest.approx(0.15, abs=0.02)
    errors_m = np.linalg.norm(found.T_map_base[:, :3, 3] - truth[::4, :3, 3], axis=-1)
    assert np.median(errors_m) < 0.05
    assert max(map(se3.angle_deg, found.T_map_base, truth[::4])) < 0.5


def test_trajectory_without_fixes_is_that_of_the_odometry_from_zero():
    truth = turning_path()
    alone = replace(recorded(truth), fixes=None)
    found = smooth_trajectory([alone], moments_of(truth), (), CONFIG, PriorsConfig())
    from_start = se3.inverse(truth[0]) @ truth[::4]
    np.testing.assert_allclose(found.T_map_base, from_start, atol=1e-3)


def test_trajectory_is_closed_by_loops_and_not_torn_by_a_wrong_one():
    truth = turning_path()
    drifting = replace(recorded(truth), fixes=None)
    assert drifting.odometry is not None
    T = drifting.odometry.T_odom_base
    steps = se3.inverse(T[:-1]) @ T[1:]
    steps[:, :3, :3] @= Rotation.from_euler("z", 0.03, degrees=True).as_matrix()  # of a gyro
    for i, step in enumerate(steps):
        T[i + 1] = T[i] @ step
    moments = moments_of(truth)
    last = len(moments) - 1
    loops = [Loop(0, i, se3.inverse(truth[0]) @ truth[4 * i]) for i in (last, last - 1, last - 2)]
    loops.append(Loop(5, 20, np.eye(4)))
    from_start = se3.inverse(truth[0]) @ truth[::4]

    def end_error_m(loops: list[Loop]) -> float:
        found = smooth_trajectory([drifting], moments, loops, CONFIG, PriorsConfig())
        return se3.distance_m(found.T_map_base[-1], from_start[-1])

    assert end_error_m([]) > 0.5
    assert end_error_m(loops) < 0.15


def test_several_drives_need_fixes_to_know_of_each_other():
    truth = turning_path(60)
    alone = replace(recorded(truth), fixes=None)
    moments = [*moments_of(truth), *(replace(m, drive=1) for m in moments_of(truth))]
    with pytest.raises(MapError, match="needs GNSS fixes"):
        smooth_trajectory([alone, alone], moments, (), CONFIG, PriorsConfig())


def pictures(shifts_px: list[float], blurred: tuple[int, ...] = ()) -> list[tuple[int, np.ndarray]]:
    """A textured wall that passes by, by so many pixels in all."""
    import cv2

    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(rng.integers(0, 255, (120, 800), np.uint8), (0, 0), 2.0)
    wall = cv2.normalize(wall, None, 0, 255, cv2.NORM_MINMAX)
    images = []
    for i, shift_px in enumerate(shifts_px):
        M = np.array([[1.0, 0.0, -shift_px], [0.0, 1.0, 0.0]])
        grey = cv2.warpAffine(wall, M, (160, 120))
        grey = cv2.GaussianBlur(grey, (0, 0), 3.0) if i in blurred else grey
        images.append((10**18 + STEP_NS * i, np.repeat(grey[..., None], 3, axis=-1)))
    return images


def chosen(given: RecordedDrive, folder: Path, **changes: object) -> list[int]:
    config = CONFIG.model_copy(update=changes)
    found = choose_frames([given], folder, config, silent)
    return [(keyframe.stamp_ns - 10**18) // STEP_NS for keyframe in found.keyframes]


def test_keyframes_by_odometry_are_apart_and_sharp_and_none_stands_still(tmp_path):
    T = np.tile(np.eye(4), (40, 1, 1))
    T[:, 0, 3] = np.concatenate([np.arange(20) * 0.5, np.full(20, 9.5)])  # then it stands
    stamps_ns = 10**18 + STEP_NS * np.arange(40)
    odometry = RecordedOdometry(stamps_ns, T, np.zeros(40, np.int64))
    images = pictures([0.0] * 40, blurred=tuple(range(0, 40, 2)))
    found = chosen(drive(images, odometry=odometry), tmp_path / "f", keyframe_spacing_m=1.0)
    assert found == [*range(1, 19, 2), 19]


def test_keyframes_by_image_motion_leave_out_standstill(tmp_path):
    shifts = [4.0 * min(i, 15) for i in range(40)]
    found = chosen(drive(pictures(shifts)), tmp_path / "f", keyframe_flow_share=0.05)
    assert 6 <= len(found) <= 9 and max(found) <= 15 + 1


def test_unreadable_images_are_counted_and_frames_are_not_chosen_twice(tmp_path):
    images = pictures([8.0 * i for i in range(10)])
    images[3] = (images[3][0], np.zeros((50, 50, 3), np.uint8))  # not the calibrated size
    given = drive(images)
    found = choose_frames([given], tmp_path / "f", CONFIG, silent)
    assert found.unreadable == 1 and found.images == 10

    def never() -> Iterator[RecordedImage]:
        raise AssertionError("read again")

    again = choose_frames([replace(given, read_images=never)], tmp_path / "f", CONFIG, silent)
    assert again == found


def test_a_drive_that_stands_gives_no_map(tmp_path):
    with pytest.raises(MapError, match="does the vehicle move"):
        choose_frames([drive(pictures([0.0] * 5))], tmp_path / "f", CONFIG, silent)


def test_images_that_give_no_map_are_told_with_the_reason(tmp_path):
    moving = pictures([8.0 * i for i in range(5)])
    small = [(stamp_ns, np.zeros((50, 50, 3), np.uint8)) for stamp_ns, _ in moving]
    with pytest.raises(MapError, match=r"5 of them cannot be used: .* is 50x50, calibrated"):
        choose_frames([drive(small)], tmp_path / "f", CONFIG, silent)
    hour_ns = 3600 * 10**9
    late = [(stamp_ns + hour_ns, image) for stamp_ns, image in moving]
    odometry = recorded(turning_path(10)).odometry
    with pytest.raises(MapError, match=r"cover 5 of them.*s before or after it.*the same clock"):
        choose_frames([drive(late, odometry=odometry)], tmp_path / "g", CONFIG, silent)


def test_images_that_odometry_does_not_cover_are_told_with_their_span(tmp_path):
    """Odometry from image 4 on, with a gap around images 20 to 22, until image 35."""
    T = np.tile(np.eye(4), (40, 1, 1))
    T[:, 0, 3] = np.arange(40) * 0.5
    kept = np.array([*range(4, 20), *range(23, 36)])
    odometry = RecordedOdometry(
        10**18 + STEP_NS * kept, T[kept], np.array([0] * 16 + [1] * 13, np.int64)
    )
    given = drive(pictures([0.0] * 40), odometry=odometry)
    found = choose_frames([given], tmp_path / "f", CONFIG, silent)
    assert [(s.images, s.where, s.first_s, s.last_s) for s in found.uncovered] == [
        (4, "before it begins", 0.0, pytest.approx(0.3)),
        (4, "in a gap or a jump of it", 2.0, pytest.approx(2.3)),  # its end begins the next epoch
        (4, "after it ends", pytest.approx(3.6), pytest.approx(3.9)),
    ]
    assert choose_frames([given], tmp_path / "f", CONFIG, silent) == found
    (line,) = left_out(found.unreadable, found.uncovered)
    assert line == (
        "drive: 12 images left out, not covered by odometry: 4 before it begins (0.0 to 0.3 s), "
        "4 in a gap or a jump of it (2.0 to 2.3 s), 4 after it ends (3.6 to 3.9 s)"
    )


def test_weak_stretches_are_named_by_time_and_place():
    keyframes = [KeyframeImage(0, "", 10**18 + i * 10**9, f"{i}.jpg") for i in range(10)]
    points = np.array([200] * 4 + [10] * 3 + [200] * 3)
    found = KeyframeCoverage(points, np.full(10, 6))
    positions = np.column_stack([10.0 * np.arange(10), np.zeros(10), np.zeros(10)])
    (stretch,) = gates.weak_stretches(keyframes, ["drive"], positions, found, CONFIG)
    assert (stretch.first_ns, stretch.last_ns) == (keyframes[4].stamp_ns, keyframes[6].stamp_ns)
    assert stretch.keyframes == 3 and stretch.place_map == (50.0, 0.0)
    assert "10 points" in str(stretch)


def test_chunks_cover_every_drive_and_overlap():
    drive_of = np.array([0] * 100 + [1] * 7)
    chunks = chunks_of_drives.cut(drive_of, 40, 8)
    assert {i for chunk in chunks for i in chunk} == set(range(107))
    assert max(map(len, chunks)) <= 40 and len(chunks) == 4
    shared = [len(set(a) & set(b)) for a, b in pairwise(chunks)]
    assert shared == [8, 8, 0]


def seen_chunk(images: range, T_change: np.ndarray, T_map_cam: np.ndarray, points: np.ndarray):
    """A chunk that sees all points before its cameras, in a frame that is off by a change."""
    image, point, pixels = [], [], []
    for i in images:
        points_cam = se3.transform(se3.inverse(T_map_cam[i]), points)
        found, inside = CAMERA.project(torch.from_numpy(points_cam))
        own = np.flatnonzero(inside.numpy())
        image += [i] * len(own)
        point += own.tolist()
        pixels.append(found.numpy()[own])
    return PlacedChunk(
        images=images,
        T_map_cam=T_change @ T_map_cam[images.start : images.stop],
        placed=np.ones(len(images), bool),
        points=se3.transform(T_change, points),
        image=np.array(image),
        point=np.array(point),
        pixels=np.concatenate(pixels),
    )


def test_chunks_that_lie_apart_are_joined_without_a_step():
    truth = turning_path(40)
    given = recorded(truth)
    T_map_base = truth[::2]
    T_base_cam = np.tile(se3.base_from_optical(), (20, 1, 1))
    T_map_cam = T_map_base @ T_base_cam
    points = np.random.default_rng(0).uniform([-10, -20, -2], [60, 20, 6], (400, 3))
    points = se3.transform(truth[0], points)
    off = se3.make(Rotation.from_euler("x", 0.3, degrees=True).as_matrix(), np.zeros(3))
    off = se3.make(np.eye(3), truth[20, :3, 3]) @ off @ se3.make(np.eye(3), -truth[20, :3, 3])
    off[2, 3] += 0.04
    chunks = [
        seen_chunk(range(12), np.eye(4), T_map_cam, points),
        seen_chunk(range(8, 20), off, T_map_cam, points),
    ]
    found = joining.ties(chunks, T_base_cam)
    assert found.placed.all() and len(found.first) == 19
    assert np.median(found.seam_deg) == pytest.approx(0.3, abs=0.01)
    joined = join_steps(
        [given],
        moments_of(truth, every=2),
        T_map_base,
        (found.first, found.second, found.T_first_second),
        (),
        CONFIG,
    )
    steps, true = (se3.inverse(T[:-1]) @ T[1:] for T in (joined, T_map_base))
    assert max(map(se3.distance_m, steps, true)) < 0.015
    assert max(map(se3.angle_deg, steps, true)) < 0.1
    tracks = joining.join_tracks(chunks, (), joined @ T_base_cam, [CAMERA] * 20)
    tracks, T = joint_adjustment.adjust(tracks, joined @ T_base_cam, T_map_cam, 0.1)
    steps, true = (se3.inverse(T[:-1]) @ T[1:] for T in (T, T_map_cam))
    assert max(map(se3.distance_m, steps, true)) < 1e-3
    model, error_px = joining.model_of(tracks, T, found.placed)
    seen = {p for chunk in chunks for p in chunk.point}
    assert len(model.point_ids) == pytest.approx(len(seen), rel=0.1)  # none twice
    assert error_px < 0.05


def meeting(first: PlacedChunk, second: PlacedChunk, i: int, j: int) -> Meeting:
    """Two images, of all points that both see; of two chunks that see the same points."""
    (a, b) = (np.flatnonzero(c.image == n) for c, n in ((first, i), (second, j)))
    _, in_a, in_b = np.intersect1d(first.point[a], second.point[b], return_indices=True)
    sides = (first.pixels[a[in_a]], i), (second.pixels[b[in_b]], j)
    keypoints = [np.column_stack([np.full(len(pixels), n), pixels]) for pixels, n in sides]
    return Meeting(Loop(i, j, np.eye(4)), np.stack(keypoints, axis=1))


def test_chunks_that_meet_again_share_points_and_close_the_gap():
    """The second one is of another pass, half a metre beside the first, and lies off."""
    T_map_base = np.tile(np.eye(4), (20, 1, 1))
    T_map_base[:, :3, 3] = [[2.0 * (i % 10), 0.5 * (i // 10), 1.5] for i in range(20)]
    T_map_cam = T_map_base @ se3.base_from_optical()
    points = np.random.default_rng(0).uniform([5, -8, 0], [40, 8, 6], (300, 3))
    off = se3.make(Rotation.from_euler("z", 0.2, degrees=True).as_matrix(), [0.0, 0.1, 0.02])
    first = seen_chunk(range(10), np.eye(4), T_map_cam, points)
    second = seen_chunk(range(10, 20), off, T_map_cam, points)
    met = [meeting(first, second, i, i + 10) for i in range(0, 10, 3)]
    wrong = met[0].keypoints.copy()
    wrong[:, 1] = wrong[::-1, 1]  # other points than those that they are said to match
    wrong = wrong[np.linalg.norm(wrong[:, 1] - met[0].keypoints[:, 1], axis=-1) > 25]
    T_start = np.concatenate([first.T_map_cam, second.T_map_cam])

    def gap_m(T: np.ndarray) -> float:
        steps, true = (se3.inverse(each[:10]) @ each[10:] for each in (T, T_map_cam))
        return max(map(se3.distance_m, steps, true))

    apart = joining.join_tracks((first, second), (), T_start, [CAMERA] * 20)
    tracks = joining.join_tracks(
        (first, second), [*met, replace(met[0], keypoints=wrong)], T_start, [CAMERA] * 20
    )
    assert len(tracks.points) < 0.65 * len(apart.points)
    from_true_m = np.linalg.norm(tracks.points[:, None] - points, axis=-1).min(axis=1)
    assert len(wrong) > 20 and from_true_m.max() < 0.2  # none is a mixture of two
    _, T = joint_adjustment.adjust(tracks, T_start, T_start, 0.1)
    assert gap_m(T_start) > 0.1 and gap_m(T) < 0.01
