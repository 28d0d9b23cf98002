"""Lenses bend the picture, and the pose stays: map and query may look through different ones."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers.street import small_street
from pixloc_ros.config import from_flat
from pixloc_ros.demo.street.dataset import DatasetOptions, write_dataset
from pixloc_ros.demo.street.lens import LENSES, StreetLens
from pixloc_ros.demo.street.photograph import moving, photograph
from pixloc_ros.demo.street.sessions import SESSIONS, StreetSession
from pixloc_ros.demo.street.street import Street
from pixloc_ros.evaluation.shots import posed_frames
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.covariance import diagonal, perturb_base
from pixloc_ros.geometry.rolling_shutter import twist_of
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.build.builder import BuildOptions, build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.replay import camera_parameters, messages
from pixloc_ros.replay.camera_parameters import LocalizedFrame, estimate_parameters
from pixloc_ros.sensors import decoding
from pixloc_ros.types import Frame, PosePrior

BENT = [name for name in LENSES if name != "pinhole"]
OFF = np.array([0.5, -0.3, 0.05, *np.deg2rad([0.3, -0.3, 1.5])])


def seen_through(lens: StreetLens, world: Street, drive: Path) -> tuple[Frame, np.ndarray]:
    """What a camera with this lens sees in the middle of a drive, and the true T_map_base."""
    posed = read_posed_images(drive / "meta.json", drive / "images")
    frame, T_map_base = next(posed_frames(posed, [len(posed.files) // 3]))
    T_map_cam = T_map_base @ frame.T_base_cam
    # In the light of the mapping drive: geometry is what is asked for.
    view = photograph(
        world, SESSIONS["mapping"], lens, lambda _: T_map_cam, np.random.default_rng(3)
    )
    return replace(frame, image_rgb=view.image_rgb, camera=lens.camera), T_map_base


def errors(localizer: Localizer, frame: Frame, T_map_base: np.ndarray) -> tuple[float, float]:
    """Metres and degrees, from a prior half a metre off; the pose must be accepted."""
    prior = PosePrior(perturb_base(T_map_base, OFF), diagonal(0.5, 1.5), "test", frame.stamp_ns)
    estimate = localizer.localize(frame, prior)
    assert estimate.ok, estimate.message
    assert estimate.T_map_base is not None
    return (
        se3.distance_m(estimate.T_map_base, T_map_base),
        se3.angle_deg(estimate.T_map_base, T_map_base),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", BENT)
def test_a_query_through_a_lens_on_a_map_without(street: Path, name: str) -> None:
    lens = replace(LENSES[name], width=320, height=192)
    frame, T_map_base = seen_through(lens, small_street("mapping"), street / "data" / "drive")
    localizer = Localizer(from_flat({"map": str(street / "map"), "threads": 1}))
    metres, degrees = errors(localizer, frame, T_map_base)
    assert metres < 0.04
    assert degrees < 0.15
    # The picture does not fit a camera that is taken for one without distortion.
    K, size = lens.K, (lens.width, lens.height)
    straight = Camera.create("PINHOLE", size, K[:2], K[2:])
    prior = PosePrior(T_map_base, diagonal(0.5, 1.5), "test", frame.stamp_ns)
    fooled = localizer.localize(replace(frame, camera=straight), prior)
    assert not fooled.ok or se3.distance_m(fooled.T_map_base, T_map_base) > 2 * metres


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pinhole", "equidistant"])
def test_what_a_rolling_shutter_costs_is_gone(
    street: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15 m/s, 0.5 rad/s to the left, 30 ms: where nothing tells of it, the pose is ahead.

    Measured: 0.18 to 0.29 m without, 0.006 to 0.011 m with it. The images themselves tell the
    time, and the focal length.
    """
    lens = replace(LENSES[name], width=320, height=192, readout_s=0.03, stamp_row="first")
    posed = read_posed_images(street / "data/drive/meta.json", street / "data/drive/images")
    localizer = Localizer(
        from_flat({"map": str(street / "map"), "threads": 1, "camera.readout_s": lens.readout_s})
    )
    turn = se3.make(cv2.Rodrigues(np.array([0.0, 0.0, 0.5 * lens.readout_s]))[0], [0.45, 0.0, 0.0])
    found: dict[bool, list[float]] = {True: [], False: []}
    wrong: list[LocalizedFrame] = []
    for frame, T_map_base in posed_frames(posed, [3, 9]):
        T_first_last = se3.inverse(frame.T_base_cam) @ turn @ frame.T_base_cam
        T_map_cam = T_map_base @ frame.T_base_cam
        motion = moving(T_map_cam, T_map_cam, T_map_cam @ T_first_last, lens.readout_s)
        rng = np.random.default_rng(3)
        view = photograph(small_street("mapping"), SESSIONS["mapping"], lens, motion, rng)
        frame = replace(frame, image_rgb=view.image_rgb, camera=lens.camera)
        prior = PosePrior(T_map_base, diagonal(0.5, 1.5), "test", frame.stamp_ns)
        for known in found:
            camera = lens.camera.rolling(T_first_last, 0.0) if known else lens.camera
            estimate = localizer.localize(replace(frame, camera=camera), prior)
            assert estimate.candidate_T_map_base is not None
            found[known].append(se3.distance_m(estimate.candidate_T_map_base, T_map_base))
            assert ("rolling shutter not corrected" in estimate.message) is not known
            assert estimate.ok or not known, estimate.message
        twist_cam = twist_of(T_first_last) / lens.readout_s
        unfocused = replace(frame, camera=replace(lens.camera, focal=1.005 * lens.camera.focal))
        wrong.append(LocalizedFrame(unfocused, T_map_base, twist_cam))
    assert max(found[True]) < 0.04
    assert min(found[False]) > 0.1
    monkeypatch.setattr(camera_parameters, "MIN_FRAMES", 2)
    config = from_flat({"threads": 1, "camera.readout_s": 0.02})
    both = np.array([True, True])
    told = estimate_parameters(Localizer(config, localizer.map), wrong, both)
    assert told.off.all()
    assert told.focal_factor == pytest.approx(1 / 1.005, abs=0.0015)
    assert told.readout_s == pytest.approx(lens.readout_s, abs=0.002)
    assert told.held_cost_after < told.held_cost_before
    still = [replace(each, twist_cam=np.zeros(6)) for each in wrong]
    silent = estimate_parameters(Localizer(config, localizer.map), still, ~both | [False, True])
    assert not silent.determined.any() and silent.readout_s == 0.02


