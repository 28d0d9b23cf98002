"""Training pairs: that what they claim to correspond does, and what is done with bad data."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from boards import Shot, distorted, hidden, write_cloud, write_images, write_model
from pydantic import ValidationError
from scene import BOARDS, FAR, photograph, pose, write_scene

from pixloc_ros.errors import DataError, PixlocError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.training import parallax
from pixloc_ros.training.augmentation import EFFECTS, augment
from pixloc_ros.training.data_config import (
    AugmentationConfig,
    CmuConfig,
    ColmapConfig,
    LidarConfig,
    MegaDepthConfig,
    PhotosConfig,
    PosedConfig,
    SourceConfig,
)
from pixloc_ros.training.draws import Draws
from pixloc_ros.training.pairs import PairBatch, PairSource
from pixloc_ros.training.preview import save_preview
from pixloc_ros.training.sources import open_source, open_sources
from pixloc_ros.training.upright import upright

SIZE = (192, 128)
CAMERA_LINE = "OPENCV 320 208 250 252 160.5 104.5 -0.1 0.02 0.0005 -0.0003"
PLAIN = AugmentationConfig(enabled=False)
SHOTS = [Shot(f"{i:03d}.png", pose(i)) for i in range(6)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(config: SourceConfig) -> PairSource:
    return open_source(config, SIZE, "cpu", PLAIN)


def colour_differences(batch: PairBatch, shift_px: float = 0.0) -> np.ndarray:
    """Of all visible points (M,), between the reference and the query, whose pixels are moved."""
    in_query = batch.T_query_reference.transform(batch.points_reference)
    pixels_reference, _ = batch.camera_reference.project(batch.points_reference)
    pixels_query, _ = batch.camera_query.project(in_query)
    reference = parallax.sample(batch.reference_rgb, pixels_reference)
    query = parallax.sample(batch.query_rgb, pixels_query + shift_px)
    return (reference - query).abs().mean(1)[batch.visible].numpy()


def assert_corresponds(batch: PairBatch) -> None:
    """Colours agree at what is said to correspond, and disagree 3 px beside it."""
    at, beside = colour_differences(batch), colour_differences(batch, shift_px=3.0)
    assert len(at) > 20 * len(batch)
    assert np.median(at) < 0.012 and np.mean(at < 0.06) > 0.97
    assert np.median(beside) > 3 * np.median(at)


def assert_in_view(batch: PairBatch) -> None:
    """Visible points are in front of both cameras and in both images."""
    in_query = batch.T_query_reference.transform(batch.points_reference)
    for camera, points in (
        (batch.camera_reference, batch.points_reference),
        (batch.camera_query, in_query),
    ):
        assert camera.project(points)[1][batch.visible].all()


def assert_same(a: PairBatch, b: PairBatch) -> None:
    for field in ("reference_rgb", "query_rgb", "points_reference", "visible"):
        assert torch.equal(getattr(a, field), getattr(b, field))
    assert torch.equal(a.T_query_reference.matrix(), b.T_query_reference.matrix())
    assert torch.equal(a.camera_query.center, b.camera_query.center)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotosConfig:
    folder = tmp_path_factory.mktemp("photos")
    for board in BOARDS:
        cv2.imwrite(str(folder / f"{board.seed}.png"), cv2.resize(board.texture(), (480, 360)))
    return PhotosConfig(path=folder, stored_width_px=240, points=128)


@pytest.fixture(scope="module")
def colmap(tmp_path_factory: pytest.TempPathFactory) -> ColmapConfig:
    folder = tmp_path_factory.mktemp("colmap")
    write_images(folder / "images", SHOTS)
    write_model(folder / "model", SHOTS)
    return ColmapConfig(path=folder / "model", images=folder / "images")


@pytest.fixture(scope="module")
def megadepth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("megadepth")
    for scene, turned in (("0001", ()), ("0022", (1, 4))):
        shots = [Shot(f"{i}.png", pose(i), turned=i in turned) for i in range(6)]
        write_images(tmp_path / "Undistorted_SfM" / scene / "images", shots)
        write_model(tmp_path / "Undistorted_SfM" / scene / "sparse", shots)
    return tmp_path


@pytest.fixture(scope="module")
def cmu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slice 3: references 0, 2, 4 by a pinhole, queries 1, 3, 5 by a lens, 40 far away."""
    tmp_path = tmp_path_factory.mktemp("cmu")
    folder = tmp_path / "slice3"
    references = SHOTS[::2]
    write_images(folder / "database", references)
    write_model(folder / "sparse", references)
    _, width, height, *params = CAMERA_LINE.split()
    lens = Camera.from_colmap("OPENCV", int(width), int(height), [float(p) for p in params])
    (folder / "query").mkdir()
    (folder / "camera-poses").mkdir()
    lines = []
    for i in (1, 3, 5, 40):
        name = f"img_{i:05d}_c1_1283347879534213us.jpg"
        image = distorted(photograph(pose(i)), lens)
        cv2.imwrite(str(folder / "query" / name), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
        qvec = se3.qvec_wxyz(se3.inverse(pose(i)))
        lines.append(f"{name} {' '.join(map(str, [*qvec, *pose(i)[:3, 3]]))}")
    (folder / "camera-poses" / "slice-3-run-1.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "intrinsics.txt").write_text(
        f"# name model size parameters\nc0 {CAMERA_LINE}\nc1 {CAMERA_LINE}\n"
    )
    return tmp_path


class TestPhotos:
    def test_points_correspond(self, photos: PhotosConfig) -> None:
        batch = plain(photos).sample(16, seeded())
        assert batch.query_rgb.shape == (16, 3, SIZE[1], SIZE[0])
        assert batch.visible.shape == (16, 128)
        assert_corresponds(batch)
        assert_in_view(batch)

    def test_views_differ_by_as_much_as_asked_for(self, photos: PhotosConfig) -> None:
        turn_deg, distance = (
            plain(photos).sample(32, seeded()).T_query_reference.angle_and_distance()
        )
        assert 7 < turn_deg.max() <= 10.01
        assert 0.5 < distance.max() <= 0.28 * photos.depth_m[1]

    def test_no_point_is_hidden_in_the_reference(self, photos: PhotosConfig) -> None:
        batch = plain(photos).sample(16, seeded())
        pixels, _ = batch.camera_reference.project(batch.points_reference)
        for at, points, visible in zip(pixels, batch.points_reference, batch.visible, strict=True):
            at, depth = at[visible], points[visible, 2]
            near = torch.cdist(at, at) < 2
            ratio = torch.where(near, depth[:, None] / depth[None], 1.0)
            assert ratio.max() < 1.3

    def test_the_generator_decides(self, photos: PhotosConfig) -> None:
        source = open_sources([photos], SIZE, "cpu")
        generator = seeded(1)
        source.sample(3, generator)
        state = generator.get_state()
        first = source.sample(3, generator)
        resumed = open_sources([photos], SIZE, "cpu").sample(3, seeded().set_state(state))
        assert_same(first, resumed)
        assert not torch.equal(first.query_rgb, source.sample(3, generator).query_rgb)

    def test_unusable_photos_are_counted(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        cv2.imwrite(str(tmp_path / "deep" / "GOOD.JPG"), photograph(pose(0)))
        cv2.imwrite(str(tmp_path / "tiny.png"), photograph(pose(0))[:100])
        (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
        (tmp_path / "empty.png").touch()
        (tmp_path / "readme.txt").write_text("not a photo")
        source = plain(PhotosConfig(path=tmp_path, stored_width_px=64))
        assert source.skipped == {"tiny": 1, "unreadable": 2}
        assert len(source) == 1

    def test_long_photos_give_several(self, tmp_path: Path) -> None:
        panorama = np.hstack([np.full((200, 300, 3), value, np.uint8) for value in (0, 128, 255)])
        cv2.imwrite(str(tmp_path / "wide.png"), panorama)
        assert len(plain(PhotosConfig(path=tmp_path, stored_width_px=64))) == 3

    def test_memory_has_a_limit(self, photos: PhotosConfig) -> None:
        one = 3 * 240 * 160 / 2**30
        source = plain(photos.model_copy(update={"max_gib": 1.5 * one}))
        assert len(source) == 1
        assert source.skipped == {"over max_gib": 1}

    def test_archive_of_jpegs(self, tmp_path: Path) -> None:
        jpegs = [cv2.imencode(".jpg", photograph(pose(i)))[1].ravel() for i in range(3)]
        offsets = np.cumsum([0, *map(len, jpegs)])
        np.savez(tmp_path / "photos.npz", data=np.concatenate(jpegs), off=offsets)
        assert len(plain(PhotosConfig(path=tmp_path / "photos.npz", stored_width_px=64))) == 3

    @pytest.mark.parametrize("what", ["nowhere", "empty", "wrong.npz"])
    def test_no_usable_photo_is_one_clear_error(self, tmp_path: Path, what: str) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "broken.jpg").write_bytes(b"nothing")
        np.savez(tmp_path / "wrong.npz", images=np.zeros(3))
        with pytest.raises(DataError, match=what) as caught:
            plain(PhotosConfig(path=tmp_path / what))
        assert "\n" not in str(caught.value)


class TestAugmentation:
    @pytest.mark.parametrize("name", EFFECTS)
    def test_each_effect_changes_every_image_in_its_own_way(self, name: str) -> None:
        image = torch.from_numpy(cv2.resize(FAR.texture(), (96, 64))).permute(2, 0, 1) / 255
        images = torch.stack([image, image, image.flip(-2)])
        silent = dict.fromkeys(EFFECTS, 0.0)
        config = AugmentationConfig(**(silent | {name: 1.0}))
        out = augment(images, config, Draws(seeded(4), "cpu"))
        assert out.shape == images.shape and out.dtype == images.dtype
        assert out.min() >= 0 and out.max() <= 1
        assert not torch.equal(out[0], images[0])
        assert not torch.equal(out[0], out[1])

    def test_views_are_changed_independently(self, photos: PhotosConfig) -> None:
        still = photos.model_copy(update={"max_turn_deg": 0.0, "max_shift": 0.0})
        alike = plain(still).sample(4, seeded())
        assert torch.allclose(alike.reference_rgb, alike.query_rgb, atol=1e-4)
        changed = open_sources([still], SIZE, "cpu").sample(4, seeded())
        assert ((changed.reference_rgb - changed.query_rgb).abs().mean((1, 2, 3)) > 0.01).all()

    def test_none_leaves_images_alone(self) -> None:
        images = torch.rand(2, 3, 8, 8, generator=seeded())
        assert augment(images, PLAIN, Draws(seeded(), "cpu")) is images


class TestPosed:
    def test_points_of_a_model_correspond(self, colmap: ColmapConfig) -> None:
        source = plain(colmap)
        assert len(source) == len(SHOTS) * (len(SHOTS) - 1)
        batch = source.sample(8, seeded())
        assert_corresponds(batch)
        assert_in_view(batch)

    def test_pairs_share_enough_and_look_the_same_way(self, colmap: ColmapConfig) -> None:
        wide = len(plain(colmap))
        assert len(plain(colmap.model_copy(update={"overlap": (0.93, 1.0)}))) < wide
        assert len(plain(colmap.model_copy(update={"max_turn_deg": 2.5}))) < wide
        with pytest.raises(DataError, match="min_shared"):
            plain(colmap.model_copy(update={"min_shared": 10_000}))

    def test_the_generator_decides_whatever_is_cached(self, colmap: ColmapConfig) -> None:
        cached, uncached = plain(colmap), plain(colmap.model_copy(update={"cache_gib": 0.0}))
        cached.sample(8, seeded(5))
        assert_same(cached.sample(4, seeded(2)), uncached.sample(4, seeded(2)))

    @pytest.mark.slow
    def test_hidden_points_of_a_cloud_are_not_visible(self, tmp_path: Path) -> None:
        meta = write_scene(tmp_path, count=6)
        write_cloud(tmp_path / "cloud.ply")
        images = tmp_path / "images"
        config = LidarConfig(path=tmp_path / "cloud.ply", poses=meta, images=images, min_shared=30)
        batch = plain(config).sample(12, seeded())
        assert_in_view(batch)
        assert np.mean(colour_differences(batch) < 0.06) > 0.97
        scene = plain(config)._scenes[0]  # type: ignore[attr-defined]
        for i, j in scene.pairs[:10]:
            shared = np.intersect1d(scene.views[i].seen, scene.views[j].seen)
            T_world_query = se3.inverse(scene.views[j].T_cam_world)
            behind = hidden(scene.points_world[shared], T_world_query)
            assert behind.mean() < 0.03  # at the rim of the near board, within the cloud's spacing

    @pytest.mark.slow
    def test_posed_images_are_triangulated(self, tmp_path: Path) -> None:
        pytest.importorskip("pycolmap")
        meta = write_scene(tmp_path, count=6)
        config = PosedConfig(path=meta, images=tmp_path / "images", work=tmp_path / "work")
        batch = plain(config).sample(6, seeded())
        assert_in_view(batch)
        assert np.mean(colour_differences(batch) < 0.06) > 0.95

    def test_images_missing_or_unreadable_are_counted(self, tmp_path: Path) -> None:
        write_images(tmp_path / "images", SHOTS)
        write_model(tmp_path / "model", SHOTS)
        (tmp_path / "images" / "000.png").unlink()
        (tmp_path / "images" / "001.png").write_bytes(b"torn")
        source = plain(ColmapConfig(path=tmp_path / "model", images=tmp_path / "images"))
        assert source.skipped["image missing"] == 1
        batch = source.sample(24, seeded())
        assert len(batch) == 24
        assert source.skipped["image unreadable or of another size"] == 1
        assert_same(batch, source.sample(24, seeded()))

    def test_no_readable_image_is_an_error(self, tmp_path: Path) -> None:
        write_images(tmp_path / "images", SHOTS)
        write_model(tmp_path / "model", SHOTS)
        for file in (tmp_path / "images").iterdir():
            file.write_bytes(b"torn")
        source = plain(ColmapConfig(path=tmp_path / "model", images=tmp_path / "images"))
        with pytest.raises(DataError, match="6 images cannot be read"):
            source.sample(2, seeded())

    def test_a_folder_without_the_images_is_an_error(self, tmp_path: Path) -> None:
        write_model(tmp_path / "model", SHOTS)
        with pytest.raises(PixlocError, match="none of the 6 images"):
            plain(ColmapConfig(path=tmp_path / "model", images=tmp_path))


class TestMegaDepth:
    def test_scenes_give_pairs(self, megadepth: Path) -> None:
        source = plain(MegaDepthConfig(path=megadepth, min_side_px=100))
        assert len(source) == 2 * 30
        assert_corresponds(source.sample(12, seeded()))

    def test_images_on_their_side_are_put_upright(self, megadepth: Path) -> None:
        source = plain(MegaDepthConfig(path=megadepth, scenes=("0022",), min_side_px=100))
        batch = source.sample(16, seeded())
        assert_corresponds(batch)
        turn_deg, _ = batch.T_query_reference.angle_and_distance()
        assert turn_deg.max() < 10

    def test_upright_images_stay(self, megadepth: Path) -> None:
        source = plain(MegaDepthConfig(path=megadepth, scenes=("0001",), min_side_px=100))
        views = source._scenes[0].views  # type: ignore[attr-defined]
        assert [view.turns for view in upright(views)] == [0] * 6

    def test_small_images_are_counted(self, megadepth: Path) -> None:
        with pytest.raises(DataError, match="12 image small"):
            plain(MegaDepthConfig(path=megadepth))

    def test_another_layout_is_named(self, megadepth: Path) -> None:
        with pytest.raises(DataError, match=r"expected Undistorted_SfM/<scene>/.*found 0001, 0022"):
            plain(MegaDepthConfig(path=megadepth / "Undistorted_SfM"))
        with pytest.raises(DataError, match=r"lacks Undistorted_SfM/0007/images"):
            plain(MegaDepthConfig(path=megadepth, scenes=("0007",)))


class TestCmu:
    def test_queries_are_paired_with_references(self, cmu: Path) -> None:
        source = plain(CmuConfig(path=cmu))
        assert source.skipped == {"query far from references": 1}
        assert len(source) == 3 * 3
        scene = source._scenes[0]  # type: ignore[attr-defined]
        assert {scene.views[j].path.parent.name for j in scene.pairs[:, 1]} == {"query"}
        assert {scene.views[i].path.parent.name for i in scene.pairs[:, 0]} == {"database"}

    def test_points_correspond_through_the_lens(self, cmu: Path) -> None:
        batch = plain(CmuConfig(path=cmu)).sample(8, seeded())
        assert_in_view(batch)
        differences = colour_differences(batch)
        # A query sees what its nearest reference sees, as no model of its own tells what it sees.
        assert np.median(differences) < 0.015 and np.mean(differences < 0.06) > 0.95

    def test_another_layout_is_named(self, cmu: Path) -> None:
        with pytest.raises(
            DataError, match=r"expected intrinsics.txt and slice<n>/.*; found camera-poses"
        ):
            plain(CmuConfig(path=cmu / "slice3"))
        with pytest.raises(DataError, match="lacks slice7/database"):
            plain(CmuConfig(path=cmu, slices=(7,)))

    def test_damaged_lines_are_named(self, cmu: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(cmu, tmp_path / "copy")
        next((copy / "slice3" / "camera-poses").iterdir()).write_text("img_1_c1_2us.jpg 1 0 0\n")
        with pytest.raises(DataError, match="line 1"):
            plain(CmuConfig(path=copy))
        (copy / "intrinsics.txt").write_text("c0 OPENCV 320 208 250\n")
        with pytest.raises(DataError, match=r"intrinsics.txt.*parameters"):
            plain(CmuConfig(path=copy))


@pytest.mark.parametrize(
    "wrong", [{"crop": (1.0, 0.4)}, {"crop": (0.5, 1.5)}, {"weight": 0}, {"max_gibs": 1}]
)
def test_values_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        PhotosConfig(path=Path("photos"), **wrong)


class TestMixture:
    def test_shares_are_like_the_weights(self, tmp_path: Path) -> None:
        configs = []
        for name, value, weight in (("dark", 30, 3.0), ("bright", 220, 1.0)):
            (tmp_path / name).mkdir()
            cv2.imwrite(str(tmp_path / name / "a.png"), np.full((200, 200, 3), value, np.uint8))
            configs.append(
                PhotosConfig(path=tmp_path / name, weight=weight, stored_width_px=64, points=16)
            )
        source = open_sources(configs, (32, 32), "cpu", PLAIN)
        batch = source.sample(400, seeded())
        share = (batch.reference_rgb.mean((1, 2, 3)) < 0.5).float().mean()
        assert 0.68 < share < 0.82
        assert_same(batch, source.sample(400, seeded()))

    def test_sources_of_all_kinds_make_one_batch(
        self, photos: PhotosConfig, colmap: ColmapConfig
    ) -> None:
        source = open_sources([photos, colmap], SIZE, "cpu", PLAIN)
        batch = source.sample(12, seeded())
        assert batch.visible.shape == (12, max(photos.points, colmap.points))
        assert len(source) == 2 + 30
        assert_corresponds(batch)

    def test_preview_shows_all_pairs(self, photos: PhotosConfig, tmp_path: Path) -> None:
        save_preview(plain(photos).sample(3, seeded()), tmp_path / "pairs.png")
        sheet = cv2.imread(str(tmp_path / "pairs.png"))
        assert sheet.shape == (2 * SIZE[1], 4 * SIZE[0], 3)
