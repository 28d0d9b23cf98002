"""Poses of other systems as priors: each file in its format, to poses on the map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from helpers.benchmark_trees import words, write_lines
from pixloc_ros.cli.main import build
from pixloc_ros.common import image_files
from pixloc_ros.config import Config, PriorsConfig, RetrievalConfig
from pixloc_ros.errors import ConfigError, DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.covariance import base_error, mahalanobis2
from pixloc_ros.geometry.trajectory import read_poses
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.colmap import read_model
from pixloc_ros.maps.map import Map
from pixloc_ros.priors import file_priors
from pixloc_ros.priors.feature_matches import FeatureMatches
from pixloc_ros.priors.global_prior import GlobalPrior
from pixloc_ros.types import Frame

h5py = pytest.importorskip("h5py")

CHI2_6_999 = 22.5  # six degrees of freedom, 99.9 %


class Photo(NamedTuple):
    """A frame of the drive, the camera its base, and its true pose."""

    frame: Frame
    T_map_cam: np.ndarray


@pytest.fixture(scope="module")
def photos(street: Path) -> list[Photo]:
    folder = street / "data" / "drive"
    found = []
    for entry in json.loads((folder / "meta.json").read_text())["images"][2:10:3]:
        image = image_files.read(folder / "images" / entry["file"])
        fx, fy, cx, cy = entry["K"]
        camera = Camera.create("PINHOLE", [entry["width"], entry["height"]], [fx, fy], [cx, cy])
        name = f"seq-02/{entry['file']}"
        T = np.vstack([np.reshape(entry["T_world_cam"], (3, 4)), [0, 0, 0, 1]])
        found.append(Photo(Frame(image, camera, len(found), np.eye(4), name), T))
    return found


@pytest.fixture(scope="module")
def street_map(street: Path) -> Map:
    return Map.load(street / "map")


@pytest.fixture(scope="module")
def localizer(street: Path, street_map: Map) -> Localizer:
    return Localizer(Config(map=str(street / "map"), threads=1), street_map)


def off_by(T_map_cam: np.ndarray, rng: np.random.Generator, m: float, deg: float) -> np.ndarray:
    turn = Rotation.from_rotvec(np.deg2rad(deg) * rng.standard_normal(3)).as_matrix()
    return se3.make(turn @ T_map_cam[:3, :3], T_map_cam[:3, 3] + m * rng.standard_normal(3))


def line(name: str, T_map_cam: np.ndarray, *more: object) -> str:
    T = se3.inverse(T_map_cam)
    return " ".join(map(str, [name, *se3.qvec_wxyz(T), *T[:3, 3], *more]))


def names_of(photos: list[Photo]) -> list[str]:
    return [photo.frame.name for photo in photos]


def check(prior: GlobalPrior, photos: list[Photo], localizer: Localizer) -> None:
    """Every pose is proposed, its covariance covers its error, and alignment finds the truth."""
    for frame, T_map_cam in photos:
        proposed = prior.propose(frame)
        assert len(proposed) == 1
        error = base_error(proposed[0].T_map_base, T_map_cam)
        assert mahalanobis2(error, proposed[0].covariance) < CHI2_6_999
        estimate = localizer.localize(frame, proposed)
        assert estimate.ok, estimate.message
        assert se3.distance_m(estimate.T_map_base, T_map_cam) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("judgement", ["0.81 2.25 1834", "525.0 1834.0"], ids=["ace", "ace0"])
def test_poses_of_scene_coordinates_begin_the_alignment(
    judgement, photos, street_map, localizer, tmp_path
):
    """ACE names images without their folders, ACE Zero with them."""
    rng = np.random.default_rng(3)
    short = len(judgement.split()) == 3
    lines = [
        line(Path(f.name).name if short else f.name, off_by(T, rng, 0.2, 0.5), judgement)
        for f, T in photos
    ]
    file = tmp_path / "poses_street_.txt"
    file.write_text("\n".join(lines) + "\n")
    prior = file_priors.read_ace_priors(street_map, file, names_of(photos), (0.3, 1.0))
    check(prior, photos, localizer)


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["sigmas", "covariance"])
def test_poses_in_the_plane_take_height_and_tilt_from_the_map(
    full, photos, street_map, localizer, tmp_path
):
    rng = np.random.default_rng(4)
    sigmas = np.array([0.4, 0.4, 1.0])
    lines = []
    for frame, T in photos:
        yaw_deg = np.rad2deg(np.arctan2(T[1, 2], T[0, 2]))  # of the optical axis
        seen = np.array([*T[:2, 3], yaw_deg]) + sigmas * rng.standard_normal(3)
        words = np.diag(sigmas**2)[np.triu_indices(3)] if full else sigmas
        lines.append(" ".join(map(str, [frame.name, *seen, *words])))
    file = tmp_path / "planar.txt"
    file.write_text("\n".join(lines) + "\n")
    prior = file_priors.read_planar_priors(street_map, file, names_of(photos), PriorsConfig())
    check(prior, photos, localizer)


def test_the_covariance_of_a_pose_in_the_plane_keeps_its_correlation(photos, street_map, tmp_path):
    name = photos[0].frame.name
    file = tmp_path / "planar.txt"
    file.write_text(f"{name} 1 2 30 0.25 0.1 0.2 0.36 -0.3 4.0\n")
    prior = file_priors.read_planar_priors(street_map, file, [name], PriorsConfig())
    covariance = prior.propose(photos[0].frame)[0].covariance
    radian = np.deg2rad(1.0)
    expected = np.array([[0.25, 0.1, 0.2 * radian], [0.1, 0.36, -0.3 * radian]])
    np.testing.assert_allclose(covariance[:2][:, [0, 1, 5]], expected)
    assert covariance[5, 5] == pytest.approx(4.0 * radian**2)
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def write_matches(
    folder: Path, photos: list[Photo], model_dir: Path, separator: str
) -> FeatureMatches:
    """Matches as of a detector-free matcher: noisy keypoints, and a third of them wrong."""
    model, rng = read_model(model_dir), np.random.default_rng(5)
    pairs: dict[str, list[str]] = {}
    with (
        h5py.File(folder / "keypoints.h5", "w") as keypoints,
        h5py.File(folder / "matches.h5", "w") as matches,
    ):
        for frame, T_map_cam in photos:
            points_cam = se3.transform(se3.inverse(T_map_cam), model.points_world)
            pixels, seen = frame.camera.project(torch.from_numpy(points_cam))
            seen = np.flatnonzero(seen.numpy())
            noisy = pixels.numpy()[seen] + rng.normal(0, 1.0, (len(seen), 2))
            wrong = rng.random(len(seen)) < 0.33
            noisy[wrong] = rng.uniform(0, 190, (wrong.sum(), 2))
            keypoints.create_group(frame.name)["keypoints"] = noisy
            number = {model.point_ids[point]: i for i, point in enumerate(seen)}
            for image in model.images[:12:3]:
                of_reference = np.array([number.get(i, -1) for i in image.point_ids])
                names = [name.replace("/", "-") for name in (image.name, frame.name)]
                matches.create_group(separator.join(names))["matches0"] = of_reference
                pairs.setdefault(frame.name, []).append(image.name)
    files = folder / "keypoints.h5", folder / "matches.h5"
    return FeatureMatches(model, np.eye(4), *files, pairs)


@pytest.mark.slow
def test_matches_of_other_systems_give_priors(photos, street, localizer, tmp_path):
    model_dir = street / "data" / "mapping" / "colmap"
    check(write_matches(tmp_path, photos, model_dir, "_"), photos, localizer)


@pytest.mark.slow
def test_matches_of_other_systems_begin_the_alignment_of_files(photos, street, tmp_path):
    """`pixloc localize --matches`, with the names of pairs that newer files have."""
    model_dir = street / "data" / "mapping" / "colmap"
    given = write_matches(tmp_path, photos, model_dir, "/")
    pairs = [f"{query} {name}" for query, names in given.pairs.items() for name in names]
    write_lines(tmp_path / "pairs.txt", pairs)
    camera = photos[0].frame.camera
    size, middle = f"{camera.width} {camera.height}", (camera.center + 0.5).tolist()
    intrinsics = words("PINHOLE", size, camera.focal.tolist(), middle)
    lines = [f"{frame.name} {intrinsics}" for frame, _ in photos]
    write_lines(tmp_path / "queries.txt", lines)
    (tmp_path / "seq-02").symlink_to(street / "data" / "drive" / "images")
    options = {"map": street / "map", "images": tmp_path, "queries": tmp_path / "queries.txt"}
    options |= {"output": tmp_path / "poses.txt", "set": "threads=1"}
    options |= {"matches": given.matches, "keypoints": given.keypoints}
    options |= {"pairs": tmp_path / "pairs.txt"}
    refused = localize(options)
    assert isinstance(refused, ConfigError) and "--pairs and --colmap" in str(refused)
    assert localize(options | {"colmap": model_dir}) is None
    found = read_poses(tmp_path / "poses.txt")
    for frame, T_map_cam in photos:
        assert se3.distance_m(se3.inverse(found[frame.name]), T_map_cam) < 0.1


def localize(options: dict[str, object]) -> BaseException | None:
    """Run `pixloc localize`, and give what ended it."""
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return CliRunner().invoke(build(), ["localize", *given]).exception


def test_matches_without_the_query_are_one_line(photos, street, tmp_path):
    prior = write_matches(tmp_path, photos[:1], street / "data" / "mapping" / "colmap", "/")
    with pytest.raises(DataError, match=r"keypoints\.h5 has no keypoints of 'seq-02/"):
        prior.propose(photos[1].frame)


@pytest.mark.parametrize(
    ("reader", "text", "complaint"),
    [
        ("ace", "a.jpg 1 0 0 0 1 2 3 0.1", "1: expected `name qw .*inliers` or"),
        ("ace", "a.jpg 1 0 0 0 1 2 nan 0.1 0.2 3", "1: a pose that is not finite"),
        ("ace", "a.jpg 1 0 0 0 1 2 3 0.1 0.2 3", "no query has a prior.*a.jpg"),
        ("planar", "a.jpg 1 2", "1: expected `name x y yaw_deg"),
        ("planar", "a.jpg 1 2 30 0 1 1", "1: the uncertainty .* is no covariance"),
        ("planar", "a.jpg 1 2 30 1 5 0 1 0 1", "1: the uncertainty .* is no covariance"),
    ],
)
def test_wrong_lines_of_poses_are_named(reader, text, complaint, photos, street_map, tmp_path):
    file = tmp_path / "poses.txt"
    file.write_text(f"{text}\n")
    read = {"ace": file_priors.read_ace_priors, "planar": file_priors.read_planar_priors}[reader]
    sigmas = {"ace": (1.0, 1.0), "planar": PriorsConfig()}[reader]
    with pytest.raises(DataError, match=complaint) as error:
        read(street_map, file, names_of(photos), sigmas)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_localizer_asks_its_global_prior_and_else_searches_the_map(
    photos, street, street_map, tmp_path
):
    """Of three photos the file knows two, one of them at a place where the street is not."""
    far = se3.make(np.eye(3), [500.0, 0, 0]) @ photos[1].T_map_cam
    file = tmp_path / "poses.txt"
    known = [(photos[0], photos[0].T_map_cam), (photos[1], far)]
    file.write_text("\n".join(line(p.frame.name, T) for p, T in known) + "\n")
    prior = file_priors.read_pose_priors(street_map, file, names_of(photos), (0.5, 1.0))
    localizer = Localizer(Config(map=str(street / "map"), threads=1), street_map, prior)
    first, second, third = (localizer.localize(photo.frame) for photo in photos)
    assert first.ok and first.prior.source == "file"
    assert not second.ok
    assert third.prior.source == "retrieval"


def test_a_frame_that_no_global_prior_knows_is_told_without_a_search(photos, street, street_map):
    config = Config(map=str(street / "map"), threads=1, retrieval=RetrievalConfig(enabled=False))
    localizer = Localizer(config, street_map, file_priors.NamedPoses({}))
    estimate = localizer.localize(photos[0].frame)
    assert estimate.reason == "no_prior"