class OneDay(DatasetOptions):
    """A street that is the same in all sessions, generated once."""

    def generate(self, session: StreetSession) -> Street:
        return street_of_one_day(self.length_m)


@cache
def street_of_one_day(length_m: float) -> Street:
    return DatasetOptions(length_m=length_m).generate(SESSIONS["mapping"])


@pytest.mark.slow
def test_a_map_through_a_fisheye_and_a_query_without(tmp_path: Path) -> None:
    options = OneDay(
        length_m=4.0,
        width=320,
        height=192,
        rate_hz=5.0,
        workers=1,
        mapping_lens="equidistant",
        drive_lens="pinhole",
    )
    write_dataset(tmp_path / "street", options)
    mapping, drive = (tmp_path / "street" / name for name in ("mapping", "drive"))
    posed = read_posed_images(mapping / "meta.json", mapping / "images")
    assert posed.cameras[0].model == "OPENCV_FISHEYE"
    source = ColmapSource(model_dir=mapping / "colmap", images=mapping / "images")
    build_map(source, tmp_path / "map", BuildOptions(T_base_cam=posed.T_base_cam))
    localizer = Localizer(from_flat({"map": str(tmp_path / "map"), "threads": 1}))
    lens = replace(LENSES["pinhole"], width=320, height=192)
    world = options.generate(SESSIONS["mapping"])
    frame, T_map_base = seen_through(lens, world, drive)
    metres, degrees = errors(localizer, frame, T_map_base)
    # A pixel of the fisheye is 8 cm at 13 m; the rounding of another CPU moves the pose by 5 mm.
    assert metres < 0.08
    assert degrees < 0.15


@pytest.mark.parametrize("name", LENSES)
def test_a_bag_tells_the_lens_as_it_is(name: str) -> None:
    camera = LENSES[name].camera
    told = decoding.camera(messages.camera_info(7, "camera", camera))
    assert told.model == camera.model
    xy = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    points = torch.from_numpy(np.column_stack([xy, np.ones(50)]))
    # Both in float64, with the same numbers: messages carry them whole.
    for here, there in zip(camera.project(points), told.project(points), strict=True):
        torch.testing.assert_close(there, here, rtol=0, atol=1e-9)
