"""Measure the network's confidence per object class on the generated street."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.demo.street import drive
from pixloc_ros.demo.street.dataset import DatasetOptions
from pixloc_ros.demo.street.render import render
from pixloc_ros.demo.street.sessions import SESSIONS
from pixloc_ros.features.pyramid import FeatureExtractor, FeaturePyramid
from research import street_labels


@dataclass(frozen=True, slots=True)
class ClassConfidence:
    """Share of all pixels and mean confidence per level of one class."""

    name: str
    share: float
    confidence: tuple[float, ...]  # coarse to fine


def labelled_views(
    count: int, options: DatasetOptions | None = None
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield evenly spaced images (H, W, 3) of the demo's drive, with labels (H, W)."""
    options = options or DatasetOptions()
    street, exposure = options.generate(SESSIONS["later"]), SESSIONS["later"].exposure
    _, poses = drive.drive_poses(options.layout, 1.5, options.length_m, options.rate_hz)
    for index in np.linspace(0, len(poses) - 1, count).astype(int):
        T_map_cam = poses[index] @ drive.T_BASE_CAM
        view = render(street, T_map_cam, options.K, options.width, options.height)
        image_rgb = exposure.apply(view.image_rgb, np.random.default_rng([options.seed, index]))
        yield image_rgb, street_labels.label(street, view, T_map_cam, options.K)


def confidence_by_class(
    features: FeatureExtractor, count: int = 20, options: DatasetOptions | None = None
) -> list[ClassConfidence]:
    """Return means over `count` views, the whole image last."""
    maps, classes = [], []
    for image_rgb, label in labelled_views(count, options):
        maps.append(confidence_maps(features.extract(image_rgb), label.shape))
        classes.append(label)
    confidence, label = np.stack(maps, 1).reshape(len(maps[0]), -1), np.stack(classes).ravel()
    found = [
        _mean(name, confidence, label == i)
        for i, name in enumerate(street_labels.CLASSES)
        if (label == i).any()
    ]
    return [*found, _mean("whole image", confidence, np.ones(len(label), bool))]


def confidence_maps(pyramid: FeaturePyramid, shape: tuple[int, ...]) -> list[NDArray[np.float32]]:
    """Return maps (H, W) per level at the size of the network's image."""
    height, width = shape
    maps = []
    for level, confidence in zip(pyramid.levels, pyramid.confidences, strict=True):
        size = (level.width * level.stride, level.height * level.stride)
        large = cv2.resize(confidence.cpu().numpy(), size, interpolation=cv2.INTER_LINEAR)
        maps.append(large[:height, :width])
    return maps


def _mean(name: str, confidence: NDArray, chosen: NDArray[np.bool_]) -> ClassConfidence:
    means = confidence[:, chosen].mean(1)
    return ClassConfidence(name, float(chosen.mean()), tuple(map(float, means)))
