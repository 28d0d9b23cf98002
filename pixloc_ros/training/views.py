"""Pairs of posed images: real parallax, occlusion and change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.training import parallax
from pixloc_ros.training.augmentation import augment
from pixloc_ros.training.data_config import AugmentationConfig, ViewsConfig
from pixloc_ros.training.depth_maps import DepthMap, common_points
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.pairs import PairBatch, skipped_reasons
from pixloc_ros.training.pictures import Picture, PictureCache
from pixloc_ros.training.scenes import TrainingScene, TrainingView

MAX_TRIES = 50  # to find pairs whose images can be read
SPREAD = 0.15  # of a crop's centre around what the pair shares, relative to the crop's side
UNREADABLE = "image or depth map unreadable or of another size"
DRAWN_PER_POINT = 16  # pixels with depth, drawn per point of a pair: few are in both crops
_ScenePair = tuple[TrainingScene, tuple[TrainingView, TrainingView]]  # reference and query


@dataclass(frozen=True, slots=True)
class _Cut:
    """A part of a picture, scaled to training size. grid: (H, W, 2) its pixels in the picture."""

    picture: Picture
    camera: Camera
    grid: Tensor


class ViewSource:
    """A PairSource that draws from scenes."""

    def __init__(
        self,
        name: str,
        scenes: Sequence[TrainingScene],
        skipped: Counter[str],
        config: ViewsConfig,
        augmentation: AugmentationConfig,
        size: tuple[int, int],
        device: torch.device | str,
    ) -> None:
        self.name, self.skipped = name, skipped
        self._scenes = [scene for scene in scenes if len(scene.pairs)]
        if not self._scenes:
            raise DataError(
                f"{name}: no two images share {config.min_shared} points and look within "
                f"{config.max_turn_deg:g} deg of each other (left out: "
                f"{skipped_reasons(skipped)}); lower min_shared or raise max_turn_deg"
            )
        counts = np.array([min(len(s.pairs), config.pairs_per_scene) for s in self._scenes])
        self._shares = counts / counts.sum()
        self._config, self._augmentation = config, augmentation
        self._size, self._device = size, device
        self._pictures = PictureCache(size, config.crop[0], device, config.cache_gib)
        self._unreadable: set[TrainingView] = set()

    def __len__(self) -> int:
        return sum(len(scene.pairs) for scene in self._scenes)

    def sample(self, count: int, generator: torch.Generator) -> PairBatch:
        """Draw pairs as PairSource.sample does; an unreadable image is replaced by another pair."""
        draws = RandomDraws(generator, self._device)
        rng = draws.numpy()
        chosen, pictures = self._choose(count, rng)
        parts = [self._pair(scene, pair, pictures, rng) for scene, pair in chosen]
        references, queries, poses, points, visible = zip(*parts, strict=True)
        images = torch.cat([_images(references), _images(queries)])
        images = augment(images, self._augmentation, draws)
        T = torch.from_numpy(np.stack(poses)).to(self._device, torch.float32)
        return PairBatch(
            images[:count],
            images[count:],
            self._cameras(references),
            self._cameras(queries),
            Pose.from_matrix(T),
            torch.from_numpy(np.stack(points)).to(self._device, torch.float32),
            torch.from_numpy(np.stack(visible)).to(self._device),
        )

    def _choose(
        self, count: int, rng: np.random.Generator
    ) -> tuple[list[_ScenePair], dict[TrainingView, Picture]]:
        """Choose pairs of reference and query, and read all their pictures."""
        chosen: list[_ScenePair] = []
        pictures: dict[TrainingView, Picture] = {}
        for _ in range(MAX_TRIES):
            fresh = [self._draw(rng) for _ in range(count - len(chosen))]
            wanted = [v for _, pair in fresh for v in pair if v not in self._unreadable]
            found = self._pictures.get(wanted)
            lost = set(wanted) - set(found)
            self._unreadable |= lost
            self.skipped[UNREADABLE] += len(lost)
            pictures |= found
            chosen += [f for f in fresh if all(view in found for view in f[1])]
            if len(chosen) == count:
                return chosen, pictures
        raise DataError(f"{self.name}: {len(self._unreadable)} images cannot be read, too many")

    def _draw(self, rng: np.random.Generator) -> _ScenePair:
        scene = self._scenes[rng.choice(len(self._scenes), p=self._shares)]
        reference, query = scene.pairs[rng.integers(len(scene.pairs))]
        return scene, (scene.views[reference], scene.views[query])

    def _pair(
        self,
        scene: TrainingScene,
        pair: tuple[TrainingView, TrainingView],
        pictures: dict[TrainingView, Picture],
        rng: np.random.Generator,
    ) -> tuple[_Cut, _Cut, Matrix, Matrix, NDArray[np.bool_]]:
        """Return both crops, T_query_reference, points (N, 3) of the reference, and visibility."""
        T_query_reference = pair[1].T_cam_world @ se3.inverse(pair[0].T_cam_world)
        maps = [pictures[view].depth for view in pair]
        in_cams = self._common_points(scene, pair, maps, T_query_reference, rng)
        cuts = [
            self._cut(pictures[view], points, rng)
            for view, points in zip(pair, in_cams, strict=True)
        ]
        seen = [_projects(cut, points) for cut, points in zip(cuts, in_cams, strict=True)]
        usable = np.flatnonzero(seen[0] & seen[1])
        taken = rng.permutation(usable)[: self._config.points]
        points = np.tile([0.0, 0.0, 1.0], (self._config.points, 1))
        points[: len(taken)] = in_cams[0][taken]
        visible = np.arange(self._config.points) < len(taken)
        return cuts[0], cuts[1], T_query_reference, points, visible

    def _common_points(
        self,
        scene: TrainingScene,
        pair: tuple[TrainingView, TrainingView],
        maps: Sequence[DepthMap | None],
        T_query_reference: Matrix,
        rng: np.random.Generator,
    ) -> Sequence[Matrix]:
        """Return points (M, 3) that both observe, in both frames: from depth maps or the model."""
        reference, query = maps
        if reference is not None and query is not None:
            wanted = DRAWN_PER_POINT * self._config.points
            return common_points(reference, query, T_query_reference, wanted, rng)
        shared = np.intersect1d(pair[0].seen, pair[1].seen, assume_unique=True)
        return [se3.transform(v.T_cam_world, scene.points_world[shared]) for v in pair]

    def _cut(self, picture: Picture, points_cam: Matrix, rng: np.random.Generator) -> _Cut:
        """Cut out a part of the picture around the points that the pair shares."""
        width, height = picture.camera.width, picture.camera.height
        whole = min(width / self._size[0], height / self._size[1])
        factor = whole * rng.uniform(*self._config.crop)  # pixels of the picture per pixel
        part = factor * np.array(self._size)
        middle = np.array([width, height]) / 2
        if len(points_cam):
            pixels, _ = picture.camera.project(torch.from_numpy(points_cam))
            middle = np.median(pixels.numpy(), axis=0)
        middle = middle + SPREAD * part * rng.standard_normal(2)
        corner = np.clip(middle - part / 2, 0, [width, height] - part)
        camera = picture.camera.crop(corner.tolist(), part.tolist()).scale(1 / factor)
        out = parallax.pixel_grid(self._size, 1, picture.rgb.device)
        grid = (out + 0.5) * factor - 0.5 + out.new_tensor(corner)
        return _Cut(picture, camera, grid)

    def _cameras(self, cuts: Sequence[_Cut]) -> Camera:
        return Camera.stack([cut.camera for cut in cuts]).to(self._device, torch.float32)


def _images(cuts: Sequence[_Cut]) -> Tensor:
    """Return (B, 3, H, W) in 0..1."""
    return torch.cat(
        [parallax.sample(cut.picture.rgb[None].float() / 255, cut.grid[None]) for cut in cuts]
    )


def _projects(cut: _Cut, points_cam: Matrix) -> NDArray[np.bool_]:
    return cut.camera.project(torch.from_numpy(points_cam))[1].numpy()
