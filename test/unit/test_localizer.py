"""The whole story on a generated street: a pose when there is one, the right reason when not."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pixloc_ros.alignment.pose_covariance import map_covariance
from pixloc_ros.alignment.problems import ViewSelector
from pixloc_ros.alignment.wrong_probability import SUFFIX
from pixloc_ros.config import FeaturesConfig, flatten, from_flat
from pixloc_ros.errors import ConfigError, DataError, MapError
from pixloc_ros.evaluation.shots import posed_frames
from pixloc_ros.features import weights
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal, perturb_base
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.build.builder import BuildOptions, build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.maps.map import Map
from pixloc_ros.session import Session
from pixloc_ros.types import Frame, PosePrior, Reason, Status

pytestmark = pytest.mark.slow
Case = tuple[Frame, np.ndarray]
DEFAULT_WEIGHTS = FeaturesConfig().weights


@pytest.fixture(scope="module")
def localizer(street: Path) -> Localizer:
    return Localizer(from_flat({"map": str(street / "map"), "threads": 1}))


@pytest.fixture(scope="module")
def case(street: Path) -> Case:
    """A frame in the middle of the drive and its true T_map_base."""
    folder = street / "data" / "drive"
    drive = read_posed_images(folder / "meta.json", folder / "images")
    return next(posed_frames(drive, [len(drive.files) // 2]))


def prior_of(case: Case, error: list[float], sigma_m: float, sigma_deg: float) -> PosePrior:
    frame, T_map_base = case
    off = np.array([*error[:3], *np.deg2rad(error[3:])])
    covariance = diagonal(sigma_m, sigma_deg)
    return PosePrior(perturb_base(T_map_base, off), covariance, "test", frame.stamp_ns)


NEAR = [0.3, -0.2, 0.05, 0.2, -0.3, 1.0]


def covered_by(street: Path, seed: int) -> Case:
    """The same frame with a third of its image covered."""
    folder = street / "data" / "drive"
    drive = read_posed_images(folder / "meta.json", folder / "images")
    return next(posed_frames(drive, [len(drive.files) // 2], "occlusion", seed=seed))


ONE_POSE = {"threads": 1, "hypotheses.max_initial_poses": 1, "hypotheses.max_alternatives": 0}
AHEAD, BEHIND, ASIDE = ([1.5, -0.7, 0, 0, 0, -8], [-1.5, 0.7, 0, 0, 0, 8], [1.5, -1, 0, 0, 0, 10])


def test_a_second_attempt_finds_what_the_coarse_level_has_misled(localizer, street) -> None:
    """Which of these frames it misleads depends on the machine's rounding; some it always does."""
    once = Localizer(from_flat({**ONE_POSE, "hypotheses.second_attempt_from": 0}), localizer.map)
    twice = Localizer(from_flat(ONE_POSE), localizer.map)
    gained = 0
    for seed, error in ((8, AHEAD), (8, BEHIND), (11, ASIDE), (11, None)):
        frame, truth = covered_by(street, seed)
        prior = prior_of((frame, truth), error, 1.0, 5.0) if error else None
        first, second = (each.localize(frame, prior) for each in (once, twice))
        assert second.ok or not first.ok
        if second.ok and not first.ok:
            assert second.alignment.hypotheses > first.alignment.hypotheses
            assert se3.distance_m(second.T_map_base, truth) < 0.05
            gained += 1
    assert gained


