"""Degraded images: reproducible, of the same shape, and degraded as their names say."""

import numpy as np
import pytest

from pixloc_ros.errors import ConfigError
from pixloc_ros.evaluation.degradation import DEGRADATIONS, degrade


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Sharp edges at several scales, 1242 wide as the sizes of the degradations are meant."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (25, 83, 3), np.uint8)
    return np.ascontiguousarray(np.kron(blocks, np.ones((15, 15, 1), np.uint8))[:, :1242])


def contrast(image_rgb: np.ndarray) -> float:
    return float(np.square(np.diff(image_rgb.astype(float), axis=1)).mean())


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_same_seed_same_image_and_the_input_stays(name, picture):
    before = picture.copy()
    first, second = degrade(name, picture, seed=3), degrade(name, picture, seed=3)
    assert first.dtype == np.uint8
    assert first.shape == picture.shape
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(picture, before)
    assert (first != picture).mean() > 0.1


@pytest.mark.parametrize("name", [name for name in DEGRADATIONS if name != "defocus"])
def test_another_seed_gives_another_image(name, picture):
    assert (degrade(name, picture, seed=1) != degrade(name, picture, seed=2)).any()


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (60, 2000, 3)])
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_odd_sizes_work(name, shape):
    assert degrade(name, np.full(shape, 128, np.uint8), seed=0).shape == shape


def test_night_is_dark_and_fog_and_blur_take_contrast(picture):
    assert degrade("night", picture, 0).mean() < 0.45 * picture.mean()
    for name in ("blur", "defocus", "rain", "fog"):
        assert contrast(degrade(name, picture, 0)) < 0.8 * contrast(picture), name


def test_blur_spreads_a_point_over_21_pixels():
    picture = np.zeros((375, 1242, 3), np.uint8)
    picture[187, 621] = 255
    columns = np.flatnonzero(degrade("blur", picture, 0).any(axis=(0, 2)))
    assert 19 <= columns[-1] - columns[0] + 1 <= 23


def test_occlusion_covers_its_share(picture):
    changed = (degrade("occlusion", picture, 5) != picture).any(axis=2).mean()
    assert 0.28 < changed < 0.5


def test_fog_is_densest_at_the_horizon_and_thins_out_towards_the_camera(picture):
    foggy = degrade("fog", picture, 0)
    middle, bottom = slice(150, 190), slice(-30, None)
    assert contrast(foggy[middle]) < 0.25 * contrast(picture[middle])
    assert contrast(foggy[bottom]) > 2.0 * contrast(foggy[middle])


def test_drops_on_the_lens_hide_a_part_of_the_image_only(picture):
    wet = degrade("rain", picture, 0).astype(float)
    lens = 0.75 * picture + 45.0
    hidden = (np.abs(wet - lens).max(-1) > 60).mean()
    assert 0.01 < hidden < 0.3


def test_sizes_scale_with_the_image(picture):
    """A camera of half the width sees half the blur, so bags of reduced images are alike."""
    half = np.zeros((188, 621, 3), np.uint8)
    half[94, 310] = 255
    columns = np.flatnonzero(degrade("blur", half, 0).any(axis=(0, 2)))
    assert 9 <= columns[-1] - columns[0] + 1 <= 12


def test_an_unknown_name_lists_the_known_ones(picture):
    with pytest.raises(ConfigError, match="night, blur, defocus, rain, fog, occlusion"):
        degrade("snow", picture, 0)
