"""MegaDepth and Extended CMU Seasons, generated in their layouts."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from helpers.boards import (
    SHOTS,
    Shot,
    distorted,
    write_images,
    write_megadepth,
    write_model,
)
from helpers.pair_checks import (
    assert_corresponds,
    assert_in_view,
    colour_differences,
    largest_turn_deg,
    plain,
    seeded,
)
from helpers.scene import photograph, pose
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.training.data_config import CmuConfig, MegaDepthConfig
from pixloc_ros.training.datasets import read_cmu, read_megadepth

CAMERA_LINE = "OPENCV 320 208 250 252 160.5 104.5 -0.1 0.02 0.0005 -0.0003"


@pytest.fixture(scope="module")
def megadepth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("megadepth")
    for scene, turned in (("0001", ()), ("0022", (1, 4))):
        shots = [Shot(f"{i}.png", pose(i), turned=i in turned) for i in range(6)]
        write_megadepth(tmp_path, scene, shots)
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


class TestMegaDepth:
    def test_scenes_give_pairs(self, megadepth: Path) -> None:
        source = plain(MegaDepthConfig(path=megadepth, min_side_px=100))
        assert len(source) == 2 * 30
        assert_corresponds(source.sample(12, seeded()))

    def test_images_on_their_side_are_put_upright(self, megadepth: Path) -> None:
        source = plain(MegaDepthConfig(path=megadepth, scenes=("0022",), min_side_px=100))
        batch = source.sample(16, seeded())
        assert_corresponds(batch)
        assert largest_turn_deg(batch.T_query_reference) < 10

    def test_only_images_on_their_side_are_turned(self, megadepth: Path) -> None:
        config = MegaDepthConfig(path=megadepth, min_side_px=100)
        turns = [
            [view.turns for view in scene.views] for scene in read_megadepth(config, Counter())
        ]
        assert turns == [[0] * 6, [0, 1, 0, 0, 1, 0]]

    def test_small_images_are_counted(self, megadepth: Path) -> None:
        with pytest.raises(DataError, match="12 image small"):
            plain(MegaDepthConfig(path=megadepth))

    @pytest.mark.parametrize("scene", ["0001", "0022"])
    def test_points_are_drawn_from_depth_maps(self, megadepth: Path, scene: str) -> None:
        """Of any pixel, none of them hidden in the query; also of images that were turned."""
        config = MegaDepthConfig(path=megadepth, scenes=(scene,), min_side_px=100)
        depth = {"depth": megadepth / "MegaDepth_v1"}
        batch = plain(config.model_copy(update=depth)).sample(12, seeded())
        assert_corresponds(batch)
        assert_in_view(batch)
        of_model = plain(config).sample(12, seeded())
        assert batch.visible.sum() > 1.5 * of_model.visible.sum()

    def test_images_without_a_depth_map_are_left_out(self, megadepth: Path, tmp_path: Path) -> None:
        depth = shutil.copytree(megadepth / "MegaDepth_v1", tmp_path / "depth")
        config = MegaDepthConfig(path=megadepth, scenes=("0001",), min_side_px=100, depth=depth)
        maps = depth / "0001" / "dense0" / "depths"
        (maps / "0.h5").unlink()
        (maps / "1.h5").write_bytes(b"nothing")
        with h5py.File(maps / "2.h5", "a") as file:
            file.move("depth", "deepness")
        source = plain(config)
        assert source.skipped["depth map missing"] == 1
        source.sample(40, seeded())
        assert source.skipped["image or depth map unreadable or of another size"] == 2
        with pytest.raises(DataError, match=r"nowhere/0001 has no dense\*/depths/\*\.h5"):
            plain(config.model_copy(update={"depth": tmp_path / "nowhere"}))

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
        (scene,) = read_cmu(CmuConfig(path=cmu), Counter())
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
