"""Training pairs: that what they claim to correspond does, and what is done with bad data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers.boards import SHOTS, hidden, write_cloud, write_images, write_model
from helpers.pair_checks import (
    PLAIN,
    SIZE,
    assert_corresponds,
    assert_in_view,
    assert_same,
    colour_differences,
    largest_turn_deg,
    plain,
    seeded,
)
from helpers.scene import BOARDS, FAR, photograph, pose, texture, write_scene
from pixloc_ros.errors import ConfigError, DataError, PixlocError
from pixloc_ros.geometry import se3
from pixloc_ros.training.augmentation import EFFECTS, augment
from pixloc_ros.training.data_config import (
    AugmentationConfig,
    ColmapConfig,
    LidarConfig,
    PhotosConfig,
    PosedConfig,
)
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.run import save_preview
from pixloc_ros.training.sources import open_scenes, open_sources
from pixloc_ros.training.views import UNREADABLE


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotosConfig:
    folder = tmp_path_factory.mktemp("photos")
    for board in BOARDS:
        cv2.imwrite(str(folder / f"{board.seed}.png"), cv2.resize(texture(board), (480, 360)))
    return PhotosConfig(path=folder, stored_width_px=240, points=128)


@pytest.fixture(scope="module")
def colmap(tmp_path_factory: pytest.TempPathFactory) -> ColmapConfig:
    folder = tmp_path_factory.mktemp("colmap")
    write_images(folder / "images", SHOTS)
    write_model(folder / "model", SHOTS)
    return ColmapConfig(path=folder / "model", images=folder / "images")


class TestPhotos:
    def test_points_correspond(self, photos: PhotosConfig) -> None:
        batch = plain(photos).sample(16, seeded())
        assert batch.query_rgb.shape == (16, 3, SIZE[1], SIZE[0])
        assert batch.visible.shape == (16, 128)
        assert_corresponds(batch)
        assert_in_view(batch)

    def test_views_differ_by_as_much_as_asked_for(self, photos: PhotosConfig) -> None:
        T_query_reference = plain(photos).sample(32, seeded()).T_query_reference
        assert 7 < largest_turn_deg(T_query_reference) <= 10.01
        assert 0.5 < T_query_reference.t.norm(dim=-1).max() <= 0.28 * photos.depth_m[1]

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
        image = torch.from_numpy(cv2.resize(texture(FAR), (96, 64))).permute(2, 0, 1) / 255
        images = torch.stack([image, image, image.flip(-2)])
        silent = dict.fromkeys(EFFECTS, 0.0)
        config = AugmentationConfig(**(silent | {name: 1.0}))
        out = augment(images, config, RandomDraws(seeded(4), "cpu"))
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
        assert augment(images, PLAIN, RandomDraws(seeded(), "cpu")) is images


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
        (scene,) = open_scenes(config, Counter())
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
        assert source.skipped[UNREADABLE] == 1
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


@pytest.mark.parametrize(
    "wrong", [{"crop": (1.0, 0.4)}, {"crop": (0.5, 1.5)}, {"weight": 0}, {"max_gibs": 1}]
)
def test_values_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
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