def test_after_a_warm_up_a_vague_prior_loads_nothing(street: Path) -> None:
    """In a program of its own: in this one, other tests have loaded everything."""
    program = f"""
import sys
from pathlib import Path
from pixloc_ros.config import from_flat
from pixloc_ros.evaluation.shots import posed_frames
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.types import PosePrior
from pixloc_ros.warm_up import warm_up

street = Path({str(street)!r})
drive = read_posed_images(street / "data/drive/meta.json", street / "data/drive/images")
frame, T_map_base = next(posed_frames(drive, [0]))
localizer = Localizer(from_flat({{"map": str(street / "map"), "threads": 1}}))
warm_up(localizer)
loaded = set(sys.modules)
assert localizer.localize(frame, PosePrior(T_map_base, diagonal(1.0, 3.0), "", 0)).ok
print(sorted(set(sys.modules) - loaded))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_frame_is_localized_with_a_covariance_that_fits(localizer, case) -> None:
    frame, T_map_base = case
    estimate = localizer.localize(frame, prior_of(case, NEAR, 0.4, 1.0))
    assert estimate.status is Status.OK, estimate.message
    assert se3.distance_m(estimate.T_map_base, T_map_base) < 0.03
    assert se3.angle_deg(estimate.T_map_base, T_map_base) < 0.15
    sigma = np.sqrt(np.diag(estimate.covariance))
    assert (np.linalg.eigvalsh(estimate.covariance) > 0).all()
    assert sigma[:3].max() < 0.1
    assert np.rad2deg(sigma[3:]).max() < 0.5


def test_refining_changes_the_pose_and_nothing_that_it_is_judged_by(localizer, case) -> None:
    frame, T_map_base = case
    once = Localizer(from_flat({"threads": 1, "view.refinement_observations": 0}), localizer.map)
    prior = prior_of(case, NEAR, 0.4, 1.0)
    found, refined = once.localize(frame, prior), localizer.localize(frame, prior)
    assert found.ok
    assert 0 < se3.distance_m(found.T_map_base, refined.T_map_base) < 0.01
    assert se3.distance_m(refined.T_map_base, T_map_base) < 0.03
    assert not np.allclose(refined.covariance, found.covariance, rtol=1e-3)
    assert refined.alignment.cost == found.alignment.cost
    np.testing.assert_equal(asdict(refined.evidence), asdict(found.evidence))  # nan is nan
    assert refined.wrong_probability == found.wrong_probability
    np.testing.assert_array_equal(refined.candidate_T_map_base, refined.T_map_base)
    T_refined = refined.T_map_base @ frame.T_base_cam
    # Both in float64: one is the other times a mounting and its inverse.
    np.testing.assert_allclose(refined.alignment.T_map_cam, T_refined, atol=1e-9)


def test_the_covariance_of_a_refined_pose_covers_the_uncertain_depths_of_the_map(
    street: Path, case
) -> None:
    """The points of a generated street are exact; what else is in the covariance is negligible."""
    uncertain = Map.load(street / "map")
    for index in range(len(uncertain.tiles)):
        uncertain.tiles.tile(index).point_depth_sigma[:] = 0.01
    only = {"covariance.scale": 1e-6, "covariance.floor_m": 0.0, "covariance.floor_deg": 0.0}
    config = from_flat({"threads": 1, "covariance.from_map": False, **only})
    frame, _ = case
    estimate = Localizer(config, uncertain).localize(frame, prior_of(case, NEAR, 0.4, 1.0))
    assert estimate.ok, estimate.message
    of_map = map_covariance(estimate.alignment, estimate.T_map_base, frame.T_base_cam)
    assert (np.sqrt(np.diag(of_map)[:3]) > 1e-4).all()
    np.testing.assert_allclose(np.diag(estimate.covariance), np.diag(of_map), rtol=0.05)


def test_the_result_hardly_depends_on_the_prior(localizer, case) -> None:
    frame, _ = case
    one = localizer.localize(frame, prior_of(case, NEAR, 0.4, 1.0))
    other = localizer.localize(frame, prior_of(case, [-v for v in NEAR], 0.4, 1.0))
    assert se3.distance_m(one.T_map_base, other.T_map_base) < 0.005


def test_a_vague_prior_is_searched_along_the_map(localizer, case) -> None:
    frame, T_map_base = case
    prior = prior_of(case, [-5.0, 0.5, 0.0, 0, 0, 4.0], 3.0, 4.0)
    estimate = localizer.localize(frame, prior)
    assert estimate.ok, estimate.message
    assert se3.distance_m(estimate.T_map_base, T_map_base) < 0.03
    assert estimate.alignment.hypotheses > 8


@pytest.fixture(scope="module")
def beside(case) -> PosePrior:
    """A prior with 228 points in view, and 697 in a provisional view."""
    return prior_of(case, [0.0, 5.0, 0.0, 0, 0, 0], 3.0, 3.0)


FEW = {"threads": 1, "view.min_points": 300}


def test_a_prior_with_too_few_points_is_aligned_with_a_provisional_view(
    localizer, case, beside
) -> None:
    frame, T_map_base = case
    few = Localizer(from_flat(FEW), localizer.map)
    assert len(ViewSelector(few.map, few.config).view(frame, beside.T_map_base)) < 300
    estimate = few.localize(frame, beside)
    assert estimate.ok, estimate.message
    assert se3.distance_m(estimate.T_map_base, T_map_base) < 0.03


def test_a_pose_that_began_with_a_provisional_view_has_stricter_limits(
    localizer, case, beside
) -> None:
    strict = {"threads": 1, "acceptance.max_provisional_wrong_probability": 1e-9}
    assert Localizer(from_flat(strict), localizer.map).localize(case[0], beside).ok
    refused = Localizer(from_flat(strict | FEW), localizer.map).localize(case[0], beside)
    assert refused.status is Status.REJECTED
    assert 1e-9 < refused.wrong_probability < 0.05


def test_a_pose_found_where_the_map_has_too_few_points_is_refused(localizer, case, beside) -> None:
    config = from_flat({**FEW, "view.min_points": 650})  # 579 are in view of the true pose
    estimate = Localizer(config, localizer.map).localize(case[0], beside)
    assert estimate.reason is Reason.NON_FINITE


def test_a_frame_with_no_prior_is_searched_on_the_whole_map(localizer, case) -> None:
    frame, T_map_base = case
    estimate = localizer.localize(frame)
    assert estimate.ok, estimate.message
    assert se3.distance_m(estimate.T_map_base, T_map_base) < 0.03
    assert estimate.prior.source == "retrieval"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ([500.0, 0, 0, 0, 0, 0], Reason.OUT_OF_MAP),
        ([0, 0, 0, 0, 0, 180.0], Reason.TOO_FEW_POINTS),
    ],
)
def test_a_prior_without_map_around_it(localizer, case, error, reason) -> None:
    estimate = localizer.localize(case[0], prior_of(case, error, 0.4, 1.0))
    assert (estimate.status, estimate.reason) == (Status.FAILED, reason), estimate.message


def test_a_prior_surer_than_it_may_be_is_contradicted(localizer, case) -> None:
    estimate = localizer.localize(case[0], prior_of(case, NEAR, 0.01, 0.02))
    assert (estimate.status, estimate.reason) == (Status.REJECTED, Reason.FAR_FROM_PRIOR)
    assert estimate.T_map_base is None
    assert estimate.candidate_T_map_base is not None


CHANGES = {  # of live parameters: a value, and the reason that it gives a frame that was OK
    "acceptance.max_cost": (0.01, Reason.HIGH_COST),
    "acceptance.max_condition": (1.5, Reason.ILL_CONDITIONED),
    "acceptance.max_sigma_from_prior": (0.01, Reason.FAR_FROM_PRIOR),
}


def test_a_change_counts_from_the_next_frame_on_and_can_be_taken_back(localizer, case) -> None:
    frame, _ = case
    prior = prior_of(case, NEAR, 1.0, 2.0)
    before = dict(flatten(localizer.config))
    none_given_up = before | {"hypotheses.min_agreement_share": 0.0}
    try:
        localizer.holder.replace(from_flat(none_given_up))
        first = localizer.localize(frame, prior)
        for name, (value, reason) in CHANGES.items():
            localizer.holder.replace(from_flat(none_given_up | {name: value}))
            assert localizer.localize(frame, prior).reason is reason, name
        localizer.holder.replace(from_flat(none_given_up))
        again = localizer.localize(frame, prior)
    finally:
        localizer.holder.replace(from_flat(before))
    assert first.reason is again.reason is Reason.OK
    # Compared with the same alternative poses: the protection against repeating streets is back.
    assert again.alignment.runner_up_cost == first.alignment.runner_up_cost < np.inf


@pytest.mark.parametrize(
    ("kind", "sigma_m"), [("black", 0.4), ("noise", 0.4), ("upside down", 0.4), ("noise", 6.0)]
)
def test_images_of_something_else_never_give_a_pose(localizer, case, kind, sigma_m) -> None:
    frame, _ = case
    images = {
        "black": np.zeros_like(frame.image_rgb),
        "noise": np.random.default_rng(0).integers(0, 255, frame.image_rgb.shape, np.uint8),
        "upside down": np.ascontiguousarray(frame.image_rgb[::-1, ::-1]),
    }
    prior = prior_of(case, NEAR, sigma_m, 5.0 * sigma_m)
    estimate = localizer.localize(replace(frame, image_rgb=images[kind]), prior)
    assert estimate.status is Status.REJECTED
    assert estimate.T_map_base is None


def test_an_image_of_another_size_than_calibrated(localizer, case) -> None:
    frame, _ = case
    smaller = replace(frame, image_rgb=np.ascontiguousarray(frame.image_rgb[:100]))
    estimate = localizer.localize(smaller, prior_of(case, NEAR, 0.4, 1.0))
    assert estimate.reason is Reason.BAD_IMAGE
    assert "320x100" in estimate.message
    assert "320x192" in estimate.message


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.astype(np.float32) / 255,
        lambda image: image[..., 0],
        lambda image: image[..., :1],
        lambda image: np.dstack([image, image[..., :1]]),
        lambda image: image.astype(np.uint16) * 256,
        lambda image: image.tolist(),
        lambda image: None,
    ],
    ids=["float", "grey", "one channel", "alpha", "uint16", "list", "none"],
)
def test_an_image_that_is_not_rgb_of_bytes(localizer, case, change) -> None:
    frame, _ = case
    given = replace(frame, image_rgb=change(frame.image_rgb))
    estimate = localizer.localize(given, prior_of(case, NEAR, 0.4, 1.0))
    assert estimate.reason is Reason.BAD_IMAGE
    assert "expected RGB as uint8 (H, W, 3)" in estimate.message


@pytest.mark.parametrize(
    "T",
    [
        np.eye(4)[:3],
        np.full((4, 4), np.nan),
        np.diag([2.0, 2.0, 2.0, 1.0]),
        np.diag([-1.0, 1, 1, 1]),
    ],
    ids=["3x4", "nan", "scaled", "mirrored"],
)
def test_matrices_that_are_no_poses(localizer, case, T) -> None:
    frame, _ = case
    prior = prior_of(case, NEAR, 0.4, 1.0)
    with pytest.raises(DataError, match="T_map_base of the prior is not a pose"):
        localizer.localize(frame, replace(prior, T_map_base=T))
    with pytest.raises(DataError, match="T_base_cam of the frame is not a pose"):
        localizer.localize(replace(frame, T_base_cam=T), prior)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.eye(3), r"\(3, 3\), expected \(6, 6\)"),
        (np.ones(6), r"\(6,\), expected \(6, 6\)"),
        (-np.eye(6), "variances are"),
        (np.diag([np.inf] * 6), "variances are"),
        (np.eye(6) + 0.9 * np.eye(6, k=1), "not symmetric"),
    ],
)
def test_a_prior_without_a_covariance(localizer, case, covariance, message) -> None:
    prior = replace(prior_of(case, NEAR, 0.4, 1.0), covariance=covariance)
    with pytest.raises(DataError, match=f"covariance of the prior.*{message}"):
        localizer.localize(case[0], prior)


def test_a_matrix_is_not_a_prior(localizer, case) -> None:
    with pytest.raises(DataError, match="a prior is a ndarray, expected PosePrior"):
        localizer.localize(case[0], case[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera": np.eye(3)}, "camera of the frame is a ndarray"),
        ({"stamp_ns": 1.7e9}, "expected whole nanoseconds"),
        ({"T_base_cam": "front"}, "T_base_cam of the frame is not a pose"),
    ],
)
def test_a_frame_without_what_it_needs(localizer, case, change, message) -> None:
    with pytest.raises(DataError, match=message):
        localizer.localize(replace(case[0], **change), prior_of(case, NEAR, 0.4, 1.0))


def test_arguments_of_other_types(localizer, case) -> None:
    frame, prior = case[0], prior_of(case, NEAR, 0.4, 1.0)
    with pytest.raises(DataError, match="a frame is a ndarray, expected Frame"):
        localizer.localize(frame.image_rgb, prior)
    with pytest.raises(DataError, match="a prior is a Frame, expected PosePrior"):
        localizer.localize(frame, frame)
    with pytest.raises(DataError, match="a frame is a str, expected Frame"):
        localizer.localize(frame, prior, ["left"])
    with pytest.raises(MapError, match="there is no keyframe 100000: the map has 0 to"):
        localizer.map.points_seen_by(100000)
    with pytest.raises(DataError, match="a Frame is no event"):
        Session(localizer).push(frame)


def test_queries_are_reduced_as_the_images_of_the_map_were(street: Path, case, tmp_path) -> None:
    mapping = street / "data" / "mapping"
    at_200_px = FeatureExtractor(max_side_px=200)
    source = ColmapSource(model_dir=mapping / "colmap", images=mapping / "images")
    build_map(source, tmp_path / "map", extractor=at_200_px)
    settings = {"map": str(tmp_path / "map"), "threads": 1}
    frame, T_map_base = case
    as_the_map, at_full_size = (
        Localizer(from_flat(settings | more)).localize(frame, prior_of(case, NEAR, 0.4, 1.0))
        for more in ({}, {"features.max_side_px": 320})
    )
    assert as_the_map.ok, as_the_map.message
    assert se3.distance_m(as_the_map.T_map_base, T_map_base) < 0.05
    assert as_the_map.alignment.cost < at_full_size.alignment.cost - 0.1


@pytest.mark.parametrize("side_px", [1, 63, -1])
def test_a_query_is_not_reduced_to_nothing(side_px: int) -> None:
    with pytest.raises(ConfigError, match=rf"features.max_side_px' = {side_px}: "):
        from_flat({"features.max_side_px": side_px})


def test_a_map_of_other_weights_is_refused(street: Path) -> None:
    loaded = Map.load(street / "map")
    other = loaded.metadata.model_copy(update={"weights_sha256": "0" * 64, "model_id": "mine"})
    with pytest.raises(MapError, match="built with weights 'mine'"):
        Localizer(from_flat({}), replace(loaded, metadata=other))


@pytest.mark.parametrize("name", [n for n in weights.available() if n != DEFAULT_WEIGHTS])
def test_other_packaged_weights_localize_on_a_map_of_theirs(
    name: str, street: Path, case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They say so if the probability of being wrong was fitted to other weights."""
    mapping = street / "data" / "mapping"
    source = ColmapSource(model_dir=mapping / "colmap", images=mapping / "images")
    options = BuildOptions(keyframe_step=2)
    build_map(source, tmp_path / "map", options, FeatureExtractor(name))
    values = {"map": str(tmp_path / "map"), "threads": 1, "features.weights": name}
    found = Localizer(from_flat(values)).localize(case[0], prior_of(case, NEAR, 0.4, 1.0))
    own = (weights.PACKAGED / f"{name}{SUFFIX}").is_file()
    assert ("no calibrated verification" in caplog.text) is not own
    assert found.candidate_T_map_base is not None
    assert se3.distance_m(found.candidate_T_map_base, case[1]) < 0.05
    assert se3.angle_deg(found.candidate_T_map_base, case[1]) < 0.3


