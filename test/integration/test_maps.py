"""Maps: built from a small exact model of textured planes, stored, verified and viewed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from helpers.wall import (
    CAMERA,
    CENTER,
    HEIGHT,
    N_KEYFRAMES,
    SPACING_M,
    WALL_M,
    WIDTH,
    write_dataset,
)
from pixloc_ros.cli.map import app
from pixloc_ros.config import ViewConfig
from pixloc_ros.errors import ConfigError, MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.maps import schema
from pixloc_ros.maps.build.builder import BuildOptions, build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.maps.datum import Datum
from pixloc_ros.maps.files.colmap import read_model
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.tiles import Tile, unit_rows
from pixloc_ros.maps.view import select_view


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A camera moves along x before a textured wall at z = WALL_M; optical axes."""
    folder = tmp_path_factory.mktemp("wall")
    write_dataset(folder, np.zeros(3))
    return folder


def build(
    dataset: Path, output: Path, extractor: FeatureExtractor, images: Path | None = None, **options
) -> Map:
    source = ColmapSource(model_dir=dataset / "colmap", images=images or dataset / "images")
    return build_map(source, output, BuildOptions(**options), extractor)


@pytest.fixture(scope="module")
def map_dir(dataset, extractor, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("maps") / "observations"
    build(dataset, folder, extractor, datum=Datum.parse("49.01,8.43,110,30"))
    return folder


@pytest.fixture(scope="module")
def wall_map(map_dir) -> Map:
    return Map.load(map_dir)


@pytest.fixture(scope="module")
def wall(wall_map) -> Tile:
    return wall_map.whole()


UTM = np.array([437_012.0, 5_412_345.0, 318.0])
VIEW = ViewConfig(keyframes=3, max_points=200, max_distance_m=10.0)


@pytest.fixture
def copy(map_dir, tmp_path) -> Path:
    return shutil.copytree(map_dir, tmp_path / "copy")


# --- building -----------------------------------------------------------------------------------


def test_keyframes_and_points_are_those_of_the_model(wall_map):
    assert wall_map.keyframe_names == tuple(f"drive 1/{i:03d}.png" for i in range(N_KEYFRAMES))
    expected = [[i * SPACING_M, 0.02 * i, 0] for i in range(N_KEYFRAMES)]
    np.testing.assert_allclose(wall_map.keyframe_T_map_cam[:, :3, 3], expected, atol=1e-12)
    np.testing.assert_allclose(wall_map.points_map()[:, 2], WALL_M, atol=1e-6)
    assert wall_map.datum is not None and wall_map.datum.yaw_deg == 30
    assert wall_map.cameras[0].width == WIDTH


def test_rows_hold_the_features_of_the_keyframe_at_the_projected_point(
    wall_map, wall, dataset, extractor
):
    keyframe = 2
    image = cv2.imread(str(dataset / "images" / wall_map.keyframe_names[keyframe]))[..., ::-1]
    own = wall.observations(keyframe)
    rows, points = wall.observation_row[own], wall.points_map()[wall.observation_point[own]]
    T_cam_map = se3.inverse(wall_map.keyframe_T_map_cam[keyframe])
    pixels, seen = CAMERA.project(torch.from_numpy(se3.transform(T_cam_map, points)))
    assert seen.all() and len(rows) > 100
    sampled = extractor.extract(np.ascontiguousarray(image)).sample(pixels.float())
    for level, (features, confidences, valid) in enumerate(sampled):
        torch.testing.assert_close(
            unit_rows(wall.features[level][rows]), features, atol=5e-3, rtol=0
        )
        stored = wall.confidences[level][rows].float()
        torch.testing.assert_close(stored, confidences * valid, atol=2e-3, rtol=0)


def test_averaged_map_has_one_unit_row_per_point(dataset, extractor, tmp_path, wall):
    averaged = build(dataset, tmp_path / "averaged", extractor, features="averaged").whole()
    np.testing.assert_array_equal(averaged.points, wall.points)
    for level, features in enumerate(map(unit_rows, averaged.features)):
        assert len(features) == len(averaged.points)
        norms = features.norm(dim=-1)[averaged.confidences[level] > 0]
        torch.testing.assert_close(norms, torch.ones_like(norms), atol=2e-3, rtol=0)
        # The average is nearer to the observations than they are to one another.
        rows = torch.from_numpy(wall.observation_point)
        agreement = (features[rows] * unit_rows(wall.features[level])).sum(-1)
        assert agreement.mean() > 0.8
    assert find_problems(tmp_path / "averaged") == []


def test_observation_far_from_its_keypoint_is_left_out(dataset, wall):
    model = read_model(dataset / "colmap")
    mismatched = model.points_world[model.point_ids == model.images[0].point_ids[0]]
    point = np.linalg.norm(wall.points_map() - mismatched, axis=-1).argmin()
    seen = np.split(wall.observation_point, wall.observation_offsets[1:-1])
    assert point not in seen[0]
    assert point in seen[1] and point in seen[2]


def test_optical_world_is_turned_to_z_up(dataset, extractor, tmp_path, wall_map):
    turned = build(dataset, tmp_path / "map", extractor, axes="optical_to_ros")
    positions, before = turned.keyframe_T_map_cam[:, :3, 3], wall_map.keyframe_T_map_cam[:, :3, 3]
    np.testing.assert_allclose(positions[:, 1], -before[:, 0], atol=1e-12)  # right is -y
    np.testing.assert_allclose(turned.points_map()[:, 0], WALL_M, atol=1e-5)  # forward is x
    np.testing.assert_allclose(
        se3.transform(se3.inverse(turned.keyframe_T_map_cam[1]), turned.points_map()),
        se3.transform(se3.inverse(wall_map.keyframe_T_map_cam[1]), wall_map.points_map()),
        atol=1e-5,
    )


def test_every_second_keyframe_keeps_points_that_the_whole_model_sees_often(
    dataset, extractor, tmp_path, wall_map
):
    thin = build(dataset, tmp_path / "map", extractor, keyframe_step=2)
    assert thin.keyframe_names == wall_map.keyframe_names[::2]
    lengths = np.bincount(thin.whole().observation_point)
    assert lengths.min() < 3  # although three images of the model see each of them


def test_building_twice_gives_the_same_map(dataset, extractor, tmp_path, wall_map):
    again = build(dataset, tmp_path / "a", extractor, datum=wall_map.datum)
    assert again.sha256 == wall_map.sha256


def test_covisibility_counts_shared_points(wall_map, wall):
    seen = np.split(wall.observation_point, wall.observation_offsets[1:-1])
    part = slice(*wall_map.covisible_offsets[1:3])
    neighbours, counts = wall_map.covisible_keyframe[part], wall_map.covisible_points[part]
    assert 1 not in neighbours
    for neighbour, count in zip(neighbours, counts, strict=True):
        assert count == len(np.intersect1d(seen[1], seen[neighbour]))


# --- building from what cannot be used: one clear line, nothing written --------------------------


def assert_refused(match: str, tmp_path: Path, call) -> None:
    before = shown(tmp_path)
    with pytest.raises(MapError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert shown(tmp_path) == before


def shown(folder: Path) -> list[Path]:
    """All but what the next try may go on with."""
    return [path for path in sorted(folder.rglob("*")) if ".map.work" not in path.parts]


def test_missing_images_are_counted_and_the_first_is_named(dataset, extractor, tmp_path):
    images = shutil.copytree(dataset / "images", tmp_path / "images")
    (images / "drive 1" / "003.png").unlink()
    assert_refused(
        "lacks 1 of the model's 6 images, the first is 'drive 1/003.png'",
        tmp_path,
        lambda: build(dataset, tmp_path / "map", extractor, images),
    )


def test_image_of_another_size_is_named_with_both_sizes(dataset, extractor, tmp_path):
    images = shutil.copytree(dataset / "images", tmp_path / "images")
    cv2.imwrite(str(images / "drive 1" / "003.png"), np.zeros((80, 128, 3), np.uint8))
    assert_refused(
        r"003\.png is 128x80, its camera in the model 256x160",
        tmp_path,
        lambda: build(dataset, tmp_path / "map", extractor, images),
    )


def test_image_that_is_none_is_named(dataset, extractor, tmp_path):
    images = shutil.copytree(dataset / "images", tmp_path / "images")
    (images / "drive 1" / "003.png").write_bytes(b"not a picture")
    assert_refused(
        r"003\.png cannot be read as an image",
        tmp_path,
        lambda: build(dataset, tmp_path / "map", extractor, images),
    )


def test_model_without_long_tracks_is_refused(dataset, extractor, tmp_path):
    assert_refused(
        "no point seen by 99 images",
        tmp_path,
        lambda: build(dataset, tmp_path / "map", extractor, min_track_length=99),
    )


def test_existing_map_is_kept_unless_it_may_be_overwritten(dataset, extractor, copy):
    def rebuild(**options):
        return build(dataset, copy, extractor, min_track_length=4, **options)

    assert_refused("exists; choose another output, or pass --overwrite", copy.parent, rebuild)
    old = Map.load(copy).sha256
    assert rebuild(overwrite=True).sha256 != old
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_folder_that_is_no_map_is_never_overwritten(dataset, extractor, tmp_path):
    (tmp_path / "thesis").mkdir()
    assert_refused(
        "exists and is not a map",
        tmp_path,
        lambda: build(dataset, tmp_path / "thesis", extractor, overwrite=True),
    )


# --- storing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["map.json", "keyframes.safetensors", "tile_0_0.safetensors"])
def test_changed_byte_is_found_and_its_file_named(copy, name):
    path = copy / name
    content = bytearray(path.read_bytes())
    at = content.index(b"0.", len(content) // 4) if name == "map.json" else len(content) - 99
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(MapError, match=name):
        Map.load(copy)


@pytest.mark.parametrize("name", ["keyframes.safetensors", "tile_0_0.safetensors"])
@pytest.mark.parametrize("verify", [True, False])
def test_missing_or_truncated_file_is_named(copy, name, verify):
    path = copy / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MapError, match=name):
        Map.load(copy, verify)
    path.unlink()
    with pytest.raises(MapError, match=name):
        Map.load(copy, verify)


def test_map_of_another_schema_version_says_what_to_do(copy):
    path = copy / "map.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 7}))
    with pytest.raises(MapError, match="schema version 7, this program reads version 2; rebuild"):
        Map.load(copy)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 1, "sha256": ""}'])
def test_damaged_map_json(copy, content):
    (copy / "map.json").write_text(content)
    with pytest.raises(MapError, match=r"map\.json"):
        Map.load(copy)


def test_folder_without_a_map(tmp_path):
    with pytest.raises(MapError, match="is not a map"):
        Map.load(tmp_path)


def test_datum_must_be_four_numbers_in_range():
    assert Datum.parse("-33.8, 151.2, 20, -90").longitude_deg == 151.2
    for text in ("1,2,3", "a,b,c,d", "91,0,0,0", "0,181,0,0", "0,0,nan,0"):
        with pytest.raises(MapError, match="expected LAT,LON,ALT,YAW"):
            Datum.parse(text)


# --- viewing ------------------------------------------------------------------------------------


def prior(x: float = 1.1, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    return se3.make(np.eye(3), [x, y, z])


def in_map(view) -> np.ndarray:
    return view.points.double().numpy() + view.origin


def test_view_has_points_that_the_prior_can_see(wall_map):
    view = select_view(wall_map, prior(), CAMERA, VIEW)
    assert 100 < len(view) <= VIEW.max_points
    wide = CAMERA.crop([-60, -40], [WIDTH + 120, HEIGHT + 80])
    _, seen = wide.project(torch.from_numpy(in_map(view) - prior()[:3, 3]))
    assert seen.all()
    assert view.keyframes[0] == "drive 1/002.png"
    assert len(view.keyframes) == VIEW.keyframes
    assert view.nearest_m == pytest.approx(np.hypot(0.1, 0.04))
    assert [f.shape for f in view.features] == [(len(view), c) for c in (128, 64, 32)]
    assert all(f.dtype == torch.float32 for f in view.features)


def test_view_looks_through_the_most_similar_keyframe(wall_map, wall):
    keyframe = 3
    view = select_view(wall_map, wall_map.keyframe_T_map_cam[keyframe].copy(), CAMERA, VIEW)
    own = wall.observations(keyframe)
    points = wall.points_map()[wall.observation_point[own]]
    features = {
        tuple(np.round(p, 4)): row for p, row in zip(points, wall.observation_row[own], strict=True)
    }
    rows = [features.get(tuple(p)) for p in np.round(in_map(view), 4)]
    known = np.array([row is not None for row in rows])
    assert known.mean() > 0.7  # the others are beside that image
    expected = wall.features[2][np.array([row for row in rows if row is not None])]
    torch.testing.assert_close(view.features[2][known], unit_rows(expected))


def test_view_compares_a_point_with_as_many_keyframes_as_asked(wall_map):
    alone, several = (
        select_view(wall_map, prior(), CAMERA, VIEW.model_copy(update={"observations": count}))
        for count in (1, 2)
    )
    ids, first, counts = np.unique(several.point_ids, return_index=True, return_counts=True)
    np.testing.assert_array_equal(ids, alone.point_ids)  # the same points
    assert counts.max() == 2 and counts.mean() > 1.3
    for one, two in zip(alone.features, several.features, strict=True):
        torch.testing.assert_close(two[first], one)  # the most alike keyframe comes first
    twice = first[counts == 2]
    assert (several.points[twice] == several.points[twice + 1]).all()
    assert not torch.equal(several.features[2][twice], several.features[2][twice + 1])


def test_view_keeps_further_observations_for_the_refinement(wall_map):
    """The same ones as in a view that compares with them from the start."""
    several = VIEW.model_copy(update={"observations": 2, "refinement_observations": 0})
    any_ratio = VIEW.model_copy(update={"max_refinement_ratio": 1e6})
    alone, twice = (select_view(wall_map, prior(), CAMERA, each) for each in (any_ratio, several))
    assert twice.further is None
    further = alone.further
    assert len(further.of) == len(twice) - len(alone)
    seconds = np.flatnonzero(np.diff(twice.point_ids, prepend=-1) == 0)
    np.testing.assert_array_equal(alone.point_ids[further.of], twice.point_ids[seconds])
    torch.testing.assert_close(further.features, twice.features[2][seconds])
    torch.testing.assert_close(further.confidences, twice.confidences[2][seconds])


def test_the_refinement_leaves_out_observations_from_much_farther_viewpoints(wall_map):
    T_map_cam, found = prior(x=0.3), {}
    for ratio in (1.0, 2.0, 1e6):
        config = VIEW.model_copy(update={"max_refinement_ratio": ratio})
        view = select_view(wall_map, T_map_cam, CAMERA, config)
        found[ratio] = 0 if view.further is None else len(view.further.of)
    assert found[1.0] < found[2.0] < found[1e6], found


def test_view_spreads_points_over_the_image(wall_map):
    few = ViewConfig(keyframes=3, max_points=40)
    pixels, _ = CAMERA.project(
        torch.from_numpy(in_map(select_view(wall_map, prior(), CAMERA, few)) - prior()[:3, 3])
    )
    right, low = (pixels > torch.tensor(CENTER)).T
    for corner in (right & low, right & ~low, ~right & low, ~right & ~low):
        assert 4 <= corner.sum() <= 18


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-0.02, 0.02), min_size=3, max_size=3))
def test_view_changes_little_with_the_prior(wall_map, shift):
    first = select_view(wall_map, prior(), CAMERA, VIEW)
    moved = select_view(wall_map, se3.make(np.eye(3), shift) @ prior(), CAMERA, VIEW)
    shared = set(map(tuple, in_map(first).round(4))) & set(map(tuple, in_map(moved).round(4)))
    assert len(shared) > 0.9 * len(first)


