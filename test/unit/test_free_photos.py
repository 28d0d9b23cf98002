"""Photos for training that are cut out of public repositories."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixloc_ros.common import image_files
from pixloc_ros.errors import DataError
from research import free_photos
from research.free_photos import TILE, PhotoRepository


def repository(folder: Path) -> str:
    """Commit a panorama and a photo that is half sky; return the commit."""
    rng = np.random.default_rng(0)
    light = rng.uniform(0.2, 1.0, (512, 1024, 3)).astype(np.float32)
    photo = rng.integers(0, 255, (900, 1200, 3), np.uint8)
    photo[:450] = 120
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "panorama.hdr"), light)
    cv2.imwrite(str(folder / "photo.png"), photo)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "photos"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return commit.stdout.strip()


def test_tiles_have_one_size_and_contrast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = repository(tmp_path / "clones" / "a" / "b")
    photos = PhotoRepository("a/b", commit, "CC0", ("panorama.hdr",), ("photo.png",))
    monkeypatch.setattr(free_photos, "REPOSITORIES", (photos,))
    free_photos.free_photos(tmp_path / "clones", tmp_path / "photos")
    names = sorted(path.relative_to(tmp_path / "photos") for path in tmp_path.rglob("*.jpg"))
    # Of the photo: the whole, and the two lower ones of four details.
    assert [str(name) for name in names] == [
        *(f"held_out/a_photo_{number:02d}.jpg" for number in range(3)),
        *(f"train/a_panorama_{number:02d}.jpg" for number in range(6)),
    ]
    for name in names:
        image = image_files.read(tmp_path / "photos" / name)
        assert image is not None and image.shape == (*TILE, 3)
    monkeypatch.setattr(free_photos, "REPOSITORIES", (replace(photos, commit="0" * 40),))
    with pytest.raises(DataError, match="a/b: no 0000"):
        free_photos.free_photos(tmp_path / "clones", tmp_path / "others")


def test_views_of_a_panorama_are_pinhole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_photos, "MIN_CONTRAST", 0.0)
    width, height = 1440, 720  # four pixels are one degree
    panorama = np.zeros((height, width, 3), np.uint8)
    panorama[..., 0] = np.abs(np.arange(width) / 4 - 180)  # BGR; tiles are RGB
    panorama[..., 2] = (np.arange(height) / 4)[:, None]
    views = list(free_photos._views(panorama))
    assert len(views) == 6
    rows, columns = TILE
    for number, view in enumerate(views):
        for turn_deg, x in ((-45, 0), (0, columns // 2), (45, columns - 1)):
            azimuth_deg = (60 * number + turn_deg) % 360
            at = view[rows // 2, x]
            assert float(at[2]) == pytest.approx(abs(azimuth_deg - 180), abs=1.5)
            assert float(at[0]) == pytest.approx(90, abs=1.5)
        # Half a tile is three quarters of the focal length high.
        down_deg = np.degrees(np.arctan(0.75))
        assert float(view[-1, columns // 2][0]) == pytest.approx(90 + down_deg, abs=1.5)
        assert float(view[-1, 0][0]) == pytest.approx(
            90 + np.degrees(np.arctan(0.75 / np.sqrt(2))), abs=1.5
        )