def test_a_map_in_utm_coordinates_localizes_to_the_same_millimetre(street: Path, case) -> None:
    """The map and the prior moved by 5,400 km: float32 alone would be off by half a metre."""
    frame, _ = case
    loaded, shift = Map.load(street / "map"), np.array([4.5e5, 5.4e6, 120.0])
    T_map_cam = loaded.keyframe_T_map_cam.copy()
    T_map_cam[:, :3, 3] += shift
    tile = loaded.metadata.tiles[0]
    moved_tile = tile.model_copy(update={"origin": tuple(np.array(tile.origin) + shift)})
    metadata = loaded.metadata.model_copy(update={"tiles": (moved_tile,)})
    far = replace(loaded, keyframe_T_map_cam=T_map_cam, metadata=metadata)
    prior = prior_of(case, NEAR, 0.4, 1.0)
    T_far = prior.T_map_base.copy()
    T_far[:3, 3] += shift
    config = from_flat({"threads": 1})
    near = Localizer(config, loaded).localize(frame, prior)
    moved = Localizer(config, far).localize(frame, replace(prior, T_map_base=T_far))
    assert near.ok
    assert moved.ok
    np.testing.assert_allclose(moved.T_map_base[:3, 3] - shift, near.T_map_base[:3, 3], atol=1e-3)