def test_view_away_from_the_map_is_empty_and_says_how_far(wall_map):
    view = select_view(wall_map, prior(x=40.0), CAMERA, VIEW)
    assert len(view) == 0 and view.keyframes == ()
    assert view.nearest_m == pytest.approx(37.5, abs=0.1)
    assert [f.shape for f in view.features] == [(0, 128), (0, 64), (0, 32)]


def test_view_backwards_is_empty(wall_map):
    backwards = se3.make(np.diag([-1.0, 1.0, -1.0]), [1.0, 0.0, 0.0])
    assert len(select_view(wall_map, backwards, CAMERA, VIEW)) == 0


def test_map_in_utm_coordinates_is_as_exact_as_one_at_zero(extractor, tmp_path, wall_map):
    write_dataset(tmp_path, UTM)
    far = build(tmp_path, tmp_path / "map", extractor)
    near_view = select_view(wall_map, prior(), CAMERA, VIEW)
    T_map_cam = prior()
    T_map_cam[:3, 3] += UTM
    far_view = select_view(far, T_map_cam, CAMERA, VIEW)
    np.testing.assert_allclose(in_map(far_view) - UTM, in_map(near_view), atol=1e-6)
    for ours, theirs in zip(far_view.features, near_view.features, strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)


# --- verifying, and the command line --------------------------------------------------------------


