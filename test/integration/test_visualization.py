"""Pictures that people look at to see whether a pose is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import invented
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.features.sampling import FeatureLevel
from pixloc_ros.types import Estimate
from pixloc_ros.visualization.overlay import draw_alignment, draw_estimate
from research.confidence_picture import draw_confidence


@pytest.fixture
def estimate() -> Estimate:
    return invented.estimates(invented.drive(2))[0]


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def one_point(estimate: Estimate, pixel: tuple[float, float], residual: float):
    """The alignment with a single map point, at the same pixel before and after."""
    pixels = np.array([pixel], np.float32)
    return replace(
        estimate.alignment, pixels=pixels, pixels_prior=pixels, points_map=np.zeros((1, 3)),
        residuals=np.array([residual], np.float32),
    )  # fmt: skip


@pytest.mark.parametrize(("height", "width"), [(375, 1242), (480, 640), (1080, 1920)])
def test_before_and_after_are_stacked_or_side_by_side(estimate, height, width):
    image = grey(height, width)
    picture = draw_alignment(image, estimate.alignment)
    assert picture.dtype == np.uint8
    assert (picture.shape[0] > picture.shape[1] / 2) == (width > 1.8 * height)
    assert (image == 100).all()


def test_a_point_is_drawn_where_it_is_in_the_colour_of_its_residual(estimate):
    good = draw_alignment(grey(375, 1242), one_point(estimate, (600.0, 200.0), 0.05))
    bad = draw_alignment(grey(375, 1242), one_point(estimate, (600.0, 200.0), 0.95))
    row = 375 + 4 + 200
    assert good[row, 600, 2] > good[row, 600, 0]  # blue
    assert bad[row, 600, 0] > bad[row, 600, 2]  # red
    changed = np.argwhere((good != bad).any(-1))
    np.testing.assert_allclose(changed.mean(axis=0), (row, 600), atol=0.5)


def test_small_images_are_enlarged_about_pixel_centres(estimate):
    picture = draw_alignment(grey(100, 320), one_point(estimate, (99.5, 49.5), 0.95))
    after = picture[300 + 4 : 604].astype(int)
    reddish = np.argwhere(after[..., 0] > after[..., 2] + 50)
    np.testing.assert_allclose(reddish.mean(axis=0), (149.5, 299.5), atol=0.6)


def test_points_behind_or_far_outside_do_not_matter(estimate):
    wild = estimate.alignment.pixels.copy()
    wild[1] = (1e12, -1e12)
    wild[2] = (np.inf, 0.0)
    picture = draw_alignment(
        grey(200, 320), replace(estimate.alignment, pixels=wild, pixels_prior=wild)
    )
    assert picture.shape[0] > 200


def test_every_verdict_has_a_picture(estimate):
    nowhere = replace(
        estimate.alignment,
        T_map_cam=np.full((4, 4), np.nan),
        pixels=np.full_like(estimate.alignment.pixels, np.nan),
        residuals=np.full_like(estimate.alignment.residuals, np.nan),
    )
    verdicts = [
        estimate,
        invented.rejected(estimate),
        invented.without_prior(estimate),
        replace(invented.rejected(estimate), alignment=nowhere, message="long " * 100),
    ]
    pictures = [draw_estimate(grey(200, 320), verdict, "error 0.01 m") for verdict in verdicts]
    strips = [picture[-44:, :120].tobytes() for picture in pictures]
    assert len(set(strips)) == 3  # two of the four are rejected


def test_confidence_lies_over_the_image_without_the_padding():
    def level(stride: int) -> FeatureLevel:
        confidence = torch.zeros(384 // stride, 1248 // stride)
        confidence[:, 640 // stride :] = 1.0
        rows = torch.stack([torch.zeros(confidence.numel()), confidence.flatten()], 1)
        return FeatureLevel(rows, *confidence.shape, stride, torch.tensor([1242.0, 375.0]))

    image = grey(750, 2484)  # twice as large as what the network saw
    picture = draw_confidence(image, FeaturePyramid((level(16), level(4), level(2)), (0.5, 0.5)))
    finest = picture[150].astype(int).sum(-1)
    edge = np.argmax(np.diff(finest)) + 1
    assert edge == pytest.approx(640 / 1242 * picture.shape[1], abs=1.5)
    assert picture.shape[0] > 3 * 280