def test_sound_map_has_no_problems(map_dir):
    assert find_problems(map_dir) == []


def rewrite(folder: Path, **changed: np.ndarray) -> None:
    """Store the tile again, with these arrays instead of its own and hashes that fit."""
    metadata, _ = schema.read(folder)
    (tile,) = metadata.tiles
    save_file(load_file(folder / tile.file) | changed, folder / tile.file)
    files = metadata.files | {tile.file: schema.file_sha256(folder / tile.file)}
    schema.write(metadata.model_copy(update={"files": files}), folder)


def test_keyframes_that_see_nothing_are_listed(copy, wall):
    offsets = wall.observation_offsets.copy()
    offsets[1] = 0
    rewrite(copy, observation_offsets=offsets)
    (problem,) = find_problems(copy)
    assert "1 of 6 keyframes see no point: drive 1/000.png" in problem
    alone = VIEW.model_copy(update={"keyframes": 1})
    assert len(select_view(Map.load(copy), prior(x=0.0), CAMERA, alone)) == 0


def test_values_that_cannot_be_are_counted(copy, wall):
    points = wall.points.copy()
    points[:2] = np.nan
    features = wall.features[1].numpy().copy()
    features[5] = 0
    rewrite(copy, points=points, features_1=features)
    assert find_problems(copy) == [
        "2 points are not finite",
        "level 1: 1 rows are not unit features with a confidence in 0..1",
    ]


def test_command_line_builds_shows_and_verifies(dataset, tmp_path):
    run = CliRunner()
    output = str(tmp_path / "map")
    command = ["build", "--colmap", str(dataset / "colmap"), "--images", str(dataset / "images")]
    options = ["--output", output, "--datum", "49,8,110,0", "--camera-mount", "1,0,1.4,0,0,0,1"]
    built = run.invoke(app, [*command, *options], catch_exceptions=False)
    assert built.exit_code == 0
    shown = run.invoke(app, ["info", output])
    assert "6, " in shown.output and "49.0000000" in shown.output
    assert run.invoke(app, ["verify", output]).exit_code == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "map"]
    T_base_cam = Map.load(output).T_base_cam
    np.testing.assert_allclose(T_base_cam[:3, 3], [1, 0, 1.4])
    with pytest.raises(ConfigError, match="--camera-mount 1,2: expected X,Y,Z"):
        run.invoke(
            app, [*command, "--output", output, "--camera-mount", "1,2"], catch_exceptions=False
        )
